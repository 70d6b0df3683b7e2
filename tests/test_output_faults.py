"""Disks that are full, gone, read-only or shaky: a clear message, whole parts kept, and the run goes on."""

import errno
import os
import shutil
import subprocess

import pytest
from test_killed_runs import bits
from test_resume import LINES, rows, run

import stkd_screen.files
import stkd_screen.parts.faults
from stkd_screen import load
from stkd_screen.errors import OutputError
from stkd_screen.parts.outputs import output_at
from stkd_screen.verify import verify

OUTPUTS = ["out.parquet", "out/"]


@pytest.fixture(scope="module")
def encoder(toy):
    return load(toy.weights, device="cpu")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("in") / "in.smi"
    path.write_text("".join(LINES))
    return path


@pytest.fixture(scope="module")
def whole(encoder, library, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out.parquet"
    run(encoder, library, output)
    return bits(rows(output))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own; its size may be changed while it is there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", disk]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a disk of its own needs the right to mount one (root)")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # mapped pages may still be open


def remount(disk, option):
    subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_full_disk_keeps_whole_parts_and_the_run_goes_on(encoder, library, whole, small_disk, output):
    place = f"{small_disk}/{output}"
    with pytest.raises(OutputError, match="cannot be written: No space left on device; free space") as fault:
        run(encoder, library, place)
    safe = output_at(place).unfinished().rows
    assert 0 < safe < 100 and f"its first {safe} rows are safe" in str(fault.value)
    assert [check.holds for check in verify(place)][1:] == [True] * 5
    remount(small_disk, "size=4m")
    assert run(encoder, library, place).resumed == safe
    assert bits(rows(place)) == whole


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_disk_that_becomes_read_only(encoder, library, whole, small_disk, output):
    remount(small_disk, "size=4m")
    place = f"{small_disk}/{output}"
    run(encoder, library, place, stop_after=3)
    remount(small_disk, "ro")
    with pytest.raises(OutputError, match="Read-only file system; make that disk writable"):
        run(encoder, library, place)
    remount(small_disk, "rw")
    assert run(encoder, library, place).resumed
    assert bits(rows(place)) == whole


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_target_that_is_removed_during_the_run(encoder, library, whole, tmp_path, output):
    place = output_at(tmp_path / output) if output != "out/" else output_at(f"{tmp_path}/out/")

    def remove(summary):
        if summary.records == 50:
            shutil.rmtree(place.work)

    with pytest.raises(OutputError, match=r"No such file or directory; somebody removed it") as fault:
        run(encoder, library, str(place.path) + "/" * (output == "out/"), report=remove)
    assert "safe" not in str(fault.value)
    assert not place.work.exists()
    assert run(encoder, library, str(place.path) + "/" * (output == "out/")).resumed == 0
    assert bits(rows(place.path)) == whole


class Shaky:
    """Stands for a call of the system: every `period`-th one fails."""

    def __init__(self, call, period, code):
        self.call, self.period, self.code, self.count = call, period, code, 0

    def __call__(self, *arguments, **named):
        self.count += 1
        if self.count % self.period == 0:
            raise OSError(self.code, os.strerror(self.code))
        return self.call(*arguments, **named)


@pytest.fixture
def no_patience(monkeypatch):
    monkeypatch.setattr(stkd_screen.parts.faults, "PATIENCE", (0, 0))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_network_disk_that_fails_now_and_then(
    encoder, library, whole, tmp_path, monkeypatch, no_patience, output, call, code
):
    monkeypatch.setattr(os, call, Shaky(getattr(os, call), 7, code))
    summary = run(encoder, library, f"{tmp_path}/{output}")
    assert summary.complete and 1 <= len(summary.disk_faults) < 10
    assert os.strerror(code) in summary.disk_faults[0] and "trying" in summary.disk_faults[0]
    assert bits(rows(tmp_path / output)) == whole


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_network_disk_that_does_not_come_back(
    encoder, library, whole, tmp_path, monkeypatch, no_patience, output
):
    broken = Shaky(os.fsync, 1, errno.EIO)
    run(encoder, library, f"{tmp_path}/{output}", stop_after=3)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OutputError, match="Input/output error"):
            run(encoder, library, f"{tmp_path}/{output}")
    assert broken.count == 3  # the first time, and after each of two waits
    assert run(encoder, library, f"{tmp_path}/{output}").resumed
    assert bits(rows(tmp_path / output)) == whole


@pytest.mark.parametrize("code", [errno.EACCES, errno.EDQUOT, errno.ENOSPC])
@pytest.mark.parametrize("at", range(1, 12, 2))
def test_a_fault_that_does_not_pass_ends_the_run_at_once(
    encoder, library, whole, tmp_path, monkeypatch, no_patience, code, at
):
    output = tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        broken = Shaky(os.fsync, at, code)
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OutputError, match=os.strerror(code)):
            run(encoder, library, output)
    assert broken.count == at
    run(encoder, library, output)
    assert bits(rows(output)) == whole


def test_no_permission_is_said_at_the_start(encoder, library, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(OutputError, match=r"out\.parquet cannot be written: Permission denied; get the perm"):
        run(encoder, library, tmp_path / "out.parquet")


def test_the_rows_of_a_part_that_the_disk_refused_are_written_again(encoder, library, whole, tmp_path):
    """The limit of file size of the process: the write itself fails, in the middle of a part."""
    import resource
    import signal

    output = tmp_path / "out.parquet"
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        with pytest.raises(OutputError, match="File too large; give -o a folder"):
            run(encoder, library, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        signal.signal(signal.SIGXFSZ, before)
    assert run(encoder, library, output).resumed
    assert bits(rows(output)) == whole

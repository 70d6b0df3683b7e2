"""Run a command over and over, kill it at random moments, and let the last run come to its end.

    python tests/killing.py KILLS SECONDS SEED -- embed in.smi -o out.parquet ...

Each run is a process of its own, killed by SIGKILL up to SECONDS after it has begun to write. A run that is
done by then is no kill, and the output starts anew. Prints what happened as one JSON object. Processes are
forked from this one, which has loaded the libraries and used none: their threads do not survive a fork.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable

import stkd_screen.embed  # noqa: F401  torch, numba and pyarrow
from stkd_screen.cli import main
from stkd_screen.parts.outputs import OutputFile, OutputFolder, output_at


def start(command: list[str]) -> int:
    process = os.fork()
    if process:
        return process
    sys.argv = ["stkd-screen", *command]
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    try:
        main()
    except SystemExit as ended:
        os._exit(int(ended.code or 0))
    finally:
        os._exit(99)


def wait(process: int, until: Callable[[], bool]) -> int | None:
    """The exit status of a process that ends before `until()` is true, else None."""
    end = time.monotonic() + 600
    while not until():
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            raise SystemExit("a run hangs")
        time.sleep(0.001)
    return None


def killed(command: list[str], seconds: float) -> bool:
    """Start a run and kill it so many seconds after it has begun to write; False where it is done by then."""
    output = output_of(command)
    process = start(command)

    def writes() -> bool:
        manifest = output.unfinished()
        return manifest is not None and f"process {process} " in manifest.writer

    status = wait(process, writes)
    if status is None:
        end = time.monotonic() + seconds
        status = wait(process, lambda: time.monotonic() > end)
    if status is None:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return True
    if status:
        raise SystemExit(f"a run ended with {status}")
    return False


def output_of(command: list[str]) -> OutputFile | OutputFolder:
    return output_at(command[command.index("-o") + 1])


def kill_runs(kills: int, seconds: float, seed: int, command: list[str]) -> dict[str, int]:
    """How many runs were killed; after how many kills nothing, as much as before or more was safe; and how
    many runs came to their end before they could be killed."""
    generator = random.Random(seed)
    output = output_of(command)
    counts = Counter(kills=0, nothing_safe=0, as_much_safe=0, more_safe=0, done=0)
    safe = 0
    while counts["kills"] < kills:
        if killed(command, generator.uniform(0, seconds)):
            manifest = output.unfinished() or output.finished()
            before, safe = safe, manifest.rows if manifest else 0
            counts["kills"] += 1
            counts["nothing_safe" if not safe else "more_safe" if safe > before else "as_much_safe"] += 1
        else:
            counts["done"] += 1
            safe = 0
            shutil.rmtree(output.path) if output.path.is_dir() else output.path.unlink()
    if status := wait(start(command), lambda: False):
        raise SystemExit(f"the last run ended with {status}")
    return dict(counts)


if __name__ == "__main__":
    kills, seconds, seed, _, *command = sys.argv[1:]
    print(json.dumps(kill_runs(int(kills), float(seconds), int(seed), command)))

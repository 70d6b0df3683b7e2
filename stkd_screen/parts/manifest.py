"""The manifest of an output: what it was made from and how, and its parts. A run goes on from it."""

import hashlib
import json
import os
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from stkd_screen import __version__
from stkd_screen.errors import OutputError
from stkd_screen.files import write_json
from stkd_screen.records.inputs import is_pipe

FORMAT = 2
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16  # of an input, spread evenly from its first byte to its last


@dataclass(frozen=True)
class InputFile:
    """One input. Size and sample are known before a byte is embedded, the whole hash when all was read."""

    path: str
    bytes: int | None  # None for standard input and pipes: they cannot be read again
    sample_sha256: str | None  # of 16 blocks of 64 KiB
    sha256: str | None = None  # of the whole file; None until it has been read to its end


@dataclass(frozen=True)
class Part:
    rows: int
    bytes: int
    sha256: str
    bad: dict[str, int]  # kind of error -> rows
    warned: int  # rows
    warnings: dict[str, int]  # kind of warning -> rows
    file: str | None  # in a folder; None where the parts stand end to end in one file


@dataclass(frozen=True)
class Manifest:
    """Names what an output was made from; a run may go on where another stopped if these are the same."""

    model: str
    model_sha256: str
    options: dict[str, Any]  # all that the rows depend on
    inputs: list[InputFile]
    columns: dict[str, str]  # name -> type
    parts: list[Part] = field(default_factory=list)
    complete: bool = False
    input_fault: str | None = None  # why the input ended early, if it did
    writer: str = ""  # who writes, or wrote last: process, machine, time
    program: str = __version__
    format: int = FORMAT

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def size(self) -> int:
        """Bytes of the parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def can_be_read_again(self) -> bool:
        return all(file.bytes is not None for file in self.inputs)

    @property
    def way_on(self) -> str:
        """What finishes a run that has not come to its end."""
        if self.can_be_read_again:
            return "the command that began it goes on after them"
        return "a pipe cannot be read again from its beginning: begin anew with --restart"

    @property
    def bad(self) -> Counter[str]:
        return sum((Counter(part.bad) for part in self.parts), Counter())

    @property
    def warned(self) -> int:
        return sum(part.warned for part in self.parts)

    @property
    def warnings(self) -> Counter[str]:
        return sum((Counter(part.warnings) for part in self.parts), Counter())

    def places(self) -> list[tuple[int, int]]:
        """First byte of each part and the one after its last, where they stand end to end."""
        ends = [0]
        for part in self.parts:
            ends.append(ends[-1] + part.bytes)
        return list(pairwise(ends))

    def with_part(self, part: Part) -> "Manifest":
        return replace(self, parts=[*self.parts, part])

    def completed(self, hashes: dict[str, str], input_fault: str | None) -> "Manifest":
        """The manifest of the whole output.

        Args:
            hashes: path -> SHA-256 of each input that was read to its end.
            input_fault: why the input ended early, if it did.
        """
        inputs = [replace(file, sha256=hashes.get(file.path)) for file in self.inputs]
        return replace(self, inputs=inputs, complete=True, input_fault=input_fault)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes, source: Path) -> "Manifest":
        """Raises OutputError where the text is no manifest of this format."""
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise OutputError(
                    f"{source}: its manifest has format {content['format']}, this program reads {FORMAT}; "
                    f"use the version that wrote it ({content['program']})"
                )
            content["inputs"] = [InputFile(**file) for file in content["inputs"]]
            content["parts"] = [Part(**part) for part in content["parts"]]
            manifest = Manifest(**content)
            _check(manifest)
            return manifest
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(
                f"{source}: its manifest is damaged ({error!r}); copy the output anew"
            ) from error


def _check(manifest: Manifest) -> None:
    """Raises ValueError where a value is of another kind than a run writes."""
    kinds = {"options": dict, "columns": dict, "complete": bool}
    odd = [name for name, kind in kinds.items() if not isinstance(getattr(manifest, name), kind)]
    for part in manifest.parts:
        counts = [part.rows, part.bytes, part.warned, *part.bad.values(), *part.warnings.values()]
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            odd.append("parts")
        if part.file is not None and part.file != Path(part.file).name:
            odd.append("the file of a part")
    if manifest.complete and not manifest.parts:
        odd.append("complete, without parts")
    if odd:
        raise ValueError(f"odd: {', '.join(dict.fromkeys(odd))}")


def differences(old: Manifest, new: Manifest) -> list[str]:
    """What keeps a new run from going on where an old one stopped, as `what old -> new`."""
    found = []
    if old.program != new.program:
        found.append(f"stkd-screen {old.program} -> {new.program}")
    if old.model_sha256 != new.model_sha256:
        found.append(f"model {old.model} ({old.model_sha256[:12]}) -> {new.model} ({new.model_sha256[:12]})")
    changed = [name for name, value in new.options.items() if old.options.get(name) != value]
    if len(changed) > 1 and "window" in changed:
        changed.remove("window")  # it follows from the others
    for name in changed:
        found.append(f"{name.replace('_', '-')} {old.options.get(name)} -> {new.options[name]}")
    if len(old.inputs) != len(new.inputs):
        found.append(f"{len(old.inputs)} input files -> {len(new.inputs)}")
        return found
    for before, now in zip(old.inputs, new.inputs, strict=True):
        if Path(before.path).name != Path(now.path).name:
            found.append(f"input {before.path} -> {now.path}")
        elif before.bytes != now.bytes:
            found.append(f"input {now.path}: {before.bytes} bytes -> {now.bytes}")
        elif before.sample_sha256 != now.sample_sha256:
            found.append(f"input {now.path}: the same size, but other content")
    return found


def column_types(schema: pa.Schema) -> dict[str, str]:
    """Name -> type of each column, as in docs/embed.md: int64, string, float32, float16[128]."""

    def name(kind: pa.DataType) -> str:
        if pa.types.is_fixed_size_list(kind):
            return f"{name(kind.value_type)}[{kind.list_size}]"
        return {"halffloat": "float16", "float": "float32"}.get(str(kind), str(kind))

    return {column.name: name(column.type) for column in schema}


def describe_inputs(files: Iterable[Path]) -> list[InputFile]:
    """Size and sample of each file: read in a moment, whatever its size."""
    return [InputFile(str(path), *_size_and_sample(path)) for path in files]


def _size_and_sample(path: Path) -> tuple[int | None, str | None]:
    if is_pipe(path):
        return None, None
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for k in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE_BYTES) * k // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError:
        return 0, None  # the reader will say so, and read the other inputs
    return size, digest.hexdigest()


def this_writer() -> str:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, since {now}"


def load_manifest(path: Path) -> Manifest | None:
    """A saved manifest, None where there is none.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from error
    return Manifest.from_json(text, path)


def save_manifest(manifest: Manifest, path: Path) -> None:
    """Raises OSError where it cannot be written."""
    write_json(path, asdict(manifest))

"""Is an output what its manifest says? Every part, every row, and every record of the input, read again."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stkd_screen.errors import InputError, OutputError
from stkd_screen.files import file_sha256
from stkd_screen.parts.manifest import Manifest, column_types
from stkd_screen.parts.outputs import OutputFile, OutputFolder
from stkd_screen.parts.stored import StoredRecords, read_columns
from stkd_screen.records import RecordReader
from stkd_screen.records.parquet import METADATA_KEY

_READ = ("columns", "rows", "results", "input")  # checks that read the parts, in their order
_NO_RESULT = ("row", "id", "smiles", "error", "warning")
Report = Callable[[str, int, int], None]  # what is read, rows done, rows in all


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found."""

    name: str
    holds: bool | None  # None: could not be looked at
    finding: str


def verify(
    output: str | Path, inputs: Sequence[str | Path] = (), report: Report = lambda what, done, total: None
) -> list[Check]:
    """Compare an output with its manifest and with its input.

    Args:
        output: what `embed` wrote, or has begun to write: a Parquet file or a folder.
        inputs: where its input is now; by default where it was.
        report: called as the work goes on.

    Returns:
        One check after the other; all is well where none of them has `holds` False.

    Raises:
        OutputError: there is no output, it was cut short, or it has no manifest.
    """
    if output == "":  # Path("") is the folder one is in
        raise OutputError("an output without a name (an empty variable?); name what embed wrote")
    place, manifest = _find(Path(output))
    checks = [_check_complete(manifest), _check_parts(place, manifest)]
    try:
        checks.append(_check_columns(place, manifest))
        if checks[-1].holds:
            checks += _check_rows(place, manifest, report)
            checks.append(_check_input(place, manifest, inputs, report))
    except (OutputError, OSError, pa.ArrowException) as fault:  # a part that cannot be read
        left = [name for name in _READ if name not in {check.name for check in checks}]
        checks.append(Check(left[0], False, f"cannot be read: {fault}"))
        checks += [Check(name, None, "not looked at, for a part cannot be read") for name in left[1:]]
    return checks


def _find(path: Path) -> tuple[OutputFile | OutputFolder, Manifest]:
    place = OutputFolder(path) if path.is_dir() else OutputFile(path)
    manifest = place.finished() or place.unfinished()
    if manifest and path.is_dir() and any(part.file is None for part in manifest.parts):
        place = OutputFile(path.with_suffix(""))  # that was the working folder of a file
    if manifest is None:
        raise OutputError(f"{path} {_why_not(path)}; give what stkd-screen embed wrote")
    return place, manifest


def _why_not(path: Path) -> str:
    """Why an output has no manifest."""
    if not path.exists():
        return "is not there"
    if path.is_file():
        try:
            pq.read_metadata(path)
        except (OSError, pa.ArrowException):
            return "is no whole Parquet file: it was cut short, or is something else"
    return "has no manifest to compare it with"


def _check_complete(manifest: Manifest) -> Check:
    if not manifest.complete:
        return Check("output", False, f"unfinished, {manifest.rows:,} rows so far; {manifest.way_on}")
    if manifest.input_fault:
        return Check(
            "output", False, f"{manifest.rows:,} rows, not of the whole input: {manifest.input_fault}"
        )
    parts = f"{len(manifest.parts):,} part{'s' * (len(manifest.parts) != 1)}"
    return Check("output", True, f"complete, {manifest.rows:,} rows in {parts}")


def _check_parts(place: OutputFile | OutputFolder, manifest: Manifest) -> Check:
    """Size and hash of every part; and in a folder nothing that is no part."""
    for i, part in enumerate(manifest.parts):
        path, start = place.place(manifest, i)
        if not path.is_file():
            return Check("parts", False, f"part {i} ({path}) is missing")
        size = path.stat().st_size - start
        if size < part.bytes or (part.file and size != part.bytes):
            return Check("parts", False, f"part {i} ({path}) has {max(0, size):,} bytes of {part.bytes:,}")
        if file_sha256(path, start, part.bytes) != part.sha256:
            return Check("parts", False, f"part {i} ({path}) was altered: its SHA-256 is another")
    if isinstance(place, OutputFolder):
        foreign = sorted(set(place.parquet_names()) - {part.file for part in manifest.parts})
        if foreign:
            return Check("parts", False, f"{', '.join(foreign[:3])} in {place.path} is not in the manifest")
    return Check("parts", True, f"{manifest.size:,} bytes, with the SHA-256 that they were written with")


def _check_columns(place: OutputFile | OutputFolder, manifest: Manifest) -> Check:
    for file in place.open(manifest):
        with file:
            schema = file.schema_arrow
        columns = column_types(schema)
        if columns != manifest.columns:
            return Check("columns", False, f"{columns} instead of {manifest.columns}")
        try:
            made_by = json.loads((schema.metadata or {})[METADATA_KEY])["model_sha256"]
        except (ValueError, LookupError, TypeError):
            made_by = None
        if made_by != manifest.model_sha256:
            return Check("columns", False, f"of another model than {manifest.model}")
    return Check("columns", True, f"{', '.join(manifest.columns)}; model {manifest.model}")


def _check_rows(place: OutputFile | OutputFolder, manifest: Manifest, report: Report) -> list[Check]:
    """Numbers of the rows, and in each either a result or an error."""
    results = [name for name in manifest.columns if name not in _NO_RESULT]
    row = bad = warned = 0
    misplaced: list[int] = []
    unclear: list[int] = []
    for batch in read_columns(place, manifest, ["row", "error", "warning", *results]):
        expected = np.arange(row, row + len(batch))
        failed = _is_there(batch, "error")
        has_any = np.any([_is_there(batch, name) for name in results], axis=0)
        has_all = _is_there(batch, "embedding") if "embedding" in results else has_any
        misplaced += expected[batch["row"].to_numpy() != expected][:1].tolist()
        unclear += expected[np.where(failed, has_any, ~has_all)][:1].tolist()
        row += len(batch)
        bad += int(failed.sum())
        warned += int(_is_there(batch, "warning").sum())
        report("rows", row, manifest.rows)

    if row != manifest.rows:
        rows = Check("rows", False, f"{row:,}, its manifest says {manifest.rows:,}")
    elif misplaced:
        rows = Check("rows", False, f"out of order at row {misplaced[0]}")
    else:
        rows = Check("rows", True, f"{row:,}, numbered 0, 1, 2, ...")
    counted = f"{row - bad:,} ({warned:,} with a warning), and {bad:,} rows with an error instead"
    if unclear:
        return [rows, Check("results", False, f"row {unclear[0]} has both a result and an error, or neither")]
    if (bad, warned) != (manifest.bad.total(), manifest.warned):
        counted += f"; its manifest says {manifest.bad.total():,} and {manifest.warned:,}"
        return [rows, Check("results", False, counted)]
    return [rows, Check("results", True, counted)]


def _is_there(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return np.asarray(batch[name].is_valid())


def _check_input(
    place: OutputFile | OutputFolder, manifest: Manifest, inputs: Sequence[str | Path], report: Report
) -> Check:
    """The records of the input, read again, beside those that are stored."""
    if not manifest.can_be_read_again and not inputs:
        return Check("input", None, "came from standard input or a pipe: it cannot be read again")
    options = manifest.options
    try:
        reader = RecordReader(
            inputs or [file.path for file in manifest.inputs],
            smiles_column=options["smiles_column"],
            id_column=options["id_column"],
            batch_size=options["window"],
            exclude=place.path,
        )
    except InputError as fault:
        return Check("input", False if inputs else None, str(fault))
    return _compare(reader, StoredRecords(place, manifest), manifest, report)


def _compare(reader: RecordReader, stored: StoredRecords, manifest: Manifest, report: Report) -> Check:
    row, longer = 0, False
    try:
        for records in reader:
            rest = records.head(manifest.rows - row)
            if (i := stored.first_difference(rest)) is not None:
                return Check(
                    "input", False, f"{records.place(i)} is not what was embedded as row {row + i:,}"
                )
            row += len(rest)
            report("input", row, manifest.rows)
            if longer := len(rest) < len(records):
                break
    except InputError as fault:
        if not manifest.input_fault or row < manifest.rows:
            return Check("input", False, str(fault))
    if row < manifest.rows:
        return Check("input", False, f"ends after {row:,} records, {manifest.rows:,} were embedded")
    ended = manifest.complete and not manifest.input_fault and manifest.options["limit"] is None
    if longer and ended:
        return Check("input", False, f"goes on after the {row:,} records that were embedded")
    same = f"the {row:,} SMILES and ids that were embedded, in their order"
    hashes = zip(map(str, reader.files), (file.sha256 for file in manifest.inputs), strict=False)
    if any(then and reader.hashes.get(path, then) != then for path, then in hashes):
        same += "; but in files of other bytes, by their SHA-256"
    return Check("input", True, same)

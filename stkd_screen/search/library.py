"""An embedded library: what `stkd-screen embed` wrote, as a stream of normalised vectors and records."""

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stkd_screen.errors import SearchError, StkdWarning, first_line
from stkd_screen.parts.manifest import Manifest, load_manifest
from stkd_screen.parts.outputs import MANIFEST, OutputFile, OutputFolder, manifest_in
from stkd_screen.records.inputs import file_format
from stkd_screen.records.parquet import METADATA_KEY, READ_AHEAD

BATCH_ROWS = 16_384


@dataclass(frozen=True)
class Origin:
    """How the vectors of an index were made. Vectors of two origins are never compared."""

    model: str
    model_sha256: str
    level: str  # level of theory of the predictions
    largest_fragment: bool
    width: int  # of the embedding
    predictions: list[str]  # names of the prediction columns: homo_ev, lumo_ev, gap_ev
    # How far off they may be: homo_ev_err and so on, and `domain`. An old index has none.
    expected_errors: list[str] = field(default_factory=list)

    @property
    def numbers(self) -> list[str]:
        """Names of all columns of numbers that an index keeps."""
        return [*self.predictions, *self.expected_errors]

    def schema(self) -> pa.Schema:
        """Columns that an index keeps of each molecule."""
        return pa.schema(
            [("id", pa.string()), ("smiles", pa.string())]
            + [(name, pa.float32()) for name in self.numbers]
            + [("warned", pa.bool_())]  # whether `embed` gave a reason not to trust the predictions
        )


class Library:
    """Parquet files of one origin.

    Args:
        outputs: files that `stkd-screen embed` wrote, or folders of them. Where a folder has a manifest, the
            parts that it names are taken.

    Raises:
        SearchError: an empty name, no file, a file that `embed` did not write or that has no embeddings, or
            files of different models, levels or ways of treating fragments; or a folder whose run has not
            come to its end, or that lacks a part.
        OutputError: a manifest cannot be read.

    Warns:
        StkdWarning: the input of a run was damaged, so that molecules may be missing.
    """

    files: list[Path]
    origin: Origin
    rows: int  # of all files, rows with errors included

    def __init__(self, outputs: Sequence[str | Path]) -> None:
        if "" in outputs:  # Path("") is the folder one is in
            raise SearchError("an input without a name (an empty variable?); name what embed wrote")
        self.files = [file for path in map(Path, outputs) for file in _parquet_files(path)]
        described = [_describe(path) for path in self.files]
        self.origin = described[0][0]
        self.rows = sum(rows for _, rows in described)
        for path, (origin, _) in zip(self.files, described, strict=True):
            check_same_origin(origin, str(path), self.origin, str(self.files[0]))

    def batches(self) -> Iterator[tuple[np.ndarray, pa.RecordBatch, int]]:
        """Batches of R molecules.

        Yields:
            (R, D) float16 of unit length; R records with the columns of `Origin.schema`; and how many rows
            of the batch were left out, because they have an error or a vector without direction.

        Raises:
            SearchError: a damaged file.
        """
        columns = ["id", "smiles", *self.origin.numbers, "warning", "error", "embedding"]
        for path in self.files:
            row = 0
            try:
                with pq.ParquetFile(path, buffer_size=READ_AHEAD, pre_buffer=False) as file:
                    for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                        yield self._prepared(batch)
                        row += len(batch)
            except (OSError, pa.ArrowException) as fault:
                raise SearchError(
                    f"{path}: damaged after row {row} ({first_line(fault)}); embed it anew"
                ) from fault

    def _prepared(self, batch: pa.RecordBatch) -> tuple[np.ndarray, pa.RecordBatch, int]:
        good = batch.filter(pc.and_(batch["error"].is_null(), batch["embedding"].is_valid()))
        values = good["embedding"].flatten().to_numpy(zero_copy_only=False)
        vectors = values.reshape(-1, self.origin.width).astype(np.float32)  # (R, D)
        usable = usable_rows(vectors)
        if not usable.all():
            good, vectors = good.filter(pa.array(usable)), vectors[usable]
        columns = [good[name] for name in ("id", "smiles", *self.origin.numbers)]
        columns.append(good["warning"].is_valid())
        records = pa.RecordBatch.from_arrays(
            [column.cast(field.type) for column, field in zip(columns, self.origin.schema(), strict=True)],
            schema=self.origin.schema(),
        )
        return normalised(vectors).astype(np.float16), records, len(batch) - len(good)


def check_same_origin(origin: Origin, name: str, other: Origin, other_name: str) -> None:
    """Raises SearchError, saying what differs, unless both were made in the same way."""
    if origin.model_sha256 == other.model_sha256 and origin.width != other.width:
        raise SearchError(
            f"{name} holds vectors of {origin.width} dimensions, {other_name} of {other.width}; embed both "
            "with the same --dims, or index them apart"
        )
    if origin.model_sha256 != other.model_sha256:
        raise SearchError(
            f"{name} holds vectors of model {describe_model(origin)}, {other_name} those of "
            f"{describe_model(other)}; vectors of two models cannot be compared: embed both with one model"
        )
    for what in ("level", "largest_fragment", "predictions"):
        mine, theirs = getattr(origin, what), getattr(other, what)
        if mine != theirs:
            raise SearchError(
                f"{name} was embedded with {what} {mine}, {other_name} with {theirs}; "
                "embed both with the same options, or index them apart"
            )
    if origin.expected_errors != other.expected_errors:
        old = name if len(origin.expected_errors) < len(other.expected_errors) else other_name
        raise SearchError(
            f"{old} was made before predictions had expected errors; embed its molecules anew, and build the "
            "index anew with --overwrite"
        )


def describe_model(origin: Origin) -> str:
    return f"{origin.model!r} ({origin.model_sha256[:12]})"


def normalised(vectors: np.ndarray) -> np.ndarray:
    """(R, D) float32 scaled to unit length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def usable_rows(vectors: np.ndarray) -> np.ndarray:
    """(R,) bool: which of (R, D) vectors have a direction."""
    norms = np.linalg.norm(vectors, axis=1)
    return np.isfinite(norms) & (norms > 0)


def _parquet_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        if unfinished := OutputFile(path).unfinished():
            raise SearchError(_unfinished(path, unfinished))
        raise SearchError(f"no such file: {path}; check the name and the folder you are in")
    parts = {manifest.parent: _parts(manifest.parent) for manifest in path.rglob(MANIFEST)}
    files = sorted(
        file
        for file in path.rglob("*.parquet")
        if not file.name.startswith(".") and (file.parent not in parts or file.name in parts[file.parent])
    )
    if not files:
        raise SearchError(f"{path}: no .parquet file in this folder; give what stkd-screen embed wrote")
    return files


def _parts(folder: Path) -> set[str | None]:
    """Names of the files that the manifest of a folder names, all of which are there."""
    output = OutputFolder(folder)
    manifest = load_manifest(folder / MANIFEST)
    assert manifest is not None  # it was found there
    if not manifest.complete:
        or_else = "; or name single files to index them without the rest" if output.parquet_names() else ""
        raise SearchError(_unfinished(folder, manifest) + or_else)
    if missing := output.missing(manifest):
        raise SearchError(f"{missing}; copy the folder again, or embed it anew with --overwrite")
    _warn_of_fault(folder, manifest)
    return {part.file for part in manifest.parts}


def _unfinished(path: Path, manifest: Manifest) -> str:
    return f"{path}: an unfinished run of stkd-screen embed, {manifest.rows:,} rows so far; {manifest.way_on}"


def _warn_of_fault(path: Path, manifest: Manifest) -> None:
    if manifest.input_fault:
        warnings.warn(
            f"{path}: its input was not read in full, so molecules may be missing: {manifest.input_fault}",
            StkdWarning,
            stacklevel=2,
        )


def _not_embedded(path: Path) -> str:
    return f"{path} was not written by stkd-screen embed; first: stkd-screen embed {path} -o OUT.parquet"


def _describe(path: Path) -> tuple[Origin, int]:
    try:
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as fault:
        if file_format(path) not in (None, "parquet"):
            raise SearchError(_not_embedded(path)) from fault
        raise SearchError(
            f"{path}: no whole Parquet file ({first_line(fault)}); embed the library anew"
        ) from fault
    about = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    if "model_sha256" not in about:
        raise SearchError(_not_embedded(path))
    if "embedding" not in schema.names:
        raise SearchError(
            f"{path} was written with --no-embedding; embed the library anew without that option"
        )
    if manifest := manifest_in(metadata, path):  # a part of a folder has no manifest of its own
        _warn_of_fault(path, manifest)
    predictions = [name for name in schema.names if name in about["units"]]
    expected_errors = [*(f"{name}_err" for name in predictions), "domain"]
    origin = Origin(
        model=about["model"],
        model_sha256=about["model_sha256"],
        level=about["level"],
        largest_fragment=about["largest_fragment"],
        width=schema.field("embedding").type.list_size,
        predictions=predictions,
        expected_errors=[name for name in expected_errors if name in schema.names],
    )
    return origin, metadata.num_rows

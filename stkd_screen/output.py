"""The output: which columns there are, and one row for each input record, whatever is in it."""

import json
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from stkd_screen import __version__
from stkd_screen.domain import warnings_of
from stkd_screen.errors import StkdError
from stkd_screen.expected_errors import measures
from stkd_screen.records import Records
from stkd_screen.records.parquet import METADATA_KEY
from stkd_screen.smiles import Molecules, describe_error, error_class
from stkd_screen.targets import CLASS_UNIT, Target, of_level
from stkd_screen.weights import Weights

EMBEDDING_TYPES = {"float16": (torch.float16, pa.float16()), "float32": (torch.float32, pa.float32())}
FEW_HEAVY_ATOMS = 4  # so small a molecule is like no other: the gaps of `small` are off by 0.7 eV there
NOT_FINITE = "the model gave a value that is not finite"


@dataclass(frozen=True)
class Encoded:
    """What the student says of R molecules, in input order; rows that hold no molecule are NaN."""

    embedding: np.ndarray  # (R, E) float32
    prediction: np.ndarray  # (R, targets) float32, in the units of the targets


@dataclass(frozen=True)
class OutputOptions:
    """What to write of each molecule."""

    level: str | None = None  # level of theory of the predictions; None: the model's first
    embedding: bool = True
    embedding_dtype: str = "float16"
    dims: int | None = None  # leading dimensions of the embedding to write; None: all
    largest_fragment: bool = False  # drop counter-ions and solvents before encoding

    def checked(self, weights: Weights) -> "OutputOptions":
        """The same options with the level filled in.

        Raises:
            StkdError: a level or data type that the model or the format does not have.
        """
        asked = self.level or weights.levels[0]
        level = next((known for known in weights.levels if known.lower() == asked.lower()), None)
        if level is None:
            raise StkdError(
                f"model {weights.name!r} has no level {asked!r}; its levels: {', '.join(weights.levels)}"
            )
        if self.embedding_dtype not in EMBEDDING_TYPES:
            raise StkdError(
                f"embedding type {self.embedding_dtype!r} is not one of {', '.join(EMBEDDING_TYPES)}"
            )
        config = weights.student.config
        if self.dims not in (None, config.embedding_width) and not config.fingerprint:
            raise StkdError(
                f"model {weights.name!r} was not taught an embedding that can be cut short; leave out --dims"
            )
        if self.dims is not None and not 1 <= self.dims <= config.embedding_width:
            raise StkdError(
                f"--dims {self.dims}: the embedding of model {weights.name!r} has "
                f"{config.embedding_width} dimensions"
            )
        return replace(self, level=level)


def prediction_columns(weights: Weights, level: str) -> dict[str, int | None]:
    """Column name -> index of the target at this level, None where the level lacks the property."""
    columns: dict[str, int | None] = {}
    for k, target in enumerate(weights.targets):
        if target.level == level or columns.get(column_name(target)) is None:
            columns[column_name(target)] = k if target.level == level else None
    return columns


def column_name(target: Target) -> str:
    """homo in eV -> homo_ev; a target without a unit keeps its bare name."""
    unit = "".join(c if c.isalnum() else "_" for c in target.unit.lower())
    return target.name if unit in ("", "none", CLASS_UNIT) else f"{target.name}_{unit}"


def schema(weights: Weights, options: OutputOptions) -> pa.Schema:
    """Columns and metadata of the output. `options` must have been checked against the weights."""
    assert options.level is not None
    fields = [pa.field("row", pa.int64()), pa.field("id", pa.string()), pa.field("smiles", pa.string())]
    numbers = {column_name(target) for target in weights.targets if not target.is_class}
    for name in prediction_columns(weights, options.level):
        fields.append(pa.field(name, pa.float32()))
        if name in numbers:
            fields.append(pa.field(f"{name}_err", pa.float32()))
    fields.append(pa.field("domain", pa.float32()))
    if options.embedding:
        item = EMBEDDING_TYPES[options.embedding_dtype][1]
        fields.append(
            pa.field("embedding", pa.list_(item, options.dims or weights.student.config.embedding_width))
        )
    fields += [pa.field("error", pa.string()), pa.field("warning", pa.string())]
    about = {
        "program": "stkd-screen",
        "version": __version__,
        "model": weights.name,
        "model_sha256": weights.sha256,
        "errors_sha256": weights.errors_sha256,
        "level": options.level,
        "units": {column_name(target): target.unit for target in weights.targets},
        "largest_fragment": options.largest_fragment,
    }
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(about)})


def result_table(
    records: Records,
    molecules: Molecules,
    encoded: Encoded,
    weights: Weights,
    options: OutputOptions,
    first_row: int = 0,
) -> tuple[pa.Table, Counter[str], Counter[str]]:
    """One output row for each record, and how often each kind of error and each kind of warning occurs.

    Args:
        records: R input records.
        molecules: their R pre-transformed molecules.
        encoded: what the student says of them.
        weights: what they were computed with.
        options: checked against the weights.
        first_row: number of the first record in the whole input.
    """
    assert options.level is not None
    embedding, prediction = encoded.embedding, encoded.prediction
    finite = np.isfinite(prediction).all(axis=1)
    if options.embedding:
        torch_type, arrow_type = EMBEDDING_TYPES[options.embedding_dtype]
        given = torch.from_numpy(embedding[:, : options.dims])
        written = given.to(torch_type, copy=True)
        # What float16 cannot hold becomes infinite, and so an error.
        finite &= given.abs().amax(1).to(torch_type).isfinite().numpy()
    errors, kinds = row_errors(records, molecules, finite)
    failed = np.array([error is not None for error in errors], bool)
    columns: dict[str, pa.Array] = {
        "row": pa.array(np.arange(first_row, first_row + len(records))),
        "id": records.id,
        "smiles": records.smiles,
    }
    half_widths, domain = _expected(weights, options.level, embedding, prediction, molecules)
    for name, k in prediction_columns(weights, options.level).items():
        missing = failed if k is not None else np.ones(len(records), bool)
        columns[name] = pa.array(prediction[:, k or 0], pa.float32(), mask=missing)
        unknown = missing | ~np.isfinite(half_widths[:, k or 0])
        columns[f"{name}_err"] = pa.array(half_widths[:, k or 0], pa.float32(), mask=unknown)
    columns["domain"] = pa.array(domain, pa.float32(), mask=failed | ~np.isfinite(domain))
    if options.embedding:
        written[torch.from_numpy(failed)] = 0
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(
            pa.array(written.numpy().reshape(-1), arrow_type), written.shape[1], mask=pa.array(failed)
        )
    columns["error"] = pa.array(errors, pa.string())
    columns["warning"], warned = warnings_of(
        molecules,
        weights.atom_types[options.level],
        _few_heavy_atoms(weights, options.level),
        weights.max_heavy_atoms[options.level],
        ~failed,
        options.largest_fragment,
    )
    wanted = schema(weights, options)
    table = pa.table([columns[field.name].cast(field.type) for field in wanted], schema=wanted)
    return table, kinds, warned


def _few_heavy_atoms(weights: Weights, level: str) -> int:
    """With so many heavy atoms, or fewer, a molecule is warned of; -1, none, without a calibration."""
    errors = weights.errors.get(level)
    return min(int(errors.few), FEW_HEAVY_ATOMS) if errors is not None else -1


def _expected(
    weights: Weights, level: str, embedding: np.ndarray, prediction: np.ndarray, molecules: Molecules
) -> tuple[np.ndarray, np.ndarray]:
    """Half-widths (R, targets) of 90% intervals and domain (R,), NaN where nothing calibrates them: also
    those of molecules with an element that no label has."""
    half_widths = np.full(prediction.shape, np.nan, np.float32)
    errors = weights.errors.get(level)
    if errors is None:
        return half_widths, half_widths[:, 0]
    domain = errors.domain(embedding)
    of_molecules = molecules.heavy_atoms(), molecules.ionic, molecules.unpaired
    given = measures(errors, level, weights.targets, embedding, domain, prediction, *of_molecules)
    half_widths[:, of_level(weights.targets, level)] = errors.half_widths(given)
    half_widths[weights.with_unlabelled_element(molecules)] = np.nan
    return half_widths, domain


def row_errors(
    records: Records, molecules: Molecules, finite: np.ndarray
) -> tuple[list[str | None], Counter[str]]:
    """Why each record has no result, None where it has one; and how often each kind of reason occurs.

    Args:
        finite: (R,) bool, whether all that is to be written of a molecule is finite.
    """
    errors: list[str | None] = [None] * len(records)
    kinds: Counter[str] = Counter()
    for i in np.flatnonzero(molecules.error).tolist():
        if i not in records.errors:
            code, column = molecules.error[i], molecules.error_column[i]
            errors[i] = describe_error(code, column, records.smiles[i].as_py())
            kinds[error_class(code)] += 1
    for i in np.flatnonzero((molecules.error == 0) & ~finite).tolist():
        errors[i] = NOT_FINITE
        kinds[NOT_FINITE] += 1
    for i, reason in records.errors.items():
        errors[i] = reason
        kinds[reason.partition(" at column ")[0]] += 1
    return errors, kinds

"""One batch of input records, and the way from raw bytes to text that can be stored."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BATCH_BYTES = 1 << 26  # a batch of text ends here even if it lacks records: very long lines fill no memory


@dataclass(frozen=True)
class Records:
    """Consecutive input records of one file.

    Readers of the raw buffers are promised: Arrow arrays have offset 0; `smiles` has no null bitmap.
    """

    smiles: pa.Array  # (R,) large_string, as read; invalid UTF-8 shown as U+FFFD; empty where missing
    id: pa.Array  # (R,) large_string, null where missing
    errors: dict[int, str]  # index within this batch -> reason the record cannot be used
    source: str  # file name as the user gave it, "<stdin>" for -
    lines: np.ndarray  # (R,) int64, 1-based line (text: the record's first line) or row (parquet)
    unit: str = "line"  # what `lines` counts: "line" or "row"
    letters_lost: bool = False  # in an id that was not UTF-8

    def __post_init__(self) -> None:
        object.__setattr__(self, "smiles", _without_bitmap(_from_zero(self.smiles)))
        object.__setattr__(self, "id", _from_zero(self.id))

    def __len__(self) -> int:
        return len(self.lines)

    def head(self, count: int) -> "Records":
        """The first `count` records, or all where there are fewer."""
        if count >= len(self):
            return self
        errors = {i: reason for i, reason in self.errors.items() if i < count}
        first = slice(0, count)
        return replace(
            self, smiles=self.smiles[first], id=self.id[first], errors=errors, lines=self.lines[first]
        )

    def place(self, i: int) -> str:
        """Where record `i` stands, for messages: 'zinc.smi line 81'."""
        return f"{self.source} {self.unit} {self.lines[i]}"


def smiles_text(raw: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """SMILES as text, and the reason for each that is not valid UTF-8.

    Args:
        raw: (R,) large_binary without nulls.

    Returns:
        (R,) large_string, and {index: reason}.
    """
    try:
        return raw.cast(pa.large_string()), {}  # no copy: only checks
    except pa.ArrowInvalid:
        values = raw.to_pylist()
    reasons = {i: reason for i, value in enumerate(values) if (reason := _utf8_fault(value))}
    return pa.array([value.decode("utf-8", "replace") for value in values], pa.large_string()), reasons


def id_text(raw: pa.Array) -> tuple[pa.Array, bool]:
    """Ids as text; a foreign encoding in a name costs its odd letters (U+FFFD), never the molecule.

    Args:
        raw: (R,) large_binary, null where missing.

    Returns:
        (R,) large_string, and whether letters were lost.
    """
    try:
        return raw.cast(pa.large_string()), False
    except pa.ArrowInvalid:
        texts = [value if value is None else value.decode("utf-8", "replace") for value in raw.to_pylist()]
        return pa.array(texts, pa.large_string()), True


def table_records(
    smiles: pa.Array, ids: pa.Array, name: str, source: str, lines: np.ndarray, unit: str
) -> Records:
    """Records of two columns.

    Args:
        smiles, ids: (R,) large_binary; null or empty where missing.
        name: the SMILES column's, for messages.
    """
    smiles, errors = smiles_text(smiles.fill_null(b""))
    smiles = pc.utf8_trim_whitespace(smiles)
    if pc.any(pc.match_substring(smiles, "|")).as_py():  # extended SMILES: `CCO |...|`
        smiles = pc.replace_substring_regex(smiles, r"(?s)^(\S+)\s+\|.*", r"\1")
    empty = np.asarray(pc.binary_length(smiles)) == 0
    errors |= {int(i): f"no SMILES in column {name!r}" for i in np.flatnonzero(empty)}
    ids, letters_lost = id_text(ids)
    ids = pc.utf8_trim_whitespace(ids)
    ids = pc.if_else(pc.equal(pc.binary_length(ids), 0), pa.scalar(None, pa.large_string()), ids)
    return Records(smiles, ids, errors, source, lines, unit, letters_lost)


def _from_zero(array: pa.Array) -> pa.Array:
    return pa.concat_arrays([array]) if array.offset else array


def _without_bitmap(array: pa.Array) -> pa.Array:
    # Arrow kernels like to return an all-valid bitmap.
    _, offsets, data = array.buffers()
    return pa.Array.from_buffers(array.type, len(array), [None, offsets, data])


def _utf8_fault(value: bytes) -> str | None:
    try:
        value.decode()
    except UnicodeDecodeError as fault:
        return f"not valid UTF-8 at column {len(value[: fault.start].decode()) + 1}"
    return None

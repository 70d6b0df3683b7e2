"""Why a SMILES could not be read: one code per row, and the sentence a chemist sees."""

from enum import IntEnum


class ParseError(IntEnum):
    """What is wrong with a SMILES. The values are stored in files: never renumber them."""

    OK = 0
    EMPTY = 1
    CHARACTER = 2
    NOT_ASCII = 3
    ATOM_EXPECTED = 4
    BRACKET_UNCLOSED = 5
    BRACKET_CHARACTER = 6
    ELEMENT = 7
    CHIRALITY = 8
    HYDROGENS = 9
    CHARGE = 10
    NUMBER = 11
    BRANCH_EMPTY = 12
    BRANCH_UNCLOSED = 13
    BRANCH_UNOPENED = 14
    RING_NUMBER = 15
    RING_UNCLOSED = 16
    RING_TO_ITSELF = 17
    RING_DUPLICATE = 18
    VALENCE = 19
    TOO_MANY_ATOMS = 20
    TOO_LONG = 21
    KEKULE = 22
    AROMATIC_OUTSIDE_RING = 23


_MESSAGES = {
    ParseError.OK: "no error",
    ParseError.EMPTY: "empty SMILES",
    ParseError.CHARACTER: "{found} is not part of a SMILES here",
    ParseError.NOT_ASCII: "{found} is not a printable ASCII character",
    ParseError.ATOM_EXPECTED: "an atom is expected, not {found}",
    ParseError.BRACKET_UNCLOSED: "unclosed bracket",
    ParseError.BRACKET_CHARACTER: "{found} does not belong here in a bracket atom",
    ParseError.ELEMENT: "unknown element at {found}",
    ParseError.CHIRALITY: "unknown chirality class or number",
    ParseError.HYDROGENS: "more than 255 hydrogens on one atom",
    ParseError.CHARGE: "charge outside -15..+15",
    ParseError.NUMBER: "number too large",
    ParseError.BRANCH_EMPTY: "empty branch",
    ParseError.BRANCH_UNCLOSED: "unclosed branch",
    ParseError.BRANCH_UNOPENED: "closing parenthesis without an opening one",
    ParseError.RING_NUMBER: "malformed ring bond number (use 0-9, %10-%99 or %(n))",
    ParseError.RING_UNCLOSED: "unclosed ring bond {ring}",
    ParseError.RING_TO_ITSELF: "ring bond {ring} joins an atom to itself",
    ParseError.RING_DUPLICATE: "ring bond {ring} joins two atoms that are bonded already",
    ParseError.VALENCE: "too many bonds for its element and charge on the atom",
    ParseError.TOO_MANY_ATOMS: "more than 256 atoms",
    ParseError.TOO_LONG: "more than 1,000,000 bytes",
    ParseError.KEKULE: (
        "aromatic ring cannot be written with alternating bonds (often an n that should be [nH])"
    ),
    ParseError.AROMATIC_OUTSIDE_RING: "lower-case (aromatic) atom outside a ring",
}


# The same for all rows of a kind, where the sentence above is about one row.
_CLASSES = {
    ParseError.CHARACTER: "character that is not part of a SMILES there",
    ParseError.NOT_ASCII: "character that is not printable ASCII",
    ParseError.ATOM_EXPECTED: "no atom where one is expected",
    ParseError.BRACKET_CHARACTER: "character that does not belong there in a bracket atom",
    ParseError.ELEMENT: "unknown element",
    ParseError.RING_UNCLOSED: "unclosed ring bond",
    ParseError.RING_TO_ITSELF: "ring bond that joins an atom to itself",
    ParseError.RING_DUPLICATE: "ring bond that joins two atoms that are bonded already",
    ParseError.VALENCE: "too many bonds on an atom",
    ParseError.KEKULE: "aromatic ring that cannot be written with alternating bonds",
}


def describe_error(code: int, column: int, smiles: str | bytes) -> str:
    """The sentence for one row, such as `unclosed ring bond 1 at column 5`.

    Args:
        code, column: the row's `error` and `error_column` as found in `Molecules`.
        smiles: the row itself.
    """
    # Columns count bytes, but no character before the offending one takes more than one.
    text = smiles.decode("utf-8", "surrogateescape") if isinstance(smiles, bytes) else smiles
    rest = text[column - 1 :] if column > 0 else ""
    message = _MESSAGES[ParseError(code)].format(found=_name(rest[:1]), ring=_ring_number(rest))
    return f"{message} at column {column}" if column > 0 else message


def error_class(code: int) -> str:
    """What rows with this error have in common, to count them by: `unclosed ring bond`."""
    error = ParseError(code)
    return _CLASSES.get(error, _MESSAGES[error])


def _name(character: str) -> str:
    names = {"": "the end", " ": "a blank", "\t": "a tab"}
    if character in names:
        return names[character]
    if character.isprintable():
        return f"'{character}'"
    code = ord(character)
    # What was no UTF-8 has come through as a surrogate that holds the byte.
    return f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"


def _ring_number(rest: str) -> str:
    if rest.startswith("%("):
        return rest[2 : rest.find(")")]
    return rest[1:3] if rest.startswith("%") else rest[:1]

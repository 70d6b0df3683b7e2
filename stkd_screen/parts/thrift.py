"""Thrift's compact protocol: as much as it takes to read the footer of a Parquet file and write it back.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

import io
from typing import Any

# A value as it stands in a struct, with its type code. Structs are {field number: (type, value)}, lists are
# (type of the elements, [values]); i16, i32 and i64 are ints, everything else is kept as it was read.
Struct = dict[int, tuple[int, Any]]

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)


def read_struct(file: io.BytesIO) -> Struct:
    """Raises ValueError where the bytes are no struct."""
    fields: Struct = {}
    number = 0
    while header := _byte(file):
        kind = header & 15
        number = number + (header >> 4) if header >> 4 else _unzigzag(_read_varint(file))
        fields[number] = kind, _read_value(file, kind)
    return fields


def write_struct(file: io.BytesIO, fields: Struct | bytes) -> None:
    """Write a struct, or the bytes of one that was written before."""
    if isinstance(fields, bytes):
        file.write(fields)
        return
    before = 0
    for number, (kind, value) in fields.items():
        if 0 < number - before < 16:
            file.write(bytes([number - before << 4 | kind]))
        else:
            file.write(bytes([kind]))
            _write_varint(file, _zigzag(number))
        _write_value(file, kind, value)
        before = number
    file.write(b"\0")


def _read_value(file: io.BytesIO, kind: int) -> Any:
    if kind in (TRUE, FALSE):
        return None  # the type is the value
    if kind in (I16, I32, I64):
        return _unzigzag(_read_varint(file))
    if kind == BYTE:
        return file.read(1)
    if kind == DOUBLE:
        return file.read(8)
    if kind == BINARY:
        return file.read(_read_varint(file))
    if kind in (LIST, SET):
        header = _byte(file)
        size = _read_varint(file) if header >> 4 == 15 else header >> 4
        element = header & 15
        return element, [_read_element(file, element) for _ in range(size)]
    if kind == STRUCT:
        return read_struct(file)
    raise ValueError(f"no type {kind} in a Parquet footer")


def struct_bytes(fields: Struct) -> bytes:
    file = io.BytesIO()
    write_struct(file, fields)
    return file.getvalue()


def _write_value(file: io.BytesIO, kind: int, value: Any) -> None:
    if kind in (I16, I32, I64):
        _write_varint(file, _zigzag(value))
    elif kind in (BYTE, DOUBLE):
        file.write(value)
    elif kind == BINARY:
        _write_varint(file, len(value))
        file.write(value)
    elif kind in (LIST, SET):
        element, values = value
        file.write(bytes([min(len(values), 15) << 4 | element]))
        if len(values) >= 15:
            _write_varint(file, len(values))
        for item in values:
            _write_element(file, element, item)
    elif kind == STRUCT:
        write_struct(file, value)


# In a list a truth value has no field header to stand in, so it takes a byte.
def _read_element(file: io.BytesIO, kind: int) -> Any:
    return file.read(1) if kind in (TRUE, FALSE) else _read_value(file, kind)


def _write_element(file: io.BytesIO, kind: int, value: Any) -> None:
    if kind in (TRUE, FALSE):
        file.write(value)
    else:
        _write_value(file, kind, value)


def _byte(file: io.BytesIO) -> int:
    byte = file.read(1)
    if not byte:
        raise ValueError("a Parquet footer that ends early")
    return byte[0]


def _read_varint(file: io.BytesIO) -> int:
    value = shift = 0
    while (byte := _byte(file)) & 128:
        value |= (byte & 127) << shift
        shift += 7
    return value | byte << shift


def _write_varint(file: io.BytesIO, value: int) -> None:
    while value > 127:
        file.write(bytes([value & 127 | 128]))
        value >>= 7
    file.write(bytes([value]))


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else ~(value << 1)


def _unzigzag(value: int) -> int:
    return value >> 1 ^ -(value & 1)

"""Vectors of float32 for compiled functions, and numbers of bfloat16 in memory.

Where a loop is short, or a whole tile of a matrix is to stay in registers, what a compiler makes of plain
loops is two to four times slower. These are LLVM's own vectors: a register of AVX-512 or of AVX, two of NEON;
where there are none, LLVM takes their values one by one. All here is for compiled functions only, so with
NUMBA_DISABLE_JIT=1 there is no forward pass on a CPU.

A vector holds eight numbers of one row of a matrix, or, where registers are as wide, of two rows.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, overload, register_model

_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2]  # of the processor that is compiled for
EIGHT = 8
ROWS = 2 if "+avx512f" in _FEATURES else 1
LANES = EIGHT * ROWS
BFLOAT16 = types.int16  # numba has no bfloat16: to it, arrays of them hold these
NO_FRACTIONS = 1.5 * 2**23  # a float32 of this size has no place for them: adding it rounds

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_EIGHT_FLOATS = ir.VectorType(_FLOAT, EIGHT)
# Whether the processor rounds to bfloat16 in one instruction, and LLVM knows it.
_ROUNDS_TO_BFLOAT16 = binding.llvm_version_info[0] >= 20 and "+avx512bf16" in _FEATURES
_FUSED = ("contract",)  # a product and a sum may become one instruction


class _BFloat16(ir.Type):
    """LLVM's type, which llvmlite lacks."""

    def __str__(self) -> str:
        return "bfloat"


class VectorType(types.Type):
    """numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__(f"float32 x {LANES}")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _FLOATS)


def _is_by_rows(matrix: Any) -> bool:
    readonly = not getattr(matrix, "mutable", True)
    return matrix == types.Array(types.float32, 2, "C", readonly=readonly)


def _place(context: Any, builder: Any, signature: Any, arguments: Any, of_row: int, kind: Any) -> Any:
    """Where numbers lie whose matrix and column are the first and the last argument but for the vector."""
    matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
    _, step = cgutils.unpack_tuple(builder, matrix.shape)
    of_column = len(arguments) - 1 - (signature.args[-1] == vector)
    row, column = (
        context.cast(builder, arguments[k], signature.args[k], types.intp) for k in (of_row, of_column)
    )
    place = builder.gep(matrix.data, [builder.add(builder.mul(row, step), column)])
    return builder.bitcast(place, kind.as_pointer())


def _of_rows(builder: Any, one: Any, other: Any) -> Any:
    """A vector of the eight numbers of one row and, where it holds two, of another."""
    return one if ROWS == 1 else builder.shuffle_vector(one, other, ir.Constant(_INTS, list(range(LANES))))


@intrinsic
def load(typing, matrix, row, other, column):  # type: ignore[no-untyped-def]
    """Eight numbers from a column on of one row and, where a vector holds two, of another. As all of these,
    not tested against the shape of the matrix."""
    if not _is_by_rows(matrix):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # The arguments that name the rows: where a vector holds one, it is the first.
        places = (_place(context, builder, signature, arguments, k, _EIGHT_FLOATS) for k in (1, ROWS))
        return _of_rows(builder, *(builder.load(place, align=4) for place in places))

    return vector(matrix, row, other, column), generate


@intrinsic
def load_same(typing, matrix, row, column):  # type: ignore[no-untyped-def]
    """Eight numbers of a row from a column on, for all rows of a vector."""
    if not _is_by_rows(matrix):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        eight = builder.load(_place(context, builder, signature, arguments, 1, _EIGHT_FLOATS), align=4)
        return _of_rows(builder, eight, eight)

    return vector(matrix, row, column), generate


@intrinsic
def store(typing, matrix, row, other, column, x):  # type: ignore[no-untyped-def]
    """Write what `load` reads."""
    if not _is_by_rows(matrix):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for k in range(ROWS):
            place = _place(context, builder, signature, arguments, 1 + k, _EIGHT_FLOATS)
            lanes = ir.Constant(ir.VectorType(_INT, EIGHT), list(range(k * EIGHT, (k + 1) * EIGHT)))
            builder.store(builder.shuffle_vector(arguments[4], arguments[4], lanes), place, align=4)
        return context.get_dummy_value()

    return types.void(matrix, row, other, column, vector), generate


@intrinsic
def load_all(typing, matrix, row, column):  # type: ignore[no-untyped-def]
    """All lanes, from a column of a row on."""
    if not _is_by_rows(matrix):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature, arguments, 1, _FLOATS), align=4)

    return vector(matrix, row, column), generate


@intrinsic
def store_all(typing, matrix, row, column, x):  # type: ignore[no-untyped-def]
    """Write what `load_all` reads."""
    if not _is_by_rows(matrix):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments, 1, _FLOATS)
        builder.store(arguments[3], place, align=4)
        return context.get_dummy_value()

    return types.void(matrix, row, column, vector), generate


@intrinsic
def widened(typing, x):  # type: ignore[no-untyped-def]
    """The float32 of a number of an array, whichever of the two formats that has."""
    if x not in (types.float32, BFLOAT16):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if signature.args[0] == types.float32:
            return arguments[0]
        bits = builder.shl(builder.zext(arguments[0], _INT), _INT(16))  # it is the upper half of one
        return builder.bitcast(bits, _FLOAT)

    return types.float32(x), generate


@intrinsic
def narrowed(typing, array, x):  # type: ignore[no-untyped-def]
    """A float32 in the format of an array: of bfloat16 the nearest and of two such the even one, NaN of NaN.

    Where the processor does it, numbers below 1e-38 become 0.
    """
    if array.dtype not in (types.float32, BFLOAT16):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x = arguments[1]
        if signature.return_type == types.float32:
            return x
        if _ROUNDS_TO_BFLOAT16:
            return builder.bitcast(builder.fptrunc(x, _BFloat16()), ir.IntType(16))
        bits = builder.bitcast(x, _INT)
        odd = builder.and_(builder.lshr(bits, _INT(16)), _INT(1))
        rounded = builder.lshr(builder.add(bits, builder.add(_INT(0x7FFF), odd)), _INT(16))
        is_nan = builder.fcmp_unordered("uno", x, x)
        return builder.trunc(builder.select(is_nan, _INT(0x7FC0), rounded), ir.IntType(16))

    return array.dtype(array, types.float32), generate


@intrinsic
def magnitude_bits(typing, x):  # type: ignore[no-untyped-def]
    """The bits of a float32 without its sign, as an int32: in the order of the magnitudes, NaN beyond all. A
    compiler fills vector registers with the largest of whole numbers, but not of floats."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.and_(builder.bitcast(arguments[0], _INT), _INT(0x7FFFFFFF))

    return types.int32(types.float32), generate


@intrinsic
def from_bits(typing, bits):  # type: ignore[no-untyped-def]
    """The float32 of an int32 with the same bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _FLOAT)

    return types.float32(types.int32), generate


@intrinsic
def in_all_lanes(typing, x):  # type: ignore[no-untyped-def]
    """A vector of one number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing = ir.Constant(_FLOATS, ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], _INT(0))
        return builder.shuffle_vector(first, nothing, ir.Constant(_INTS, [0] * LANES))

    return vector(types.float32), generate


def _of_each_lane(instruction: Callable[..., Any], operands: int) -> Any:
    """A function of vectors that gives a vector."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return instruction(builder, *arguments)

    signature = vector(*[vector] * operands)
    one, two = (lambda typing, x: (signature, generate)), (lambda typing, x, y: (signature, generate))
    return intrinsic(one if operands == 1 else two)


def _operator(symbol: Callable, instruction: Callable[..., Any]) -> None:
    """Let an operator of Python stand between two vectors."""
    function = _of_each_lane(instruction, 2)

    @overload(symbol)
    def choose(x, y):  # type: ignore[no-untyped-def]
        return (lambda x, y: function(x, y)) if x == y == vector else None


_operator(operator.add, lambda builder, x, y: builder.fadd(x, y, flags=_FUSED))
_operator(operator.sub, lambda builder, x, y: builder.fsub(x, y, flags=_FUSED))
_operator(operator.mul, lambda builder, x, y: builder.fmul(x, y, flags=_FUSED))
_operator(operator.truediv, lambda builder, x, y: builder.fdiv(x, y))

# The second where one of them is NaN.
larger = _of_each_lane(lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y), 2)


def _power_of_two(builder: Any, x: Any) -> Any:
    whole = builder.shl(builder.bitcast(x, _INTS), ir.Constant(_INTS, [23] * LANES))
    return builder.bitcast(builder.add(whole, ir.Constant(_INTS, [127 << 23] * LANES)), _FLOATS)


# 2 to the power of n, -126 to 127, given n + NO_FRACTIONS: the last bits of such a sum are those of n.
power_of_two = _of_each_lane(_power_of_two, 1)

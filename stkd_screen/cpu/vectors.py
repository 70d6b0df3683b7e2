"""Vectors of eight float32, for compiled functions; in memory they may be bfloat16.

Where a loop is short, or a whole tile of a matrix is to stay in registers, what a compiler makes of plain
loops is two to four times slower. These are LLVM's own vectors: a register of AVX, two of NEON, half a one of
AVX-512; where there are none, LLVM takes their values one by one. All here is for compiled functions only, so
with NUMBA_DISABLE_JIT=1 there is no forward pass on a CPU.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, overload, register_model

LANES = 8
BFLOAT16 = types.int16  # numba has no bfloat16: to it, arrays of them hold these
NO_FRACTIONS = 1.5 * 2**23  # a float32 of this size has no place for them: adding it rounds

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_SHORTS = ir.VectorType(ir.IntType(16), LANES)
# Whether the processor that is compiled for rounds to bfloat16 in one instruction, and LLVM knows it.
_ROUNDS_TO_BFLOAT16 = (
    binding.llvm_version_info[0] >= 20
    and "+avx512bf16" in cpu_target.target_context.codegen().magic_tuple()[2]
)
_FUSED = ("contract",)  # a product and a sum may become one instruction


class _BFloat16(ir.Type):
    """LLVM's type, which llvmlite lacks."""

    def __str__(self) -> str:
        return "bfloat"


class VectorType(types.Type):
    """numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__("float32 x 8")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _FLOATS)


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Where a vector lies whose matrix, row and first column are the first arguments."""
    matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
    _, step = cgutils.unpack_tuple(builder, matrix.shape)
    row, column = (context.cast(builder, arguments[k], signature.args[k], types.intp) for k in (1, 2))
    place = builder.gep(matrix.data, [builder.add(builder.mul(row, step), column)])
    vectors = _SHORTS if signature.args[0].dtype == BFLOAT16 else _FLOATS
    return builder.bitcast(place, vectors.as_pointer())


def _is_by_rows(matrix: Any) -> bool:
    readonly = not getattr(matrix, "mutable", True)
    return any(matrix == types.Array(kind, 2, "C", readonly=readonly) for kind in (types.float32, BFLOAT16))


def _widen(builder: Any, x: Any) -> Any:
    """float32 of bfloat16, which is its upper half; of numbers or vectors."""
    kind = _INTS if isinstance(x.type, ir.VectorType) else _INT
    bits = builder.shl(builder.zext(x, kind), ir.Constant(kind, _in_lanes(kind, 16)))
    return builder.bitcast(bits, _FLOATS if kind == _INTS else _FLOAT)


def _narrow(builder: Any, x: Any) -> Any:
    """bfloat16 of float32, the nearest and of two such the even one, NaN of NaN; of numbers or vectors.

    Where the processor does it, numbers below 1e-38 become 0.
    """
    kind, shorts = (_INTS, _SHORTS) if isinstance(x.type, ir.VectorType) else (_INT, ir.IntType(16))
    if _ROUNDS_TO_BFLOAT16:
        number = _BFloat16()
        narrow = ir.VectorType(number, LANES) if shorts == _SHORTS else number
        return builder.bitcast(builder.fptrunc(x, narrow), shorts)
    half, last = (ir.Constant(kind, _in_lanes(kind, number)) for number in (0x7FFF, 1))
    upper = ir.Constant(kind, _in_lanes(kind, 16))
    bits = builder.bitcast(x, kind)
    odd = builder.and_(builder.lshr(bits, upper), last)
    rounded = builder.lshr(builder.add(bits, builder.add(half, odd)), upper)
    nan = ir.Constant(kind, _in_lanes(kind, 0x7FC0))
    return builder.trunc(builder.select(builder.fcmp_unordered("uno", x, x), nan, rounded), shorts)


def _in_lanes(kind: Any, number: int) -> Any:
    return [number] * LANES if kind == _INTS else number


@intrinsic
def load(typing, matrix, row, column):  # type: ignore[no-untyped-def]
    """Eight values of a row of a matrix; not tested against its shape."""
    if not _is_by_rows(matrix):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        is_narrow = signature.args[0].dtype == BFLOAT16
        loaded = builder.load(_place(context, builder, signature, arguments), align=2 if is_narrow else 4)
        return _widen(builder, loaded) if is_narrow else loaded

    return vector(matrix, row, column), generate


@intrinsic
def store(typing, matrix, row, column, x):  # type: ignore[no-untyped-def]
    """Write eight values of a row of a matrix; not tested against its shape."""
    if not _is_by_rows(matrix):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments)
        if signature.args[0].dtype == BFLOAT16:
            builder.store(_narrow(builder, arguments[3]), place, align=2)
        else:
            builder.store(arguments[3], place, align=4)
        return context.get_dummy_value()

    return types.void(matrix, row, column, vector), generate


@intrinsic
def widened(typing, x):  # type: ignore[no-untyped-def]
    """The float32 of a number of an array, whichever of the two formats that has."""
    if x not in (types.float32, BFLOAT16):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _widen(builder, arguments[0]) if signature.args[0] == BFLOAT16 else arguments[0]

    return types.float32(x), generate


@intrinsic
def narrowed(typing, array, x):  # type: ignore[no-untyped-def]
    """A float32 in the format of an array."""
    if array.dtype not in (types.float32, BFLOAT16):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _narrow(builder, arguments[1]) if signature.return_type == BFLOAT16 else arguments[1]

    return array.dtype(array, types.float32), generate


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

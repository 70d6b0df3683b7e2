"""Rows of the matrices that products read and give, which between two products are float32.

In float32 and bfloat16 products read and give numbers of that format. In int8 they read whole numbers, each
row in steps of its own, so no row depends on its neighbours, and give sums of such: each is to be taken times
the step of its row and that of its column, which is the one of the weights.
"""

import numpy as np
from numba import types

from stkd_screen.cpu.loops import helper_by_type
from stkd_screen.cpu.vectors import from_bits, magnitude_bits, narrowed, widened

LARGEST = 127  # of int8, and -127: as many steps on both sides of zero
SMALLEST = 1e-30  # magnitude that a step is found for, instead of 0, which nothing can be divided by
_SMALLEST_BITS = int(np.float32(SMALLEST).view(np.int32))


@helper_by_type
def value_of(product, row_steps, column_steps, i, d):  # type: ignore[no-untyped-def]
    """The float32 of row i, column d of what a product has given."""

    def of_whole_number(product, row_steps, column_steps, i, d):  # type: ignore[no-untyped-def]
        return np.float32(product[i, d]) * row_steps[i] * column_steps[d]

    def of_float(product, row_steps, column_steps, i, d):  # type: ignore[no-untyped-def]
        return widened(product[i, d])

    return of_whole_number if product.dtype == types.int32 else of_float


@helper_by_type
def put_rows(rows, matrix, steps, first):  # type: ignore[no-untyped-def]
    """Those from row `first` on of what a product will read become `rows`, float32."""

    def to_whole_numbers(rows, matrix, steps, first):  # type: ignore[no-untyped-def]
        for i in range(len(rows)):
            most = np.int32(_SMALLEST_BITS)
            for d in range(rows.shape[1]):
                most = max(most, magnitude_bits(rows[i, d]))
            steps[first + i] = from_bits(most) / np.float32(LARGEST)
        for i in range(len(rows)):
            per_unit = np.float32(1.0) / steps[first + i]
            for d in range(rows.shape[1]):
                matrix[first + i, d] = np.int8(np.rint(rows[i, d] * per_unit))

    def to_floats(rows, matrix, steps, first):  # type: ignore[no-untyped-def]
        for i in range(len(rows)):
            for d in range(rows.shape[1]):
                matrix[first + i, d] = narrowed(matrix, rows[i, d])

    return to_whole_numbers if matrix.dtype == types.int8 else to_floats

"""--where: a condition on the columns of an index, as a Polars SQL expression."""

import re

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from stkd_screen.errors import SearchError
from stkd_screen.search.store import Store


def rows_where(store: Store, condition: str) -> np.ndarray:
    """(N,) bool: the molecules for which a condition such as `gap_ev < 3.5 and not warned` holds.

    Raises:
        SearchError: it does not parse, names a column that is not there, or is not true or false.
    """
    records = pl.scan_ipc(store.records_file)
    columns = ", ".join(records.collect_schema().names())

    def wrong(reason: object) -> SearchError:
        return SearchError(
            f"--where {condition!r}: {reason}; give a condition on the columns {columns}, "
            'such as "gap_ev < 3.5 and not warned"'
        )

    # A subquery could read any file, and needs one of these words; within quotes they are harmless.
    unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", condition)
    if re.search(r"\b(select|from)\b", unquoted, re.IGNORECASE):
        raise wrong("a condition has no SELECT or FROM")
    try:
        holds = records.select(pl.sql_expr(condition).alias("holds")).collect()["holds"]
    except PolarsError as error:
        raise wrong(str(error).split("\n")[0]) from error
    if holds.dtype != pl.Boolean or len(holds) != len(store):
        raise wrong("it is not true or false for each molecule")
    return holds.fill_null(False).to_numpy()

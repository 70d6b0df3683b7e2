"""--where: a condition on the columns of an index, as a Polars SQL expression.

A subquery or a table function could read any file, and SQL has many ways to write and to hide one. So these
are not looked for: every word of a condition has to be a column or one of the words and functions below.
"""

import re
from collections.abc import Collection

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from stkd_screen.errors import SearchError, first_line
from stkd_screen.search.store import Store

WORDS = {
    *("and", "or", "not", "is", "null", "true", "false", "in", "between", "like", "ilike"),
    *("case", "when", "then", "else", "end", "cast", "as"),
    *("int", "integer", "bigint", "float", "real", "double", "varchar", "text", "boolean"),
}
FUNCTIONS = {
    *("abs", "ceil", "floor", "round", "sign", "sqrt", "pow", "power", "exp", "ln", "log10"),
    *("lower", "upper", "length", "trim", "left", "right", "substr", "replace"),
    *("starts_with", "ends_with", "strpos", "regexp_like", "least", "greatest", "coalesce", "nullif"),
    *("min", "max", "avg", "median", "stddev"),
}
# What is read as one piece here is one piece to the SQL parser too: no comment, no escape (E'...'), no `...`.
_TOKEN = re.compile(
    r"""
    \s+
    | '(?:[^']|'')*'
    | "(?P<name>(?:[^"]|"")*)"
    | (?P<hidden>--|/\*|[^\W\d]\w*(?=['"]))
    | (?P<word>[^\W\d]\w*)
    | (?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?
    | <=|>=|<>|!=|==|\|\||::|[-+*/%()<>=,~]
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def rows_where(store: Store, condition: str) -> np.ndarray:
    """(N,) bool: the molecules for which a condition such as `gap_ev < 3.5 and not warned` holds.

    Raises:
        SearchError: as `check_condition`; or it holds for none and names a column without values, as HOMO at
            level pcqm, or `warned` where all are.
    """
    records = pl.scan_ipc(store.records_file)
    holds = _holds(records, condition)
    if not holds.any():
        named = {token["name"] or token["word"] for token in _TOKEN.finditer(condition)}
        known = records.select(pl.all().count()).collect().row(0, named=True)
        if empty := [name for name, count in known.items() if name in named and not count]:
            told = [name for name, count in known.items() if count]
            raise _wrong(condition, f"{empty[0]} is null for every molecule of this index", told)
        if "warned" in named and records.select(pl.col("warned").all()).collect().item():
            raise SearchError(
                f"--where {condition!r} holds for none: all molecules of this index are warned of, and the "
                "column `warning` of what embed wrote says why; leave `not warned` out, or embed at another "
                "level"
            )
    return holds.fill_null(False).to_numpy()


def check_condition(store: Store, condition: str) -> None:
    """Find what is wrong with a condition without looking at a molecule.

    Raises:
        SearchError: it does not parse, has a word that is no column and no function for conditions, or is
            not true or false.
    """
    _holds(pl.scan_ipc(store.records_file).head(0), condition)


def _holds(records: pl.LazyFrame, condition: str) -> pl.Series:
    columns = records.collect_schema().names()
    if strange := _first_strange(condition, columns):
        raise _wrong(condition, strange, columns)
    try:
        holds = records.select(pl.sql_expr(condition).alias("holds")).collect()["holds"]
    except PolarsError as error:
        reason = first_line(error)
        if "cannot compare string" in reason:
            reason += " (a text stands in single quotes)"
        raise _wrong(condition, reason, columns) from error
    if holds.dtype != pl.Boolean or len(holds) != records.select(pl.len()).collect().item():
        raise _wrong(condition, "it is not true or false for each molecule", columns)
    return holds


def _wrong(condition: str, reason: str, columns: Collection[str]) -> SearchError:
    return SearchError(
        f"--where {condition!r}: {reason}; give a condition on the columns {', '.join(columns)}, "
        'such as "gap_ev < 3.5 and not warned"'
    )


def _first_strange(condition: str, columns: Collection[str]) -> str | None:
    """What in a condition is neither a column nor of the SQL that conditions are made of; None: nothing."""
    for token in _TOKEN.finditer(condition):
        name, word = token["name"], token["word"]
        if name is not None and name not in columns:
            return f'there is no column "{name}"; a text stands in single quotes'
        if word and word not in columns and word.lower() not in WORDS | FUNCTIONS:
            return f"{word!r} is no column and no function for conditions"
        if token["hidden"] or token["other"]:
            return f"{token[0]!r} is no part of a condition"
    return None

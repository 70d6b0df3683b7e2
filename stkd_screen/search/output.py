"""Writing hits and reports: a file appears whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from stkd_screen.errors import OutputError
from stkd_screen.files import whole

_HIT_FORMATS = (".parquet", ".csv", ".json")
# After https://owasp.org/www-community/attacks/CSV_Injection; the last four are the wide forms of East Asia.
_FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def check_outputs(hits: Path | None, report: Path | None, *, overwrite: bool) -> None:
    """Refuse outputs that could not be written, before any work is done.

    Raises:
        OutputError: an extension that is not known, or a file that is there already.
    """
    if hits and hits.suffix.lower() not in _HIT_FORMATS:
        raise OutputError(f"-o {hits}: name it {' or '.join(hits.stem + suffix for suffix in _HIT_FORMATS)}")
    if report and report.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"--html {report}: name it {report.stem}.html")
    for path in filter(None, (hits, report)):
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a file")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already; give another name, or --overwrite to replace it")


def write_hits(hits: pl.DataFrame, path: Path, *, raw_csv: bool = False) -> None:
    """As Parquet, CSV or JSON (a list of objects), by the extension.

    Args:
        hits: as `search` gives them.
        path: the file.
        raw_csv: write to CSV as they are also texts that a spreadsheet would take for formulas.

    Raises:
        OutputError: the file cannot be written.
    """
    with _whole(path) as partial:
        match path.suffix.lower():
            case ".parquet":
                hits.write_parquet(partial)
            case ".csv":
                (hits if raw_csv else without_formulas(hits)).write_csv(partial)
            case ".json":
                hits.write_json(partial)


def without_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """The same table with a ' before each text that a spreadsheet would compute, such as =HYPERLINK(...).

    Texts that are plain numbers stay, and so do numbers.
    """
    text = pl.col(pl.String)
    computed = text.str.contains(_FORMULA) & ~text.str.contains(_NUMBER)
    return table.with_columns(pl.when(computed).then(pl.lit("'") + text).otherwise(text).name.keep())


def write_report(page: str, path: Path) -> None:
    """Raises OutputError where the file cannot be written."""
    with _whole(path) as partial:
        partial.write_text(page, encoding="utf-8")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name to write under, which becomes `path` when all went well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            yield partial
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}; free space or choose another name") from error

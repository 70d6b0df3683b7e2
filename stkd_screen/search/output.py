"""Writing hits and reports: a file appears whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from stkd_screen.errors import OutputError
from stkd_screen.files import whole

_HIT_FORMATS = (".parquet", ".csv", ".json")


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


def write_hits(hits: pl.DataFrame, path: Path) -> None:
    """As Parquet, CSV or JSON (a list of objects), by the extension.

    Raises:
        OutputError: the file cannot be written.
    """
    with _whole(path) as partial:
        match path.suffix.lower():
            case ".parquet":
                hits.write_parquet(partial)
            case ".csv":
                hits.write_csv(partial)
            case ".json":
                hits.write_json(partial)


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

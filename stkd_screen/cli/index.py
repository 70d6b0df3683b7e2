"""stkd-screen index: make an embedded library searchable."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from stkd_screen.cli.display import Terminal
    from stkd_screen.search.manifest import Manifest


def index(
    outputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="OUT...", help="Parquet files that embed wrote, or folders of them."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("-o", "--name", help="Name of the index, or a folder. [default: name of the first OUT]"),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="exact, ivf or ivf-pq. [default: by size]")] = None,
    memory: Annotated[float, typer.Option(min=0.5, help="Most memory of the build, in GB.")] = 2.0,
    add: Annotated[
        bool, typer.Option("--add", help="Add OUT to the index named, or to the one built last.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index of this name.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the indexes there are.")] = False,
    info: Annotated[
        bool, typer.Option("--info", help="Describe the index named, or the one built last.")
    ] = False,
) -> None:
    """Build a search index from embedded libraries.

    `search` uses the one that was built last.

        stkd-screen index out.parquet
    """
    from stkd_screen.cli.display import Terminal
    from stkd_screen.errors import SearchError
    from stkd_screen.search.home import find_index

    if list_:
        _print_list(Terminal())
    elif info:
        folder = find_index(name or next(iter(outputs or []), None))
        _print_info(Terminal(), folder)
    elif not outputs:
        raise SearchError("nothing to index; give what embed wrote: stkd-screen index OUT.parquet")
    else:
        _build(Terminal(stderr=True), outputs, name, kind, memory, add, overwrite)


def _build(
    console: "Terminal",
    outputs: list[str],
    name: str | None,
    kind: str | None,
    memory: float,
    add: bool,
    overwrite: bool,
) -> None:
    import time

    from stkd_screen.cli.display import duration
    from stkd_screen.search.build import BuildOptions, build_index
    from stkd_screen.search.home import find_index, index_folder
    from stkd_screen.search.library import Library

    started = time.perf_counter()
    library = Library(outputs)
    folder = find_index(name) if add else index_folder(Path(outputs[0]).stem if name is None else name)
    options = BuildOptions(kind, int(memory * 1e9), add, overwrite)
    with console.status("starting") as status:

        def report(stage: str, done: int, total: int | None) -> None:
            status.update(f"{stage}: {done:,} of {total:,} rows" if total else stage)

        manifest, why = build_index(library, folder, options, report)
    table = _description(folder, manifest)
    table.add_row("why", why)
    table.add_row("time", duration(time.perf_counter() - started))
    console.print(table)
    _warn_of_recall(console, manifest)


def _print_list(console: "Terminal") -> None:
    from rich.table import Table

    from stkd_screen.errors import SearchError
    from stkd_screen.search.home import default_index, home, list_indexes
    from stkd_screen.search.manifest import load_manifest

    folders = list_indexes()
    if not folders:
        raise SearchError(f"no index yet in {home()}; build one: stkd-screen index OUT.parquet")
    default = default_index()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("index", "molecules", "kind", "recall@10", "model", "built"):
        table.add_column(heading, justify="right" if heading in ("molecules", "recall@10") else "left")
    for folder in folders:
        manifest = load_manifest(folder)
        mark = " (default)" if default and folder.resolve() == default.resolve() else ""
        table.add_row(
            folder.name + mark,
            f"{manifest.rows:,}",
            manifest.kind,
            f"{manifest.recall:.3f}",
            manifest.origin.model,
            manifest.built[:16].replace("T", " "),
        )
    console.print(table)


def _print_info(console: "Terminal", folder: Path) -> None:
    from stkd_screen.search.index import Index

    manifest = Index(folder).manifest  # opening it checks its files
    table = _description(folder, manifest)
    table.add_row("built", f"{manifest.built}, by version {manifest.program}")
    for source in manifest.sources:
        table.add_row("from", source)
    table.add_row("files", "all there and of the right size; those up to 1 GB unaltered")
    console.print(table)
    _warn_of_recall(console, manifest)


def _description(folder: Path, manifest: "Manifest") -> "Table":
    from rich.table import Table

    origin = manifest.origin
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("index", str(folder))
    table.add_row("molecules", f"{manifest.rows:,}")
    if manifest.left_out:
        table.add_row("left out", f"{manifest.left_out:,} rows with an error")
    table.add_row("kind", manifest.kind)
    if manifest.effort:
        table.add_row(
            "recall@10",
            f"{manifest.recall:.3f} at {manifest.effort.probes} lists and {manifest.effort.candidates} "
            "candidates a query",
        )
    table.add_row("model", f"{origin.model} ({origin.model_sha256[:12]}), level {origin.level}")
    table.add_row(
        "size", f"{manifest.bytes / 1e6:,.1f} MB, {manifest.bytes / manifest.rows:,.0f} bytes a molecule"
    )
    return table


def _warn_of_recall(console: "Terminal", manifest: "Manifest") -> None:
    from stkd_screen.search.recall import GOOD_RECALL

    if manifest.recall < GOOD_RECALL:
        console.note(
            f"recall@10 is {manifest.recall:.2f}; to find more, search with --exact or build with --kind ivf",
            "yellow",
        )

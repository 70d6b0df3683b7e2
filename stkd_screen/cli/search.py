"""stkd-screen search: the molecules of an index that are most like a query."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stkd_screen.cli.options import Device, SmilesColumn, StudentPrecision

if TYPE_CHECKING:
    import polars as pl

    from stkd_screen.cli.display import Terminal
    from stkd_screen.search.index import Index


def search(
    query: Annotated[
        str, typer.Argument(help="A SMILES; or a file or folder as embed takes it; or - for standard input.")
    ],
    k: Annotated[
        int | None,
        typer.Option("-k", "--hits", min=1, help="Hits for each query. [default: 10, or all there are]"),
    ] = None,
    index: Annotated[
        str | None, typer.Option(help="Name or folder of an index. [default: the one built last]")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help='Condition on the hits, as SQL: "gap_ev < 3.5 and not warned".')
    ] = None,
    min_similarity: Annotated[
        float | None, typer.Option(help="Least cosine of a hit; least Tanimoto with --rerank tanimoto.")
    ] = None,
    unique: Annotated[
        bool, typer.Option("--unique", help="Of molecules that differ in stereo alone, only the nearest.")
    ] = False,
    rerank: Annotated[
        str | None, typer.Option(help="tanimoto: rank the nearest by ECFP4 Tanimoto instead of cosine.")
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, help="Nearest by cosine that --rerank and --unique choose from.")
    ] = 500,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every molecule, whatever the index offers.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the hits: .parquet, .csv or .json.")
    ] = None,
    raw_csv: Annotated[
        bool,
        typer.Option("--raw-csv", help="Write texts that a spreadsheet would take for formulas unmarked."),
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with depictions: one .html file.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that are there already.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Weights folder of the index's model. [default: the shipped one of its name]"),
    ] = None,
    smiles_column: SmilesColumn = None,
    id_column: Annotated[
        str | None, typer.Option(help="Id column of a table, by name or number from 1.")
    ] = None,
    device: Device = "auto",
    precision: StudentPrecision = "auto",
) -> None:
    """The molecules most like each query: cosine of the embeddings, with ECFP4 Tanimoto beside it.

    A query that cannot be read has a row with the reason.

        stkd-screen search "CC(=O)Oc1ccccc1C(=O)O" -k 5 --where "gap_ev < 5"
    """
    import time

    from stkd_screen.cli.display import Terminal
    from stkd_screen.search.hits import SearchOptions
    from stkd_screen.search.hits import search as run_search
    from stkd_screen.search.home import find_index
    from stkd_screen.search.index import Index
    from stkd_screen.search.output import check_outputs, write_hits, write_report
    from stkd_screen.search.queries import load_encoder, read_queries
    from stkd_screen.search.report import html_report

    console = Terminal(stderr=True)
    check_outputs(output, html, overwrite=overwrite)
    with console.status("Loading"):
        opened = Index(find_index(index))
        k = k or min(SearchOptions.k, len(opened))
        options = SearchOptions(k, exact, where, min_similarity, unique, rerank, candidates)
        options.check(opened)
        encoder = load_encoder(opened, model, device, precision)
        queries = read_queries(
            query, encoder, opened.manifest.origin, smiles_column=smiles_column, id_column=id_column
        )
    started = time.perf_counter()
    hits = run_search(opened, queries, options)
    seconds = time.perf_counter() - started
    if output:
        write_hits(hits, output, raw_csv=raw_csv)
    if html:
        write_report(html_report(hits, queries, opened.manifest, opened.folder.name, where), html)
    if not output and not html:
        _print_hits(Terminal(), hits, opened)
    _print_summary(console, hits, opened, seconds, exact)
    for path in filter(None, (output, html)):
        console.unbroken(f"written: {path}")


def _print_hits(console: "Terminal", hits: "pl.DataFrame", index: "Index") -> None:
    """One table a query on standard output; SMILES last and never broken, so that they can be copied."""
    from stkd_screen.search.report import with_error

    energies = [name for name in index.manifest.origin.predictions if hits[name].count()]
    for of_query in hits.partition_by("query", maintain_order=True):
        first = of_query.row(0, named=True)
        title = f"query {first['query']}: {first['query_smiles']} {first['query_id'] or ''}".rstrip()
        console.unbroken(title, "bold")
        if first["rank"] is None:
            console.note(f"  {first['error']}\n")
            continue
        rows = [["id", "rank", "cosine", "Tanimoto", *energies, "SMILES"]]
        for hit in of_query.iter_rows(named=True):
            values = [str(hit["rank"]), _number(hit["cosine"], 3), _number(hit["tanimoto"], 3)]
            values += [with_error(hit, name) + ("*" if hit["warned"] else "") for name in energies]
            rows.append([hit["id"] or "", *values, hit["smiles"]])
        heads, *lines = _aligned(rows)
        console.unbroken(heads, "bold")
        for line in lines:
            console.unbroken(line)
        console.print()


def _print_summary(
    console: "Terminal", hits: "pl.DataFrame", index: "Index", seconds: float, exact: bool
) -> None:
    from stkd_screen.search.recall import GOOD_RECALL

    manifest = index.manifest
    queries = hits["query"].n_unique()
    console.note(
        f"{_counted(hits['rank'].count(), 'hit')} of {_counted(queries, 'query', 'queries')} among "
        f"{_counted(len(index), 'molecule')} of index "
        f"{index.folder.name} ({manifest.origin.model}, {'exact' if exact else manifest.kind}) in "
        f"{seconds:.3f} s"
    )
    if hits["warned"].any():
        console.note(
            "* with a warning: the figure may be wrong, or be of another form of the molecule; the column "
            "`warning` of the embedded library says why"
        )
    without = hits["error"].count()
    if without:
        console.note(
            f"{_counted(without, 'query', 'queries')} without a hit, with the reason in the row", "yellow"
        )
    if manifest.recall < GOOD_RECALL and not exact:
        console.note(
            f"this index finds {manifest.recall:.0%} of the true 10 nearest (recall@10, measured when it was "
            "built): --exact finds all, slower; an index built with --kind ivf finds more",
            "yellow",
        )


def _aligned(rows: list[list[str]]) -> list[str]:
    """Columns beside each other: the first and the last to the left, the others to the right."""
    from rich.cells import cell_len, set_cell_size

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *middle, last in rows:
        cells = [set_cell_size(first, widths[0])]
        cells += [
            " " * (width - cell_len(cell)) + cell for cell, width in zip(middle, widths[1:-1], strict=True)
        ]
        lines.append("  ".join([*cells, last]))
    return lines


def _counted(number: int, one: str, more: str | None = None) -> str:
    """1 hit, 2 hits."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"

"""stkd-screen embed: a library in, a Parquet file out."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from stkd_screen.cli.options import Device, SmilesColumn, StudentPrecision

if TYPE_CHECKING:
    from rich.table import Table

    from stkd_screen.embed import Summary


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help=".smi, .csv, .tsv, .parquet files, also .gz .bz2 .xz .zst; folders; - for standard input."
        ),
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", help="Parquet file to write, or a folder (zinc/) for many.")
    ],
    model: Annotated[str, typer.Option(help="Shipped model name or weights folder.")] = "small",
    level: Annotated[
        str | None,
        typer.Option(
            help="Level of theory: qm9 (homo, lumo, gap) or pcqm (gap only). [default: the model's first]"
        ),
    ] = None,
    device: Device = "auto",
    precision: StudentPrecision = "auto",
    smiles_column: SmilesColumn = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Id column of a table, by name or number from 1. [default: found by name]"),
    ] = None,
    embedding: Annotated[bool, typer.Option(help="Write the embedding column.")] = True,
    embedding_dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    dims: Annotated[
        int | None,
        typer.Option(min=1, help="Write only so many leading dimensions of the embedding. [default: all]"),
    ] = None,
    largest_fragment: Annotated[
        bool,
        typer.Option("--largest-fragment", help="Drop all but the largest fragment: counter-ions, solvents."),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most this many records.")] = None,
    rows_per_part: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most rows of a part, which is what a killed run loses. [default: by device]"
        ),
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Most tokens in one forward pass; bounds memory. [default: by device]"),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first bad record instead of writing an error row.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a finished output that is there already.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an unfinished run left, instead of going on.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
) -> None:
    """Embedding, HOMO, LUMO and gap of every molecule of a library, one output row for each record.

    A record that cannot be used keeps its row: nulls, and the reason in the column `error`. A run that was
    stopped or killed goes on where it was when the same command is given again.

        stkd-screen embed zinc.smi.gz -o out.parquet
    """
    started = time.perf_counter()
    from stkd_screen.cli.display import EmbedDisplay, Terminal, loading
    from stkd_screen.cli.interrupts import Interrupted, interrupts_ask
    from stkd_screen.domain import LARGER
    from stkd_screen.embed import embed as run_embed
    from stkd_screen.encoder import load
    from stkd_screen.errors import InputError
    from stkd_screen.output import OutputOptions
    from stkd_screen.parts.outputs import output_at
    from stkd_screen.records import RecordReader

    place = output_at(output).path
    console = Terminal(stderr=True)
    with loading(console):
        encoder = load(model, device, batch_tokens=batch_tokens, precision=precision)
        encoder.embed(["C"])
    startup = time.perf_counter() - started
    options = OutputOptions(
        level=level,
        embedding=embedding,
        embedding_dtype=embedding_dtype,
        dims=dims,
        largest_fragment=largest_fragment,
    ).checked(encoder.weights)
    window = min(encoder.window, limit or encoder.window, rows_per_part or encoder.window)
    reader = RecordReader(
        inputs, smiles_column=smiles_column, id_column=id_column, batch_size=window, exclude=place
    )
    stopping = "finishing the part in hand, a few seconds; Ctrl-C again stops at once and loses it"
    with interrupts_ask(stopping) as stop, EmbedDisplay(console, reader, limit) as display:
        summary = run_embed(
            reader,
            encoder,
            output,
            options,
            limit=limit,
            strict=strict,
            rows_per_part=rows_per_part,
            overwrite=overwrite,
            restart=restart,
            should_stop=stop,
            report=display.update,
        )
    if json_output:
        computed = {"device": encoder.device.type, "precision": encoder.precision}
        typer.echo(json.dumps(_as_dict(summary, output, startup) | computed))
    else:
        table = _summary_table(summary, output, startup)
        table.add_row("model", f"{encoder.weights.name}, on {encoder.device.type} in {encoder.precision}")
        for smiles, id in dict.fromkeys(reader.columns.values()):
            table.add_row("columns", f"SMILES {smiles!r}, id {id!r}" if id else f"SMILES {smiles!r}, no id")
        console.print(table)
        assert options.level is not None
        largest = encoder.weights.max_heavy_atoms
        wider = [name for name in encoder.weights.levels if largest[name] > largest[options.level]]
        if summary.warnings[LARGER] > summary.good / 2 and wider:
            console.note(
                f"most molecules are larger than the labelled ones of level {options.level!r}; the model "
                f"also has --level {', '.join(wider)}, with larger ones",
                "yellow",
            )
    if summary.records and not summary.good:
        console.note(
            "no record is a molecule: is the SMILES the first word of each line? Of a table --smiles-column "
            "names the column",
            "yellow",
        )
    if summary.stopped:
        if summary.complete:
            kept = f"the {summary.records:,} rows before it are in {output}"
        elif reader.bytes_total is None and summary.records:
            kept = f"{output} is as it was, and no run can go on: a pipe cannot be read again"
        elif summary.records:
            kept = f"{summary.records:,} rows are safe, the same command goes on after them"
        else:
            kept = "no row is written"
        console.note(f"stopped before the end: {kept}")
        raise Interrupted(stop.signal)
    if summary.input_fault:
        raise InputError(summary.input_fault)


def _as_dict(summary: "Summary", output: str, startup: float) -> dict[str, object]:
    return {
        "output": output,
        "complete": summary.complete,
        "stopped": summary.stopped,
        "records": summary.records,
        "resumed": summary.resumed,
        "good": summary.good,
        "bad": dict(summary.bad),
        "warned": summary.warned,
        "warnings": dict(summary.warnings),
        "startup_seconds": round(startup, 3),
        "seconds": round(summary.seconds, 3),
        "molecules_per_second": round(summary.rate, 1),
        "output_bytes": summary.output_bytes,
        "input_fault": summary.input_fault,
        "disk_faults": summary.disk_faults,
    }


def _summary_table(summary: "Summary", output: str, startup: float) -> "Table":
    from rich.table import Table

    from stkd_screen.cli.display import duration
    from stkd_screen.parts.outputs import output_at

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("records", f"{summary.records:,}")
    table.add_row(
        "good", f"{summary.good:,}" + (f"  ({summary.warned:,} with a warning)" if summary.warned else "")
    )
    for reason, count in summary.warnings.most_common():
        table.add_row("warning", f"{count:,}  {reason}")
    for reason, count in summary.bad.most_common():
        table.add_row("bad", f"{count:,}  {reason}")
    if summary.complete and not summary.records:
        table.add_row("note", "no record in the input")
    elif summary.complete and summary.resumed == summary.records:
        table.add_row("note", "complete already, nothing to do")
    else:
        done_before = f", {summary.resumed:,} records were done before" if summary.resumed else ""
        table.add_row(
            "time",
            f"{duration(summary.seconds)}  ({summary.rate:,.0f} molecules/s{done_before}), "
            f"after {startup:.0f} s to start",
        )
    if summary.complete or summary.output_bytes:
        place = output if summary.complete else f"{output_at(output).work}, unfinished"
        table.add_row("output", f"{place}  ({summary.output_bytes / 1e6:,.1f} MB)")
    return table

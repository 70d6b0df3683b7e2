"""stkd-screen verify: is an output what its manifest says, and does it belong to its input?"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from stkd_screen.verify import Check


def verify(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Parquet file or folder that embed wrote.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUT]...", help="Where its input is now. [default: where it was]"),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the checks as one JSON object.")] = False,
) -> None:
    """Recount an output: parts, rows, order, results, and every record of its input.

    Exits 1 where something does not hold.

        stkd-screen verify out.parquet
    """
    from stkd_screen.cli.display import Terminal
    from stkd_screen.verify import verify as run_verify

    console = Terminal(stderr=True)
    with console.status("hashing the parts") as status:

        def report(what: str, done: int, total: int) -> None:
            status.update(f"{what}: {done:,} of {total:,}")

        checks = run_verify(output, inputs or (), report)
    holds = all(check.holds is not False for check in checks)
    if json_output:
        about = {"output": str(output), "holds": holds, "checks": [asdict(check) for check in checks]}
        typer.echo(json.dumps(about))
    else:
        console.print(_table(checks))
    if not holds:
        raise typer.Exit(1)


def _table(checks: "list[Check]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_column(overflow="fold")
    marks = {True: ("holds", "green"), False: ("fails", "red"), None: ("not checked", "yellow")}
    for check in checks:
        table.add_row(check.name, Text(*marks[check.holds]), check.finding)
    return table

"""stkd-screen prepare: tables and libraries into one file that training maps into memory."""

from pathlib import Path
from typing import Annotated

import typer

from stkd_screen.cli.options import Data, SmilesColumn, SplitBy, SplitColumn, SplitSeed
from stkd_screen.cli.training import Exclude, TargetOption, Unlabelled, UnlabelledMolecules


def prepare(
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write, NAME.prepared.")],
    target: TargetOption = None,
    smiles_column: SmilesColumn = None,
    split_column: SplitColumn = None,
    split_by: SplitBy = None,
    split_seed: SplitSeed = 0,
    unlabelled: Unlabelled = None,
    unlabelled_molecules: UnlabelledMolecules = 100_000,
    exclude: Exclude = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice from --unlabelled.")] = 0,
) -> None:
    """Molecules, graphs, labels and splits in one compact file, for teach, distill, train and evaluate.

    What takes RDKit is done once, on all cores; training then needs neither RDKit nor the tables.

        stkd-screen prepare qm9.csv --unlabelled zinc/ -o qm9.prepared
    """
    from stkd_screen.cli.display import Terminal
    from stkd_screen.cli.training import announce, read_training_set
    from stkd_screen.teach.prepared import save_prepared
    from stkd_screen.teach.unlabelled import excluded_keys

    console = Terminal(stderr=True)
    excluded = excluded_keys(exclude or [])
    labelled = read_training_set(
        console,
        data,
        target,
        smiles_column=smiles_column,
        split_column=split_column,
        split_by=split_by,
        split_seed=split_seed,
        graphs=True,
        exclude=excluded,
    )
    if unlabelled:
        from stkd_screen.teach.labelled import joined
        from stkd_screen.teach.unlabelled import apart_from, read_unlabelled

        library = read_unlabelled(unlabelled, labelled.columns, unlabelled_molecules, seed, excluded)
        library = apart_from(library, labelled)
        console.print("unlabelled: ", end="")
        announce(console, library)
        labelled = joined(labelled, library)
    save_prepared(labelled, output)
    console.print(f"{output}: {len(labelled.molecules):,} molecules, {output.stat().st_size:,} bytes")

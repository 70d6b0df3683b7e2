"""The training loop: drives a trainer to its end, and keeps what it would need to go on."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from stkd_screen.background import in_background
from stkd_screen.errors import TrainingError
from stkd_screen.teach.checkpoint import read_checkpoint, write_checkpoint
from stkd_screen.teach.curves import write_curves
from stkd_screen.teach.trainer import Progress, Trainer

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 120
FEW_TO_CHOOSE_BY = 30  # valid molecules

Report = Callable[[Progress], None]


def is_finished(folder: Path) -> bool:
    """Whether a folder holds the model of a run that came to its end."""
    return (folder / "config.json").is_file() and not (folder / CHECKPOINT).is_file()


def run(trainer: Trainer, folder: Path, report: Report, *, restart: bool = False) -> Path:
    """Train to the end and leave the best model, by valid loss, with its card and curves in `folder`.

    The folder holds checkpoint.pt while training runs; called again with the same arguments, training goes
    on from it and ends with the weights that an unbroken run would have given. Only the length of the run
    (epochs, max_minutes) may differ then. `restart` throws away what the folder holds.

    Raises:
        TrainingError: finished weights or a checkpoint of other data or options in the folder, a folder that
            cannot be written, or a loss that is no longer finite.
    """
    checkpoint = folder / CHECKPOINT
    if restart:
        checkpoint.unlink(missing_ok=True)
    elif is_finished(folder):
        raise TrainingError(f"{folder} holds finished weights; give another -o, or --restart to replace them")
    if checkpoint.is_file():
        trainer.load_state(read_checkpoint(checkpoint, trainer.identity(), trainer.device))
    else:
        # What the run goes on from is a candidate, too: a run that only harms it ends where it began.
        if trainer.start is not None:
            trainer.before, _ = trainer.evaluate()
        else:
            trainer.before = trainer.metrics(trainer.averaged.module.eval(), "valid")
        trainer.record(trainer.before)
        write_checkpoint(checkpoint, trainer.identity(), trainer.state())

    def say(note: str) -> None:
        report(replace(trainer.progress(None), note=note))

    valid_labels = len(trainer.data.labelled("valid"))
    if valid_labels < FEW_TO_CHOOSE_BY:
        say(
            f"note: {valid_labels} valid molecules are few to choose the best weights by; --split-by random "
            "takes a tenth of a table"
        )
    started = time.perf_counter()
    trainer.get_ready(say)
    trainer.seconds_before = time.perf_counter() - started
    started = time.perf_counter() - trainer.seconds
    reported = saved = trainer.seconds
    with closing(in_background(trainer.remaining_batches(), depth=4)) as batches:
        while trainer.step < trainer.total_steps:  # none is left to a run that was killed after its last one
            trainer.train_step(next(batches))
            trainer.seconds = time.perf_counter() - started
            trainer.fix_total_steps()
            valid = better = None
            if trainer.evaluation_is_due():
                valid, better = trainer.evaluate()
                trainer.seconds = time.perf_counter() - started
                trainer.record(valid)
            if valid or trainer.seconds - saved > CHECKPOINT_SECONDS:
                saved = trainer.seconds
                write_checkpoint(checkpoint, trainer.identity(), trainer.state())
            if better:
                with _writing(folder):
                    trainer.save(folder, {"valid": trainer.best_metrics})
            if valid or trainer.seconds - reported > 1.0:
                reported = trainer.seconds
                report(trainer.progress(valid))
    if not trainer.best_model:  # made so short, when it went on, that no evaluation was left
        trainer.evaluate()
    if trainer.start is not None and trainer.best_metrics == trainer.before:
        say(
            "no evaluation on the valid split beat what the run went on from, which is kept as it was; "
            "a lower --learning-rate may help"
        )
    with _writing(folder):
        trainer.finish(folder)
        write_curves(folder, trainer.history)
        checkpoint.unlink()
    return folder


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{folder} cannot be written: {error}; see to its disk and give the command again, which goes on"
        ) from error

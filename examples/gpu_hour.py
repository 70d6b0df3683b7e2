"""Teacher, students and their figures from one prepared file, within a number of minutes.

    stkd-screen prepare qm9.csv pcqm.csv --unlabelled zinc/ -o all.prepared
    python gpu_hour.py all.prepared --minutes 30 -o out

Trains a teacher, distils the students from it and measures all of them on the test split. Made for a rented
GPU: it needs neither RDKit nor the tables, keeps to the time, goes on where it was stopped when it is started
again (a model that is finished is taken as it is), and leaves in the output folder one folder for each model
(weights, card, learning curves) and figures.json. With --teacher and --start it begins with what is trained
already, so that the time goes into one wide student: --teacher slim-teacher --start small --students large.
On a CPU choose small presets: --teacher-preset slim --students small.
"""

import argparse
import json
import time
from pathlib import Path

from stkd_screen.encoder import choose_device
from stkd_screen.student import PRESETS
from stkd_screen.teach.distill import DistillConfig, distill
from stkd_screen.teach.loop import is_finished
from stkd_screen.teach.prepared import load_prepared
from stkd_screen.teach.teach import TeachConfig, teach
from stkd_screen.teach.teacher import load_teacher
from stkd_screen.teach.trainer import Progress
from stkd_screen.weights import load_weights

# How the time is shared; loading and the last evaluations take the rest.
TEACHER_SHARE, STUDENTS_SHARE = 0.45, 0.5
EPOCHS = 10_000  # more than the time allows: the time decides
# What a student learns of its teacher: its predictions alone, as the shipped `small` did, or its states and
# attention as well.
LOSSES = {
    "predictions": {"alpha": 0.0, "beta": 0.0, "initial_stage": 0.0, "soft": 0.3, "unlabelled_share": 0.2},
    "all": {"alpha": 0.2, "beta": 2.0, "initial_stage": 0.0, "soft": 0.3, "unlabelled_share": 0.2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="file made by stkd-screen prepare")
    parser.add_argument("--minutes", type=float, default=30, help="for everything (default %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder (default %(default)s)")
    parser.add_argument("--teacher-preset", default="base", help="default %(default)s")
    parser.add_argument("--teacher", help="name or folder of a trained one, to distil from instead")
    parser.add_argument("--start", help="name or folder of weights that each student goes on from")
    parser.add_argument("--students", nargs="+", default=["large", "small"], help="default large small")
    parser.add_argument("--batch-size", type=int, default=1024, help="molecules a step (default %(default)s)")
    parser.add_argument("--random-orders", type=float, default=0.0, help="share, for --students paper")
    parser.add_argument("--kekule", type=float, default=0.0, help="share, likewise")
    parser.add_argument("--losses", choices=LOSSES, default="predictions", help="default %(default)s")
    parser.add_argument("--device", default="auto", help="default %(default)s")
    arguments = parser.parse_args()

    data = load_prepared(arguments.data)
    device = str(choose_device(arguments.device))
    common = {
        "epochs": EPOCHS,
        "batch_size": arguments.batch_size,
        "device": device,
        "precision": "auto",
    }
    print(f"{len(data.molecules):,} molecules, {device}")

    folder = arguments.output / "teacher"
    students_share = STUDENTS_SHARE
    if arguments.teacher:
        teacher = load_teacher(arguments.teacher)
        students_share += TEACHER_SHARE
    elif is_finished(folder):
        print(f"{folder} is finished")
        teacher = load_teacher(folder)
    else:
        teacher_config = TeachConfig.of(
            arguments.teacher_preset, **common, max_minutes=arguments.minutes * TEACHER_SHARE
        )
        teacher = teach(data, teacher_config, folder, show("teacher"))
    figures = {"teacher": teacher.metrics}
    for preset in arguments.students:
        folder = arguments.output / preset
        if is_finished(folder):
            print(f"{folder} is finished")
            figures[preset] = load_weights(folder).metrics
            continue
        minutes = arguments.minutes * students_share / len(arguments.students)
        config = DistillConfig.of(
            preset,
            **common,
            start=arguments.start,
            grow=preset if arguments.start else None,
            max_minutes=minutes,
            random_orders=0.0 if PRESETS[preset].surroundings else arguments.random_orders,
            kekule=arguments.kekule,
            **LOSSES[arguments.losses],
        )
        figures[preset] = distill(data, teacher, config, folder, show(preset)).metrics
    (arguments.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))


def show(name: str):  # type: ignore[no-untyped-def]
    """A report that prints a line after each evaluation."""
    started = time.perf_counter()

    def report(progress: Progress) -> None:
        if progress.note:
            print(f"{name} {time.perf_counter() - started:.0f} s  {progress.note}", flush=True)
        if progress.valid is None:
            return
        errors = "  ".join(f"{target} {m['mae']:.4f}" for target, m in progress.valid.items() if "mae" in m)
        losses = "  ".join(f"{term} {value:.4f}" for term, value in progress.losses.items())
        print(
            f"{name} {time.perf_counter() - started:.0f} s  step {progress.step}/{progress.total_steps}  "
            f"loss {losses}  valid MAE {errors}  {progress.molecules_per_second:,.0f} molecules/s",
            flush=True,
        )

    return report


if __name__ == "__main__":
    main()

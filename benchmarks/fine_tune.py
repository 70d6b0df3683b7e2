"""Fine-tune a shipped student, and train MLP-ECFP, on the small tables of the paper's tables 2 and 9.

    python benchmarks/fine_tune.py qm7.csv.gz qm8.csv.gz freesolv.csv.gz hiv.csv.gz -o out/fine-tuned

Each run is one command, which is printed, and one folder, TABLE/MODEL-SEED. Runs that are finished are passed
over and interrupted ones go on, so the same command may be given again.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from stkd_screen.teach.loop import is_finished

SCRIPTS = Path(__file__).parent
STUDENT = "small"
MODELS = (STUDENT, "mlp-ecfp")
# Of both models: the recipe of `small`, for so few epochs. No test molecule of a split by hash took part in
# training the student; HIV, whose molecules are unlike those it has labels for, is usually split by scaffold.
OPTIONS = {"--epochs": "12", "--batch-size": "128", "--learning-rate": "1.5e-3", "--split-by": "hash"}
OPTIONS_OF = {
    "qm7": {"--epochs": "30", "--batch-size": "64", "--learning-rate": "1e-3"},
    "freesolv": {"--epochs": "60", "--batch-size": "32", "--learning-rate": "1e-3", "--dropout": "0.1"},
    "hiv": {"--epochs": "2", "--split-by": "scaffold"},
}


def table_name(table: str) -> str:
    """qm7 of ~/data/qm7.csv.gz."""
    return Path(table).name.partition(".")[0]


def command(table: str, model: str, seed: int, folder: Path) -> list[str]:
    """One run, as it would be typed."""
    options = OPTIONS | OPTIONS_OF.get(table_name(table), {})
    given = [word for option in (options | {"--seed": str(seed)}).items() for word in option]
    start = [sys.executable, str(SCRIPTS / "train_baseline.py"), model, table]
    if model == STUDENT:
        # Without its fingerprint head, which these targets have no use for.
        start = [sys.executable, "-m", "stkd_screen", "train", table, "--from", STUDENT, "--fingerprint", "0"]
    return [*start, *given, "-o", str(folder)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each model on each table")
    options = parser.parse_args()
    for table in options.tables:
        for seed in range(options.seeds):
            for model in options.models:
                folder = options.output / table_name(table) / f"{model}-{seed}"
                if not is_finished(folder):
                    words = command(table, model, seed, folder)
                    print(shlex.join(words), flush=True)
                    if failed := subprocess.run(words).returncode:
                        sys.exit(failed)


if __name__ == "__main__":
    main()

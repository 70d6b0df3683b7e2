"""Run a command over and over, kill it at random moments, and let the last run come to its end.

    python tests/killing.py KILLS SECONDS SEED -- embed in.smi -o out.parquet ...

Each run is a process of its own, killed by SIGKILL after up to SECONDS; a run that is done before that is
no kill, and the output starts anew with the next. Prints what happened as one JSON object. Processes are
forked from this one, which has loaded the libraries and computed nothing: a kill hits the work, not the
loading.
"""

import json
import os
import random
import shutil
import signal
import sys
import time

import stkd_screen.embed  # noqa: F401  torch, numba and pyarrow
from stkd_screen.cli import main
from stkd_screen.parts.outputs import output_at


def start(command: list[str]) -> int:
    process = os.fork()
    if process:
        return process
    sys.argv = ["stkd-screen", *command]
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        main()
    except SystemExit as ended:
        os._exit(int(ended.code or 0))
    finally:
        os._exit(99)


def ended(process: int, seconds: float) -> int | None:
    """The exit status of a process that ends by itself within so many seconds, else None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def rows_safe(output: str) -> int:
    place = output_at(output)
    manifest = place.unfinished()
    return manifest.rows if manifest else 0


def kill_runs(kills: int, seconds: float, seed: int, command: list[str]) -> dict[str, int]:
    generator = random.Random(seed)
    output = command[command.index("-o") + 1]
    counts = {"kills": 0, "kept_rows": 0, "lost_all": 0, "finished": 0}
    while counts["kills"] < kills:
        process = start(command)
        status = ended(process, generator.uniform(0, seconds))
        if status is None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            counts["kills"] += 1
            counts["kept_rows" if rows_safe(output) else "lost_all"] += 1
        elif status:
            raise SystemExit(f"a run ended with {status}")
        else:
            counts["finished"] += 1
            if counts["kills"] < kills:
                path = output_at(output).path
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    if status := ended(start(command), 3600):
        raise SystemExit(f"the last run ended with {status}")
    return counts


if __name__ == "__main__":
    kills, seconds, seed = sys.argv[1:4]
    print(json.dumps(kill_runs(int(kills), float(seconds), int(seed), sys.argv[5:])))

"""A measurement, and how it is read back to compare another with it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stkd_screen.errors import InputError

BENCHMARK = "speed"


@dataclass(frozen=True)
class Stage:
    """One stage for all molecules, measured alone."""

    seconds: float
    molecules_per_second: float
    share: float  # of the sum of all stages


@dataclass(frozen=True)
class Speed:
    """A measurement, as the command prints it. What was measured several times is the median."""

    machine: dict[str, str | int | float | None]
    versions: dict[str, str]
    model: str
    model_sha256: str
    device: str  # cpu or cuda
    dtype: str  # of the linear algebra
    library: dict[str, str | None]  # path -> SHA-256 of a sample of each file
    library_molecules: int  # records in it, but no more than were looked at
    molecules: int  # measured; a library that has fewer is taken again and again
    unreadable: int  # of them
    repeats: int
    batch_tokens: int  # most
    tokens_per_molecule: float
    batches: dict[str, float]  # how many; molecules and tokens of the mean one
    padding: float  # share of the tokens laid out that are of no molecule
    startup_seconds: dict[str, float]
    stages: dict[str, Stage]
    one_after_another: float  # molecules a second by the sum of the stages
    end_to_end: float  # molecules a second of `embed`
    end_to_end_runs: list[float]
    flops_per_molecule: float  # of the forward pass
    forward_flops_per_second: float
    matmul_flops_per_second: float
    matmul_share: float  # the former by the latter
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None
    seconds_for: dict[str, float]  # number of molecules -> seconds, by the rate end to end
    benchmark: str = BENCHMARK


def read_result(path: Path) -> dict[str, Any]:
    """The last line of a file that holds a measurement, as `stkd-screen bench` prints it.

    Raises:
        InputError: there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}; give a file that holds what bench printed"
        ) from error
    for line in reversed(lines):
        try:
            result = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(result, dict) and result.get("benchmark") == BENCHMARK:
            return result
    raise InputError(f"{path}: no line of it is a result of bench; make one by: stkd-screen bench > {path}")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What two results were not measured alike in, as `what old -> new`."""
    before, now = _conditions(old), _conditions(new)
    return [f"{name} {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]


def _conditions(result: dict[str, Any]) -> dict[str, Any]:
    files = {Path(path).name: (sha256 or "")[:12] for path, sha256 in result["library"].items()}
    return {
        "model": f"{result['model']} ({result['model_sha256'][:12]})",
        "library": ", ".join(f"{name} ({sha256})" for name, sha256 in files.items()),
        **{name: result[name] for name in ("molecules", "device", "dtype", "repeats")},
        "tokens a batch": result["batch_tokens"],
        **result["machine"],
        **result["versions"],
    }

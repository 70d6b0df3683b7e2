"""manifest.json of an index: what it holds, how it was built, how well it finds, and its files."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from stkd_screen import __version__
from stkd_screen.errors import SearchError
from stkd_screen.files import file_sha256, write_json
from stkd_screen.search.home import MANIFEST
from stkd_screen.search.library import Origin

FORMAT = 1
HASHED_BYTES = 1 << 30  # larger files are checked by their size alone: hashing them would take too long


@dataclass(frozen=True)
class Effort:
    """How far an approximate search looks, for 10 neighbours; more finds more and takes longer."""

    probes: int  # inverted lists visited
    candidates: int  # of the compressed vectors' best, re-scored with the vectors themselves


@dataclass(frozen=True)
class Manifest:
    origin: Origin
    kind: str  # exact, ivf or ivf-pq
    effort: Effort | None  # None where every search is exact
    recall: float  # share of the true 10 nearest that is found, mean over a sample of the index's own rows
    rows: int
    left_out: int  # rows of the library that have no vector
    sources: list[str]  # files of the library
    built: str  # date and time, ISO 8601
    files: dict[str, dict[str, Any]]  # name -> bytes, sha256
    program: str = __version__
    format: int = FORMAT

    @property
    def bytes(self) -> int:
        return sum(file["bytes"] for file in self.files.values())


def save_manifest(manifest: Manifest, folder: Path) -> None:
    write_json(folder / MANIFEST, asdict(manifest))


def load_manifest(folder: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        SearchError: it cannot be read, or another version of the format wrote it.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise SearchError(
                f"{path}: format {content['format']}, this program reads {FORMAT}; build the index anew"
            )
        content["origin"] = Origin(**content["origin"])
        content["effort"] = Effort(**content["effort"]) if content["effort"] else None
        return Manifest(**{field.name: content[field.name] for field in fields(Manifest)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{path} cannot be read ({error!r}); build the index anew") from error


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file of a folder."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.iterdir())
    }


def check_files(manifest: Manifest, folder: Path) -> None:
    """Compare the files of an index with its manifest: reading a damaged map would end the program.

    Raises:
        SearchError: a file is missing, cut short or altered, or lies elsewhere.
    """
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise SearchError(
                f"{folder / MANIFEST} names {name!r}, which is no file of an index; build it anew"
            )
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            fault = "is missing"
        elif size != expected["bytes"]:
            fault = f"has {size:,} bytes, its manifest says {expected['bytes']:,}"
        elif size <= HASHED_BYTES and file_sha256(path) != expected["sha256"]:
            fault = "was altered: its SHA-256 is not that of the manifest"
        else:
            continue
        sources = " ".join(manifest.sources)
        raise SearchError(
            f"{path} {fault}; build the index anew: stkd-screen index {sources} --name {folder} --overwrite"
        )

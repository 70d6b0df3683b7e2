"""How functions are compiled, where numba offers what is used beyond its public interface and where not."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numba
import pytest

from stkd_screen import jit
from stkd_screen.smiles import rows


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Callable]:
    """Import a module with one compiled function, as a new process would."""
    path = tmp_path / "fresh_module.py"
    path.write_text("from stkd_screen.jit import compiled\n\n@compiled\ndef twice(a):\n    return 2 * a\n")

    def load() -> Callable:
        specification = importlib.util.spec_from_file_location("fresh_module", path)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return module.twice

    return load


def test_a_change_in_any_file_compiles_anew(fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    def cache_hits() -> int:
        twice = fresh()
        assert twice(2) == 4
        return sum(twice.stats.cache_hits.values())

    assert [cache_hits(), cache_hits()] == [0, 1]
    monkeypatch.setattr(jit, "stamp", lambda folder: "another")
    assert [cache_hits(), cache_hits()] == [0, 1]


def test_the_parser_carries_the_stamp() -> None:
    cache = rows._read_rows._cache
    assert not hasattr(cache, "_cache_file") or cache._cache_file._source_stamp == jit.stamp(
        Path(rows.__file__).parent
    )


def test_without_the_private_option(fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_LEAN", {})
    assert fresh()(2) == 4


def test_without_a_cache(fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """numba then hands back the function itself."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    assert fresh()(2) == 4


def test_without_a_folder_for_the_cache() -> None:
    namespace: dict = {}
    exec("def twice(a): return 2 * a", namespace)  # of no file: numba finds no place beside it
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(namespace["twice"], cache=True)
    assert jit.compiled(namespace["twice"])(2) == 4

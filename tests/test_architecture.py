"""The shape of the code: imports point down only, and heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "stkd_screen"

# Each layer may import from those below it, not from those above.
LAYERS = [
    ["cli"],
    ["speed"],
    ["embed", "verify", "teach", "search"],
    ["windows"],
    ["encoder", "parts"],
    ["output", "forward"],
    ["domain", "weights", "batching", "cpu"],
    ["student", "records", "expected_errors", "chem"],
    ["smiles", "background", "files", "targets", "precision"],
    ["errors", "jit"],
]
LEVEL = {name: i for i, names in enumerate(LAYERS) for name in names}

ALLOWED = {
    "typer": {"cli"},
    "rich": {"cli"},
    "numba": {"jit", "cpu"},
    "llvmlite": {"cpu"},
    "faiss": {"search"},
    "rdkit": {"search", "teach", "chem"},
    "torch": {
        "student",
        "cpu",
        "encoder",
        "forward",
        "weights",
        "expected_errors",
        "output",
        "precision",
        "teach",
        "speed",
    },  # fmt: skip,
    "matplotlib": {"teach"},
    "safetensors": {"weights", "expected_errors", "teach"},
}


def imports():
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                yield path, module[0], name


def test_imports_point_down():
    for path, part, name in imports():
        if not name.startswith("stkd_screen.") or part in ("__init__", "__main__"):
            continue
        other = name.split(".")[1]
        assert part == other or LEVEL[part] < LEVEL[other], f"{path}: {part} imports {other}"


def test_heavy_libraries_stay_in_their_place():
    for path, part, name in imports():
        library = name.split(".")[0]
        if library in ALLOWED:
            assert part in ALLOWED[library], f"{path} imports {library}"


def test_help_loads_no_heavy_library():
    code = (
        "import sys; from stkd_screen.cli import app; from typer.testing import CliRunner; "
        "result = CliRunner().invoke(app, ['--help']); assert result.exit_code == 0, result.output; "
        "heavy = {'torch', 'numba', 'polars', 'pyarrow', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_stay_readable():
    for path in PACKAGE.rglob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 400, f"{path}: {lines} lines"


def test_embedding_on_a_cpu_loads_no_compiler():
    """PyTorch's takes a second, which a model on the device `meta` loads by giving it values."""
    code = (
        "import sys; import stkd_screen; stkd_screen.load('small', 'cpu').embed(['CCO']); "
        "print('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"

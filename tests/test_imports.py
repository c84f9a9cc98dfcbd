"""The arrows between rooms only point down, and nothing we run needs TensorFlow."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LEAVES = {"errors", "assets", "locks", "system", "terminal"}  # whoever wants them may read them

# What each room may import besides its own files and the leaves.
MAY = {
    "ops": set(),
    "models": {"ops"},
    "losses": set(),
    "parallel": {"ops"},
    "contrast": {"parallel"},
    "phantom": {"ops"},
    "faces": {"models", "ops", "cache"},
    "metrics": {"models", "ops", "weights", "faces", "parallel", "cache"},
    "data": {"phantom", "faces", "ops", "metrics"},  # metrics never imports data
    "uv": {"metrics", "faces", "data", "ops"},
    "patients": {"metrics", "faces", "data", "models", "ops"},
    "backbones": {"models", "weights", "parallel"},
    "headshots": {"metrics", "faces", "data", "models", "ops", "backbones"},
    "updates": {"ops"},
    "schedules": set(),
    "systems": {
        *("losses", "schedules", "updates", "metrics", "faces", "data", "models", "ops"),
        *("parallel", "contrast", "tours", "uv", "patients", "headshots", "backbones"),
    },
    "reports": set(),
    "lineage": {"data"},
    "checkpoint": {"lineage", "parallel"},
    "preemption": set(),
    "workdir": {"lineage", "reports"},
    "cache": set(),
    "tours": set(),
    "weights": {"models", "cache"},
    "start": {"checkpoint", "lineage", "weights", "models", "workdir"},
    "export": {"weights"},
    "train": {"export", "parallel", "checkpoint", "lineage", "preemption", "reports", "workdir"},
    "withdraw": {"checkpoint", "lineage", "data", "reports", "weights"},
}
FILES = sorted((ROOT / "jaxface").rglob("*.py"))


def imported(file: pathlib.Path) -> set[str]:
    """Rooms of jaxface that a file imports, at the top or anywhere inside."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("jaxface.")}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_arrows_point_down(file):
    room = file.relative_to(ROOT / "jaxface").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    allowed = MAY.get(room, set()) | LEAVES | {room}
    assert imported(file) <= allowed, f"{file.name} reaches up or sideways"


def test_systems_do_not_import_each_other():
    systems = {file.stem for file in (ROOT / "jaxface/systems").glob("*.py")} - {"__init__"}
    for name in systems:
        text = (ROOT / f"jaxface/systems/{name}.py").read_text()
        assert not [o for o in systems - {name} if f"jaxface.systems.{o}" in text]


def test_experiments_are_data():
    for file in (ROOT / "experiments").glob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        assert not [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.For)]


def test_only_parallel_counts_devices_while_stepping():
    for room in ("systems", "models", "ops", "metrics", "data"):
        for file in (ROOT / "jaxface" / room).rglob("*.py"):
            assert "device_count" not in file.read_text(), file


def test_no_tensorflow():
    code = (
        "import sys, experiments.cleftgan, experiments.faces_base, jaxface.train, jaxface.start;"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'tensorflow']"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# What executes or may execute what it reads. `x.eval(` and `re_eval(` are other functions.
UNSAFE = re.compile(
    r"pickle\.loads?\b|\bUnpickler\b|torch\.load\b|allow_pickle\s*=\s*True|yaml\.(unsafe_)?load\b"
    r"|(?<![\w.])(eval|exec|compile|__import__)\s*\(|\bos\.system\b|shell\s*=\s*True|joblib\.load\b"
    r"|\b(marshal|shelve|dill|cloudpickle)\b|extractall\s*\("
)


def unsafe(text: str) -> list[str]:
    """Lines of a source that name a loader or call that can run what it reads; comments aside."""
    return [line for line in text.splitlines() if UNSAFE.search(line.split("#")[0])]


def test_nothing_is_unpickled_or_executed():
    for file in FILES + [ROOT / "launch.py", *sorted((ROOT / "experiments").glob("*.py"))]:
        assert not unsafe(file.read_text()), file


@pytest.mark.parametrize(
    "line",
    [
        "x = pickle.load(f)",
        "x = pickle.loads(f)",
        "class U(pickle.Unpickler):",
        "torch.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f)",
        "eval(text)",
        "y = (exec (text))",
        "os.system(text)",
        "archive.extractall(folder)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_scan_finds(line):
    assert unsafe(line) and not unsafe("# " + line)
    assert not unsafe(
        "model.eval()\nmy_exec(2)\nnp.load(f, allow_pickle=False)\njax.jit(f).compile()"
    )

"""The house: no module lies loose, and imports point downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fljax
import fljax_kernels

PACKAGE = Path(fljax.__file__).parent

# Each room, from the top of the house to its ground, and the rooms that it may import from. What
# stands in its line is what it needs today; a room may only ever name rooms below its own line.
ROOMS = {
    "commands": {
        "benchmarks", "reports", "export", "studies", "config", "training", "algorithms",
        "systems", "models", "data", "recording", "core",
    },
    "benchmarks": {
        "benchmarks.gpu", "studies", "config", "training", "engine", "algorithms", "compression",
        "models", "tasks", "data", "recording", "core", "privacy.secagg", "robustness",
    },
    "reports": {"studies", "config", "training", "data", "recording", "core"},
    "export": {
        "config", "training", "engine", "compression", "systems", "data", "recording", "core",
    },
    "studies": {
        "config", "training", "engine", "compression", "privacy", "robustness", "systems", "audits",
        "data", "recording", "core",
    },
    "config": {
        "training", "engine", "algorithms", "compression", "privacy", "robustness", "selection",
        "systems", "models", "tasks", "data", "recording", "core",
    },
    "training": {
        "engine", "algorithms", "compression", "privacy", "robustness", "selection", "systems",
        "analytics", "models", "tasks", "data", "recording", "core",
    },
    "engine.program": {"engine.plan", "engine.devices", "core"},
    "engine.store": {"engine.plan", "engine.devices", "core"},
    "engine.plan": {"engine.devices", "data", "core"},
    "engine.devices": {"core"},
    "engine": set(),
    "algorithms": {"core"},
    "compression": {"core"},
    "privacy": {"privacy.accounting", "privacy.secagg", "core"},
    "privacy.accounting": {"core"},
    "privacy.secagg": {"core"},
    "robustness": {"core"},
    "selection": {"core"},
    "systems": {"core"},
    "audits": {"core"},
    "analytics": {"core"},
    "models": {"core"},
    "tasks": {"core"},
    "data": {"core"},
    "recording": {"core"},
    "core": set(),
}  # fmt: skip
ORDER = list(ROOMS)


def modules() -> dict[str, Path]:
    """Returns {name below fljax: path} of all modules; a package is named like its room."""
    found = {}
    for path in set(PACKAGE.rglob("*.py")) - {PACKAGE / "__main__.py"}:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts).removesuffix("__init__").rstrip(".")] = path
    return found


MODULES = modules()


def room_of(module: str) -> str:
    """Returns the room of a module; of rooms whose folders are one, the room."""
    if MODULES[module].name != "__init__.py":
        module = module.rpartition(".")[0]
    one_room = ("audits", "benchmarks", "data", "export", "robustness", "studies")
    return next((whole for whole in one_room if module.startswith(whole)), module)


def imported(path: Path) -> set[str]:
    """Returns the modules of fljax that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.removeprefix("fljax.") for name in names if name.startswith("fljax.")}
    return found & set(MODULES)


def test_nothing_lies_loose():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert {room_of(name) for name in MODULES if name} == set(ROOMS)


def test_the_table_itself_points_downwards():
    for number, (room, below) in enumerate(ROOMS.items()):
        floors = {room_below.split(".gpu")[0] for room_below in below} - {room}
        assert all(floor in ORDER[number + 1 :] for floor in floors), room


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_downwards(room):
    for name, path in MODULES.items():
        if not name or room_of(name) != room:
            continue
        for other in imported(path):
            below = room_of(other)
            allowed = {room, *ROOMS[room]}
            allowed |= {inner for inner in ROOMS if inner.split(".")[0] in ROOMS[room]}
            assert below in allowed, f"{name} imports {other}: {room} may not know {below}"


def test_kernels_know_nothing_of_the_house():
    for path in Path(fljax_kernels.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            packages = {name.partition(".")[0] for name in names}
            allowed = {"fljax_kernels", "jax", "numpy", *sys.stdlib_module_names}
            assert packages <= allowed, f"{path.name} imports {packages - allowed}"


def test_a_checkout_is_imported_from_its_parent_folder(tmp_path):
    """A script beside a clone that is named fljax gets the package, not the folder."""
    (tmp_path / "fljax").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "import fljax; print(fljax.__version__)"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.strip() == fljax.__version__, done.stderr


def test_the_list_of_quick_tests_names_files_that_exist():
    lines = (PACKAGE.parent / "tests" / "quick.txt").read_text().split()
    assert len(set(lines)) == len(lines)
    assert all((PACKAGE.parent / line).is_file() for line in lines)

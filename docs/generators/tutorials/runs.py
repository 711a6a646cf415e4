"""Runs the cells of a tutorial, in a process of its own, and keeps what they print and draw.

Results lie in `.cache/tutorials/`, with hashes of the page's code, of the versions of other
packages, and of those files of fljax that the run has imported: a page runs again once one of these
changes.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from generators.tutorials.pages import Cell, cells

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache" / "tutorials"
LIMIT_SECONDS = 1800
# Numbers depend on the platform beyond rounding, and a little on the number of devices.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "MPLBACKEND": "agg"}
_RESULT = "result.json"
# To be raised where runs would leave something else than before.
_VERSION = b"1"


class Picture(NamedTuple):
    """A picture that a cell drew: its title, and its PNG file."""

    title: str
    path: Path


class Output(NamedTuple):
    """The outcome of a cell: what it printed, and its pictures."""

    text: str
    pictures: list[Picture]


class Result(NamedTuple):
    """A run of a page: an output for each cell, and the seconds of CPU and of the clock."""

    outputs: list[Output]
    cpu_seconds: float
    seconds: float


def run(page: Path, cache: Path = CACHE) -> Result:
    """Runs a page, unless it was run as it is.

    Args:
      page: The tutorial.
      cache: Folder of the results of all pages.

    Raises:
      RuntimeError: If a cell fails; with its traceback, whose lines are those of the page.
    """
    folder = cache / page.stem
    if not _holds(folder, page):
        _start(page, folder)
    return _read(folder)


def _holds(folder: Path, page: Path) -> bool:
    """Returns whether a folder has the results of the page as it is, of sources as they are."""
    if not (folder / _RESULT).exists():
        return False
    saved = json.loads((folder / _RESULT).read_text())
    return saved["code"] == _hash_of_code(page.read_text()) and all(
        (ROOT / path).exists() and _hash(ROOT / path) == hashed
        for path, hashed in saved["sources"].items()
    )


def _start(page: Path, folder: Path) -> None:
    """Runs a page in a new process, in an empty directory; moves what it left to the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folders = (ROOT, ROOT / "kernels", ROOT / "docs", os.environ.get("PYTHONPATH", ""))
    environment = (
        os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(map(str, filter(None, folders)))}
    )
    with tempfile.TemporaryDirectory(dir=folder.parent) as parent:
        made, work = Path(parent) / "made", Path(parent) / "work"
        made.mkdir()
        work.mkdir()
        ended = subprocess.run(
            [sys.executable, "-m", __name__, str(page), str(made)],
            cwd=work,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LIMIT_SECONDS,
        )
        if ended.returncode:
            raise RuntimeError(f"{page} does not run:\n{ended.stderr}")
        sys.stderr.write(ended.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def _read(folder: Path) -> Result:
    saved = json.loads((folder / _RESULT).read_text())
    outputs = [
        Output(text, [Picture(title, folder / name) for title, name in pictures])
        for text, pictures in saved["outputs"]
    ]
    return Result(outputs, saved["cpu_seconds"], saved["seconds"])


def _hash_of_code(text: str) -> str:
    """Returns a hash of a page's code and of what it is built on, but for the files of fljax."""
    found = hashlib.sha256(_VERSION)
    for cell in cells(text):
        found.update(cell.code.encode())
    for package in ("jax", "jaxlib", "numpy", "matplotlib", "optax", "flax"):
        found.update(importlib.metadata.version(package).encode())
    return found.hexdigest()


def _sources() -> dict[str, str]:
    """Returns {file below the checkout: its hash} of fljax's modules in this process."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    paths = (Path(file) for file in files if file)
    ours = (ROOT / "fljax", ROOT / "kernels")
    return {
        str(path.relative_to(ROOT)): _hash(path)
        for path in paths
        if any(path.is_relative_to(folder) for folder in ours)
    }


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run_here(page: Path, folder: Path) -> None:
    """Runs the cells of a page in this process, one after another in one namespace."""
    import time

    import matplotlib.pyplot as plt

    plt.rcParams |= {"figure.dpi": 110, "savefig.bbox": "tight", "axes.grid": True}
    plt.rcParams |= {"grid.alpha": 0.3, "axes.axisbelow": True}
    plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}
    started, namespace, outputs = time.perf_counter(), {"__name__": "__main__"}, []
    text = page.read_text()  # once: it may be edited while it runs
    for cell in cells(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            shown = _execute(cell, page, namespace)
        pictures = []
        for figure in [*shown, *map(plt.figure, plt.get_fignums())]:
            name = f"{page.stem}-{sum(len(drawn) for _, drawn in outputs) + len(pictures) + 1}.png"
            figure.savefig(folder / name)
            pictures.append((_title(figure), name))
        plt.close("all")
        outputs.append((printed.getvalue(), pictures))
    seconds = {"cpu_seconds": time.process_time(), "seconds": time.perf_counter() - started}
    of_what = {"code": _hash_of_code(text), "sources": _sources()}
    (folder / _RESULT).write_text(json.dumps({"outputs": outputs} | seconds | of_what))


def _execute(cell: Cell, page: Path, namespace: dict) -> list:
    """Executes a cell; shows the value of an expression in its last line, as notebooks do.

    Returns:
      That value, where it is a figure that pyplot does not know of.
    """
    from matplotlib.figure import Figure

    tree = ast.parse("\n" * cell.line + cell.code, str(page))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(page), "exec", dont_inherit=True), namespace)
    if last is None:
        return []
    code = compile(ast.Expression(last.value), str(page), "eval", dont_inherit=True)
    value = eval(code, namespace)
    if isinstance(value, Figure):
        return [value]
    if value is not None:
        print(repr(value))
    return []


def _title(figure) -> str:
    """Returns the titles of a figure, which say what it shows where it cannot be seen."""
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    return "; ".join(filter(None, titles)) or "Figure"


if __name__ == "__main__":
    _run_here(Path(sys.argv[1]), Path(sys.argv[2]))

"""Measures the first steps with a library: what stands between nothing and results of one's own.

    python scripts/first_steps/measure.py --folder=runs/steps --library=fljax
    python scripts/first_steps/measure.py --folder=runs/steps --library=flower

Makes an environment of its own, installs the library into it, and runs three programs there: on
handwritten digits, on a CSV file whose first column says whose a row is, and by an algorithm of
one's own. All libraries train the same model: 100 clients, ten a round for 50 rounds, two local
epochs, batches of ten. Then, where the library can, `cluster.sh` joins two processes on this
machine, on rows of the CSV file. Printed are seconds, and lines of code without blank ones and
docstrings, all formatted alike. An environment that is there is used as it is, and its installation
is not timed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent
TASKS = ("first", "own_data", "own_algorithm")
# the calls of pip that bring a library; where it pins nothing, what it was published beside
LIBRARIES = {
    "fljax": [[str(HERE.parents[1])]],
    "flower": [["torch==2.13.0", "flwr[simulation]==1.42.0", "scikit-learn"]],
    "pfl": [["torch==2.13.0", "pfl[pytorch]==0.6.0", "scikit-learn"]],
    "fedjax": [
        [
            "fedjax==0.0.17", "jax==0.4.30", "jaxlib==0.4.30", "dm-haiku==0.0.12", "optax==0.2.3",
            "numpy<2", "scipy<1.13", "scikit-learn",
        ]
    ],
    # the jaxlib that it pins, 0.4.14, is gone from the index: what it needs comes by itself
    "tff": [
        [
            "absl-py<2", "attrs~=23.1", "cachetools~=5.3", "dm-tree==0.1.8", "dp-accounting==0.4.3",
            "google-vizier==0.1.11", "googleapis-common-protos==1.61.0", "grpcio~=1.46",
            "jax==0.4.18", "jaxlib==0.4.18", "ml-dtypes==0.2.*", "numpy~=1.25", "portpicker~=1.6",
            "scikit-learn<1.5", "scipy~=1.9.3", "tensorflow==2.14.*", "tensorflow-privacy==0.9.0",
            "tensorflow-model-optimization==0.7.5", "tqdm", "typing-extensions==4.5.*",
        ],
        ["--no-deps", "tensorflow-federated==0.87.0"],
    ],
}  # fmt: skip


def main() -> None:
    """Prints a line of a table for each step."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="of environments and data")
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    given = parser.parse_args()
    folder, library = given.folder.resolve(), given.library
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder)
    print(f"| {library} | seconds | lines | says |\n|---|---:|---:|---|")
    environment = folder / f"venv_{library}"
    if not environment.exists():
        show("installed", timed(install, environment, LIBRARIES[library]), "")
    for task in TASKS:
        path = HERE / library / f"{task}.py"
        command = [str(environment / "bin/python"), str(path)]
        show(task, timed(run, command, folder), lines_of(path))
    script = HERE / library / "cluster.sh"
    if script.exists():
        command = ["bash", str(script), str(environment / "bin"), str(HERE / library)]
        lines = sum(map(lines_of, (HERE / library).glob("cluster.*")))
        show("cluster", timed(run, command, folder), lines)


def show(step: str, found: tuple[float, str], lines: int | str) -> None:
    """Prints a line of the table."""
    seconds, said = found
    print(f"| {step} | {seconds:.1f} | {lines} | {said} |", flush=True)


def timed(call, *args) -> tuple[float, str]:
    """Returns the seconds that a call takes, and what it returns."""
    start = time.perf_counter()
    found = call(*args)
    return time.perf_counter() - start, found


def install(environment: Path, calls: list[list[str]]) -> str:
    """Makes an environment, installs into it, and returns its size."""
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    for requirements in calls:
        pip = [environment / "bin/python", "-m", "pip", "install", "-qq", *requirements]
        subprocess.run(pip, check=True)
    size = sum(file.lstat().st_size for file in environment.rglob("*") if file.is_file())
    return f"{size / 1e9:.2f} GB"


def run(command: list[str], folder: Path) -> str:
    """Runs a program among the data, and returns what it says of the accuracy."""
    log = folder / "said.txt"
    # what a library leaves running (TFF its worker) would keep a pipe open
    with open(log, "wb") as file:
        started = subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        code = started.wait(900)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    said = re.findall(r"(?:test )?accuracy \d[.\d]+", log.read_text(errors="replace"))
    return said[-1] if said and code == 0 else f"failed with {code}: see {log}"


def lines_of(path: Path) -> int:
    """Returns the lines of code of a program, blank ones, comments and docstrings left out."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.unparse(_without_docstrings(ast.parse(text)))
        formatter = [sys.executable, "-m", "ruff", "format", "--line-length=100", "-"]
        text = subprocess.run(
            formatter, input=text, capture_output=True, text=True, check=True
        ).stdout
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") for line in text.split("\n")
    )


def _without_docstrings(tree: ast.Module) -> ast.Module:
    holders = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(tree):
        if isinstance(node, holders) and ast.get_docstring(node):
            node.body = node.body[1:]
    return tree


def write_rows(folder: Path) -> None:
    """Writes the digits as rows of 100 clients of unlike size, and rows to test on."""
    x, y = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x / 16, y, test_size=0.2, random_state=0)
    rng = np.random.default_rng(0)
    others = rng.choice(100, len(train_y) - 100, p=rng.dirichlet(np.full(100, 2.0)))
    owners = np.concatenate([np.arange(100), others])
    tested = np.full(len(test_y), 100)
    for name, parts in (("rows", (owners, train_x, train_y)), ("test", (tested, test_x, test_y))):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["client", *(f"x{place}" for place in range(64)), "label"])
            table.writerows(
                [client, *row, label] for client, row, label in zip(*parts, strict=True)
            )


if __name__ == "__main__":
    main()

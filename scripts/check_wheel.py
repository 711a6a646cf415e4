"""Checks a wheel: what is in it, then an installation of it alone, used from an empty folder.

    make check-wheel
    python scripts/check_wheel.py --wheel=dist/fljax-0.1.0-py3-none-any.whl --contents

Needs nothing but Python. With `--contents` nothing is installed; otherwise an environment of its
own is made in a temporary folder, where commands run without this checkout and without its data.
Prints what each took and said. Exit status 1 if a file is missing or too many, or a command fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# folder of the checkout -> folder of the wheel
FOLDERS = {"fljax": "fljax", "kernels/fljax_kernels": "fljax_kernels", "configs": "fljax/configs"}
METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
STUDY = (
    "study selection --workdir=runs/study --seeds=2 --variant=uniform --variant=fedcs "
    "--config.num_rounds=40"
)
# what somebody does who has nothing but the package
COMMANDS = (
    "--version",
    "doctor",
    "run quickstart --workdir=runs/first",
    "run quickstart --workdir=runs/second --config.algorithm=fedprox --config.mu=0.1",
    STUDY,
    "report runs/first runs/second --out=runs/two.html",
    "report runs/study",
)
LINES = 12


def main() -> int:
    """Checks the wheel that the arguments name, and returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="Default: the one in dist/.")
    parser.add_argument("--contents", action="store_true", help="Install nothing.")
    parser.add_argument("--python", default=sys.executable, help="Of the environment.")
    given = parser.parse_args()
    wheels = [given.wheel] if given.wheel else sorted((ROOT / "dist").glob("*.whl"))
    if len(wheels) != 1:
        print(f"There are {len(wheels)} wheels in dist/: run make dist, or name one by --wheel.")
        return 1
    [wheel] = wheels
    problems = differences(wheel)
    size = wheel.stat().st_size / 1e6
    print("\n".join(problems) or f"{wheel.name}: {size:.1f} MB, nothing missing, nothing more")
    if problems or given.contents:
        return int(bool(problems))
    with tempfile.TemporaryDirectory(prefix="fljax-wheel-") as folder:
        return 0 if used(wheel.resolve(), given.python, Path(folder)) else 1


def differences(wheel: Path) -> list[str]:
    """Returns in what a wheel and the files of the checkout differ, a line a file."""
    expected = {
        f"{inside}/{path.relative_to(ROOT / outside).as_posix()}"
        for outside, inside in FOLDERS.items()
        for path in (ROOT / outside).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    name, version, *_ = wheel.name.split("-")
    expected |= {f"{name}-{version}.dist-info/{file}" for file in METADATA}
    found = set(zipfile.ZipFile(wheel).namelist())
    return [f"missing: {name}" for name in sorted(expected - found)] + [
        f"too many: {name}" for name in sorted(found - expected)
    ]


def used(wheel: Path, python: str, folder: Path) -> bool:
    """Installs a wheel and runs the commands.

    Args:
      wheel: Its file.
      python: Makes the environment.
      folder: Receives all that is made; empty.

    Returns:
      Whether all went well.
    """
    venv, work = folder / "venv", folder / "empty"
    work.mkdir()
    # neither this checkout nor what an earlier run has left
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("FLJAX_", "PYTHON", "VIRTUAL_ENV"))
    }
    environment = inherited | {"FLJAX_CACHE_DIR": str(folder / "cache")}
    fljax = venv / "bin" / "fljax"
    installation = (
        ("python -m venv", [python, "-m", "venv", venv]),
        ("pip install", [venv / "bin/python", "-m", "pip", "install", "--quiet", wheel]),
    )
    commands = ((f"fljax {line}", [fljax, *line.split()]) for line in COMMANDS)
    for name, command in (*installation, *commands):
        began = time.monotonic()
        done = subprocess.run(
            [*map(str, command)], cwd=work, env=environment, capture_output=True, text=True
        )
        print(f"\n$ {name}   # {time.monotonic() - began:.1f} s", flush=True)
        lines = (done.stdout + done.stderr).strip().splitlines()
        print("\n".join(lines if done.returncode else lines[-LINES:]))
        if done.returncode:
            print(f"ended with {done.returncode}")
            return False
        if name == "pip install":
            files = [path for path in venv.rglob("*") if path.is_file() and not path.is_symlink()]
            print(f"{sum(path.stat().st_size for path in files) / 1e6:,.0f} MB installed")
    return True


if __name__ == "__main__":
    sys.exit(main())

"""Examines an installation: versions, machine, devices, caches, data, and a small run.

What computes is examined in a process of its own, as its faults may end it: XLA aborts over a flag
that it does not know, and drivers may hang.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fljax import __version__
from fljax.core.optional import PARTS, is_there, remedy

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "numpy", "absl-py", "ml_collections", "orbax-checkpoint",
)  # fmt: skip
PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu")
# A first start of a driver, and a first compilation.
_SECONDS = 300


def examine() -> dict[str, Any]:
    """Returns what is found, as JSON can hold it."""
    return {
        "fljax": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "versions": versions(),
        "unmet": unmet(_requirements()),
        "parts": parts(),
        "data": data_folder(),
        "hardware": hardware(),
        "environment": environment(os.environ),
        "computing": computing([sys.executable, "-c", f"from {__name__} import tell; tell()"]),
    }


def versions(packages: Iterable[str] = (*PACKAGES, *PLUGINS)) -> dict[str, str | None]:
    """Returns the versions of packages; None for one that is not installed, but no plugin then."""
    found = {package: _version(package) for package in packages}
    return {name: version for name, version in found.items() if version or name not in PLUGINS}


def unmet(requirements: Iterable[str]) -> list[str]:
    """Returns what is required and not installed, or in another version.

    Args:
      requirements: As packages state them, such as "jax>=0.8,<0.12"; those of extras are left out.

    Example:
      >>> unmet(["numpy>=2.0", "numpy<1", "h5py; extra == 'hdf5'"])[0].partition(", ")[0]
      'numpy<1'
    """
    from packaging.requirements import Requirement

    wrong = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wanted = f"{requirement.name}{requirement.specifier}"
            wrong.append(f"{wanted}, and {version or 'none'} is installed")
    return wrong


def parts() -> dict[str, dict[str, str | None]]:
    """Returns version, use and remedy of each package that may be absent."""
    found = {}
    for module, part in PARTS.items():
        version = (_version(part.package) or "?") if is_there(module) else None
        found[module] = {"version": version, "serves": part.serves, "remedy": remedy(module)}
    return found


def data_folder() -> dict[str, Any]:
    """Returns where data are looked for, who says so, and what lies there."""
    from fljax.core.data_files import resolve_data_dir

    folder = resolve_data_dir()
    holds = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else None
    said_by = "FLJAX_DATA_DIR" if os.environ.get("FLJAX_DATA_DIR") else "the default"
    return {"folder": str(folder), "said_by": said_by, "holds": holds}


def hardware(root: Path = Path("/")) -> list[str]:
    """Returns the accelerators that the system shows, whether or not JAX can use them.

    Args:
      root: Of the file system.
    """
    signs = {"nvidia": ("dev/nvidiactl", "dev/dxg"), "amd": ("dev/kfd",), "tpu": ("dev/accel0",)}
    return [name for name, paths in signs.items() if any((root / path).exists() for path in paths)]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that change what fljax, JAX and XLA do."""
    prefixes = ("FLJAX_", "JAX_", "XLA_", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "TPU_")
    return {name: value for name, value in sorted(variables.items()) if name.startswith(prefixes)}


def computing(command: list[str], seconds: float = _SECONDS) -> dict[str, Any]:
    """Returns what another process finds of devices, cache and a small run.

    Args:
      command: Of that process, which prints JSON in its last line.
      seconds: After which it is ended.

    Returns:
      What it has printed, or {"error": text}.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"JAX has not computed anything in {seconds:g} seconds"}
    except (IndexError, ValueError):
        return {"error": _last_words(done.stderr) or f"it ended with exit code {done.returncode}"}


def _last_words(stderr: str) -> str:
    """Returns the error that a process ended with; of one without a message, the line of code."""
    lines = stderr.strip().splitlines()
    error = next((line for line in reversed(lines) if line and line[0] != " "), "")
    places = [line.strip() for line in lines if line.startswith('  File "')]
    return f"{error} ({places[-1]})" if places and error.isidentifier() else error


def tell() -> None:
    """Prints what computes, and what came of a small run, as a line of JSON."""
    from fljax.commands import small_run

    print(json.dumps(small_run.tried()))


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("fljax") or []
    except importlib.metadata.PackageNotFoundError:
        return []  # a checkout on the path


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

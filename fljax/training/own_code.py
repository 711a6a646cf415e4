"""Digests the user's own code, so that a resumed run says where it has changed.

Of a part that a text names, "my_module:my_function", it is the whole file; of a function or class
that Python hands over, its own source, since the script around it may well ask for more rounds.
Changed code is warned of, not refused: a comment changes nothing, and only the user knows.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fljax

# key of config.json and of a run's identity
OWN_CODE = "own_code"
_TEXT = re.compile(r"([^\W\d][\w.]*):[^\W\d]\w*")
# where nothing is the user's own
_INSTALLED = ("site-packages", "dist-packages", str(Path(fljax.__file__).parent))


def own_code(parts: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns {"part, module": [name of the file, digest]} of what is the user's own.

    Args:
      parts: {name of a part: a text, a function, a class, or a record of functions}.

    Example:
      >>> own_code({"model": "mlp", "algorithm": fljax.algorithms.fedavg(0.1)})
      {}
    """
    found: dict[str, tuple[str, Any]] = {}
    for part, value in parts.items():
        for name, file, source in _sources(value):
            # several functions may have one name, such as <lambda>
            _, digest = found.setdefault(f"{part}, {name}", (Path(file).name, hashlib.sha256()))
            digest.update(source.encode())
    return {name: [file, digest.hexdigest()[:16]] for name, (file, digest) in found.items()}


def warn_of_changes(now: Mapping[str, list[str]], saved: Mapping[str, list[str]]) -> None:
    """Warns of code that has another digest than when a checkpoint was written."""
    for name in now.keys() & saved.keys():
        if now[name][1] != saved[name][1]:
            warnings.warn(
                f"The code of {name} in {now[name][0]} has changed since the run was saved; its "
                "earlier rounds were those of the old code. To start anew with the new one, give "
                "another --workdir.",
                stacklevel=2,
            )


def _sources(value: Any) -> Iterator[tuple[str, str, str]]:
    """Yields (name, file, source) of what a part is made of."""
    if isinstance(value, str):
        for module in sorted(set(_TEXT.findall(value))):
            file = getattr(sys.modules.get(module), "__file__", None)
            if file is not None and not _is_installed(file):
                yield module, file, Path(file).read_text(errors="replace")
        return
    if isinstance(value, tuple):  # a record of functions
        for field in value:
            if not isinstance(field, str):
                yield from _sources(field)
        return
    while isinstance(value, functools.partial):
        value = value.func
    if not callable(value):
        return
    code = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    try:
        file, source = inspect.getsourcefile(code), inspect.getsource(code)
    except (OSError, TypeError):
        return  # made in a shell, or compiled
    if file is not None and not _is_installed(file):
        yield code.__qualname__, file, source


def _is_installed(file: str) -> bool:
    return any(place in str(file) for place in _INSTALLED)

"""Finds a user's own functions by module and name, beside a configuration or where Python does."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from fljax.core.names import nearest

_folder: contextvars.ContextVar[str | None] = contextvars.ContextVar("folder", default=None)


@contextlib.contextmanager
def beside(folder: str | os.PathLike | None) -> Iterator[None]:
    """Lets texts name functions of the modules in a folder, besides those of the current one."""
    token = _folder.set(None if folder is None else os.fspath(folder))
    try:
        yield
    finally:
        _folder.reset(token)


@contextlib.contextmanager
def importable(*folders: str) -> Iterator[None]:
    """Lets Python find the modules in some folders, and leaves its path as it was."""
    sys.path[:0] = folders
    try:
        yield
    finally:
        for folder in folders:
            sys.path.remove(folder)


def own_function(where: str, module: str, name: str) -> Any:
    """Returns a function of a module of the user's.

    Args:
      where: The key and its text, for messages.
      module: Its name.
      name: The function's.

    Raises:
      ValueError: If there is no such module, or no such function in it.
    """
    found = _module(where, module)
    function = getattr(found, name, None)
    if callable(function):
        return function
    known = [
        name
        for name, value in vars(found).items()
        if callable(value) and not name.startswith("_") and value.__module__ == found.__name__
    ]
    near = nearest(name, known)
    hint = f"Did you mean {near!r}?" if near else f"It has {', '.join(known) or 'none'}."
    raise ValueError(f"{where}: {found.__file__} has no function {name!r}. {hint}")


def _module(where: str, name: str) -> ModuleType:
    """Imports a module of the user's, from the folder of the configuration first."""
    top = name.partition(".")[0]
    held = sys.modules.get(top)
    for folder in _folders():
        path = Path(folder, f"{top}.py")
        if held is not None and path.is_file():
            from_there = getattr(held, "__file__", None)
            if from_there is None or not path.samefile(from_there):
                raise ValueError(
                    f"{where}: {path} would be the module {name!r}, and one of this name is "
                    f"imported from {from_there} already. Rename yours."
                )
    with importable(*_folders()):
        importlib.invalidate_caches()
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # it imports something that is not there
            folders = " and ".join(dict.fromkeys(_folders()))
            raise ValueError(
                f"{where}: there is no module {name!r}. It is looked for in {folders}, and where "
                "Python finds modules."
            ) from None


def _folders() -> list[str]:
    return [folder for folder in (_folder.get(), os.getcwd()) if folder is not None]

"""A sweep's settings from a config file and from the command line."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from typing import Any

from fljax.config import ConfigError, call_in_file


def load_settings(path: str | os.PathLike, axes_given: bool = False) -> dict[str, Any]:
    """Returns the settings that a config file names, as `fljax.sweep` takes them.

    Args:
      path: Python file that defines `get_sweep()`; "file.py:text" calls `get_sweep("text")`.
      axes_given: Whether a file without it will do, because the axes stand elsewhere.

    Raises:
      FileNotFoundError: If there is no such file.
      ConfigError: If the file has no `get_sweep()`.
    """
    settings = call_in_file(path, "get_sweep")
    if settings is None and not axes_given:
        raise ConfigError(
            f"{path} defines no function get_sweep(). Add one that returns the settings of the "
            "sweep, or name axes: --axis=client_lr=0.01,0.1."
        )
    return dict(settings or {})


def parse_axes(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Returns the axes that "client_lr=0.01,0.1" and the like describe.

    Raises:
      ConfigError: If a text has another form.
    """
    axes = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise ConfigError(f"--axis={text} must have the form NAME=VALUE,VALUE,...")
        axes[name] = tuple(_value(value) for value in _split(values))
    return axes


def _split(text: str) -> list[str]:
    """Splits at commas, but for those in brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for one in text:
        if one in "'\"" and quote in ("", one):
            quote = "" if quote else one
        elif not quote:
            depth += (one in "([{") - (one in ")]}")
        if one == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += one
    return parts


def _value(text: str) -> Any:
    """Returns a number, truth value or None where the text is one, else the text."""
    try:
        return ast.literal_eval(text.strip())
    except (SyntaxError, ValueError):
        return text.strip()

"""Makes figures that need no display, and saves them."""

from __future__ import annotations

import os
from typing import Any

from fljax.core.files import naming


def new_figure(function: str, width: float, height: float) -> Any:
    """Returns an empty `matplotlib.figure.Figure`.

    Args:
      function: Who draws, for people.
      width, height: In inches.

    Raises:
      ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{function} needs matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def saved(figure: Any, path: str | os.PathLike | None) -> Any:
    """Returns the figure, saved where a path is given."""
    if path is not None:
        with naming(path):
            figure.savefig(path, dpi=150)
    return figure

"""Makes figures that need no display, and saves them."""

from __future__ import annotations

import os
from typing import Any

from fljax.core import optional
from fljax.core.files import naming


def new_figure(width: float, height: float) -> Any:
    """Returns an empty `matplotlib.figure.Figure`.

    Args:
      width, height: In inches.

    Raises:
      ImportError: If matplotlib is not installed.
    """
    with optional.needed("matplotlib"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def saved(figure: Any, path: str | os.PathLike | None) -> Any:
    """Returns the figure, saved where a path is given."""
    if path is not None:
        with naming(path):
            figure.savefig(path, dpi=150)
    return figure

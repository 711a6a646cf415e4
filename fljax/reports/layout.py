"""Draws the charts of a page once all are known, so that thousands of lines still fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fljax.recording.page import Block, Drawings, Fold
from fljax.reports.charts import Chart
from fljax.reports.drawing import drawn
from fljax.reports.thinning import points_each

# Points of all lines of a page, of some 27 bytes each: once as SVG, once for the script.
_BUDGET = 100_000


class Charts(NamedTuple):
    """Charts side by side, and figures of HTML behind them.

    Attributes:
      charts: To be drawn.
      figures: Drawn already.
    """

    charts: Sequence[Chart]
    figures: Sequence[str] = ()


def laid_out(page: Sequence[Block | Charts]) -> list[Block]:
    """Returns a page whose charts are drawn, with as many points as the page has room for.

    Example:
      >>> import numpy as np
      >>> from fljax.reports.charts import line_of
      >>> chart = Chart("Loss", "Round", "Loss", [line_of("run", np.arange(9), np.arange(9.0))])
      >>> [block] = laid_out([Charts([chart])])
      >>> len(block.figures)
      1
    """
    lines = sum(len(chart.lines) for chart in _charts(page))
    return _drawn(page, points_each(lines, _BUDGET))


def _charts(page: Sequence[Block | Charts]) -> Iterator[Chart]:
    for block in page:
        if isinstance(block, Charts):
            yield from block.charts
        elif isinstance(block, Fold):
            yield from _charts(block.blocks)


def _drawn(page: Sequence[Block | Charts], most_points: int) -> list[Block]:
    found: list[Block] = []
    for block in page:
        if isinstance(block, Charts):
            figures = [drawn(chart, most_points) for chart in block.charts]
            figures += block.figures
            titles = ", ".join(chart.title for chart in block.charts)
            if figures:
                found.append(Drawings(figures, f"Charts: {titles}."))
        elif isinstance(block, Fold):
            found.append(block._replace(blocks=_drawn(block.blocks, most_points)))
        else:
            found.append(block)
    return found

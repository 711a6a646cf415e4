"""Draws how unevenly a metric is spread over clients: each client's bar, and the Lorenz curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fljax.core import optional
from fljax.core.metrics import ACCURACY, HIGHER, Metric
from fljax.core.spread import lorenz, spread
from fljax.core.values import checked_path
from fljax.recording.plots import COLOURS, STYLE, save_figure

# More clients than this are a line.
_MOST_BARS = 200


def plot_clients(
    values: Mapping[str, np.ndarray], directory: str | Path, *, metric: Metric = ACCURACY
) -> list[Path]:
    """Draws the sorted values of the clients, and what share of their sum the worst ones have.

    Args:
      values: {label: [clients] a metric of each}; NaN is left out.
      directory: Receives clients.png; created if absent.
      metric: The metric.

    Returns:
      The files written: none where no client has a value.

    Example:
      >>> values = {"FedAvg": np.array([0.5, 0.9, 0.7])}
      >>> [path.name for path in recording.plot_clients(values, "plots")]
      ['clients.png']
    """
    with optional.needed("matplotlib"):
        import matplotlib
        from matplotlib.figure import Figure

    found = {label: np.asarray(each, np.float64) for label, each in values.items()}
    found = {label: np.sort(each[np.isfinite(each)]) for label, each in found.items()}
    found = {label: each for label, each in found.items() if each.size}
    if not found:
        return []
    directory = checked_path("directory", directory)
    directory.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        bars, curve = figure.subplots(1, 2)
        for number, (label, ordered) in enumerate(found.items()):
            colour = COLOURS[number % len(COLOURS)]
            numbers = spread(ordered, metric.better == HIGHER)
            places = (np.arange(ordered.size) + 0.5) / ordered.size
            if ordered.size > _MOST_BARS or len(found) > 1:
                bars.step(places, ordered, where="mid", color=colour, label=label)
            else:
                bars.bar(places, ordered, 1 / ordered.size, color=colour, alpha=0.8, label=label)
            bars.axhline(numbers["mean"], color=colour, linestyle="--", linewidth=1)
            if ordered[0] >= 0:
                text = f"{label}: Gini {numbers['gini']:.3f}, Jain {numbers['jain']:.3f}"
                curve.plot(*lorenz(ordered), color=colour, label=text)
        curve.plot([0, 1], [0, 1], color="#888888", linestyle=":", linewidth=1, label="equal")
        bars.set(xlabel="Share of clients, sorted", ylabel=metric.title, title="Each client")
        curve.set(
            xlabel="Share of clients, least first",
            ylabel=f"Share of the sum of {metric.words}",
            title="Lorenz curve",
        )
        if len(found) > 1:  # of one the other half says whose it is, and bars leave no room
            bars.legend(fontsize=9, loc="lower right")
        curve.legend(fontsize=9)
        path = directory / "clients.png"
        save_figure(figure, path, dpi=150)
    return [path]

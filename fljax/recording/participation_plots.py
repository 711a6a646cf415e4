"""Draws how evenly clients were chosen: the Lorenz curve of jobs, and groups against their size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fljax.core import optional
from fljax.core.spread import lorenz, spread
from fljax.core.values import checked_path
from fljax.recording.plots import COLOURS, STYLE, save_figure

# kind of count -> colour and marker
_KINDS = {"asked": (COLOURS[0], "o"), "arrived": (COLOURS[1], "D")}
# Groups with more values are in summary.json alone.
_MOST_VALUES, _MOST_LETTERS = 20, 20
_TITLES = {"speed_decile": "Tenth of clients by speed, 1 the slowest", "tier": "Tier of devices"}


def plot_participation(
    timeline: Mapping[str, np.ndarray], summary: Mapping[str, Any], directory: str | Path
) -> list[Path]:
    """Draws how jobs are spread over clients, those asked for and those of which updates arrived.

    Args:
      timeline: As `load_run(...).timeline`.
      summary: As `load_run(...).summary`.
      directory: Receives participation.png; created if absent.

    Returns:
      The files written: none where no client was ever asked.

    Example:
      >>> jobs = {"clients/asked": np.array([3, 1]), "clients/arrived": np.array([3, 0])}
      >>> from fljax.recording.participation_plots import plot_participation
      >>> [path.name for path in plot_participation(jobs, {"num_clients": 4}, "plots")]
      ['participation.png']
    """
    with optional.needed("matplotlib"):
        import matplotlib
        from matplotlib.figure import Figure

    counts = {kind: _of_all(timeline, kind, summary["num_clients"]) for kind in _KINDS}
    if not counts["asked"].any():
        return []
    directory = checked_path("directory", directory)
    directory.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        curve, other = figure.subplots(1, 2)
        _draw_lorenz(curve, counts)
        selection = summary.get("selection") or {}
        name = _group(selection)
        if name is None:
            _draw_counts(other, counts)
        else:
            _draw_parity(other, {kind: selection[kind][name] for kind in _KINDS}, name)
        path = directory / "participation.png"
        save_figure(figure, path, dpi=150)
    return [path]


def _of_all(timeline: Mapping[str, np.ndarray], kind: str, num_clients: int) -> np.ndarray:
    """Returns int64[N], the jobs of each client; most first, since nobody asks who it is."""
    known = timeline.get(f"clients/{kind}", np.zeros(0, np.int64))
    return np.concatenate([known, np.zeros(max(num_clients - len(known), 0), np.int64)])


def _group(selection: Mapping[str, Any]) -> str | None:
    """Returns by which groups clients are compared: their devices, else those of the data."""
    found = [
        name for name, report in selection.get("asked", {}).items()
        if 1 < len(report) <= _MOST_VALUES
    ]  # fmt: skip
    return next((name for name in _TITLES if name in found), next(iter(found), None))


def _draw_lorenz(axes: Any, counts: Mapping[str, np.ndarray]) -> None:
    for kind, (colour, _) in _KINDS.items():
        found, ever = spread(counts[kind]), np.count_nonzero(counts[kind]) / len(counts[kind])
        text = f"{kind}: {ever:.0%} ever, Gini {found['gini']:.3f}, Jain {found['jain']:.3f}"
        axes.plot(*lorenz(counts[kind]), color=colour, label=text)
    axes.plot([0, 1], [0, 1], color="#888888", linestyle=":", linewidth=1, label="equal")
    axes.set(
        xlabel="Share of clients, least first", ylabel="Share of all jobs", title="Lorenz curve"
    )
    axes.legend(fontsize=8.5, loc="upper left")


def _draw_parity(axes: Any, reports: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Draws how many times its share of the clients each group's share of the jobs is."""
    # as JSON has them, 10 stands before 2
    labels = sorted(reports["asked"], key=lambda text: (not text.isdigit(), len(text), text))
    texts = [text if len(text) <= _MOST_LETTERS else text[:_MOST_LETTERS] + "…" for text in labels]
    for kind, (colour, marker) in _KINDS.items():
        found = [reports[kind][label]["parity"] for label in labels]
        values = [np.nan if value is None else value for value in found]
        axes.plot(values, range(len(labels)), marker, color=colour, markersize=6, label=kind)
    axes.axvline(1.0, color="#888888", linestyle=":", linewidth=1, label="as others")
    axes.set_yticks(range(len(labels)), texts, fontsize=9)
    axes.set(
        ylim=(len(labels) - 0.5, -0.5),
        xlabel="Jobs of a client, over the mean of all",
        title=_TITLES.get(name, f"Groups: {name}"),
    )
    axes.set_xlim(0, 1.08 * max(axes.get_xlim()[1], 1.0))
    axes.grid(axis="y", visible=False)
    axes.legend(fontsize=8.5)


def _draw_counts(axes: Any, counts: Mapping[str, np.ndarray]) -> None:
    """Draws how many clients had so many jobs."""
    most = int(counts["asked"].max())
    edges = np.unique(np.linspace(0, most + 1, min(most + 1, 40) + 1).round()) - 0.5
    for kind, (colour, _) in _KINDS.items():
        axes.hist(counts[kind], edges, histtype="step", color=colour, linewidth=1.8, label=kind)
    axes.set(xlabel="Jobs of a client", ylabel="Clients", title="Each client")
    axes.legend(fontsize=8.5)

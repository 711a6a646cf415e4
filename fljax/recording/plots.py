"""Draws the curves of one or several runs as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fljax.core import optional
from fljax.core.durations import time_unit
from fljax.core.files import atomic_file
from fljax.core.metrics import ACCURACY, LOSS, Metric
from fljax.core.values import FINITE, Field, checked, checked_path, wrong
from fljax.recording.summary import SIMULATED

Curves = Mapping[str, np.ndarray]

# Okabe and Ito's palette, told apart by colour-blind readers and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}
_FEW_POINTS = 40


def plot_curves(
    runs: Mapping[str, Curves],
    directory: str | Path,
    *,
    metric: Metric = ACCURACY,
    target: float | None = None,
) -> list[Path]:
    """Draws loss and a metric by round, and the metric by bytes sent and by simulated time.

    All runs are in each picture.

    Args:
      runs: {label: curves}, curves as `load_run(...).curves`: {key: float64 array}, NaN where a
        round has no value. The first is the run itself, the others its baselines.
      directory: Receives loss.png, a picture named like the metric (accuracy.png), bytes.png, and
        simulated_time.png where a run has a clock; created if absent.
      metric: The first metric of the task. Where that is the loss, loss.png shows it.
      target: Value of the metric, drawn as a dotted line if given.

    Returns:
      The files written. A picture for which no run has values is left out.

    Raises:
      ImportError: matplotlib is not installed.

    Example:
      >>> curves = {"round": np.arange(3.0), "train/loss": np.array([np.nan, 0.7, 0.5])}
      >>> [path.name for path in recording.plot_curves({"FedAvg": curves}, "plots")]
      ['loss.png']
    """
    with optional.needed("matplotlib"):
        import matplotlib
        from matplotlib.figure import Figure

    if not isinstance(runs, Mapping) or any(
        not isinstance(curves, Mapping) for curves in runs.values()
    ):
        raise wrong("runs", runs, "{label: curves}, curves as load_run(...).curves has them")
    target = checked("target", target, Field(None, float, FINITE, optional=True))
    directory = checked_path("directory", directory)
    directory.mkdir(parents=True, exist_ok=True)
    is_loss = metric.name == LOSS.name
    pictures = {"loss": lambda axes: _draw_loss(axes, runs, target if is_loss else None)}
    if not is_loss:
        pictures[metric.name] = lambda axes: _draw_metric(axes, runs, metric, target)
    pictures["bytes"] = lambda axes: _draw_bytes(axes, runs, metric, target)
    pictures["simulated_time"] = lambda axes: _draw_time(axes, runs, metric, target)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, draw in pictures.items():
            figure = Figure(figsize=(7.2, 4.4), layout="constrained")
            axes = figure.add_subplot()
            if draw(axes):
                axes.legend()
                path = directory / f"{name}.png"
                save_figure(figure, path, dpi=150)
                written.append(path)
    return written


def save_figure(figure: Any, path: Path, **options: Any) -> None:
    """Writes a figure as a PNG file, atomically; an error names the file."""
    with atomic_file(path) as file:
        figure.savefig(file, format="png", **options)


def _draw_loss(axes: Any, runs: Mapping[str, Curves], target: float | None) -> bool:
    """Training loss thin, because it is noisy; evaluated loss over it."""
    drawn = False
    for colour, (label, curves) in zip(_colours(runs), runs.items(), strict=True):
        rounds = _rounds(curves)
        train = {"color": colour, "linewidth": 1.0, "alpha": 0.55}
        drawn |= _line(axes, rounds, curves.get("train/loss"), f"{label}, train", **train)
        test = {"color": colour}
        drawn |= _line(axes, rounds, curves.get("eval/test/loss"), f"{label}, test", **test)
        val = {"color": colour, "linestyle": "--"}
        drawn |= _line(axes, rounds, curves.get("eval/val/loss"), f"{label}, validation", **val)
    _target(axes, target)
    axes.set(xlabel="Round", ylabel="Loss", title="Loss")
    _whole_rounds(axes)
    return drawn


def _draw_metric(
    axes: Any, runs: Mapping[str, Curves], metric: Metric, target: float | None
) -> bool:
    drawn = False
    for colour, (label, curves) in zip(_colours(runs), runs.items(), strict=True):
        key, rows = _evaluated(curves, metric)
        if key is not None:
            drawn |= _line(axes, _rounds(curves), curves[key], f"{label}, {rows}", color=colour)
        val = f"eval/val/{metric.name}"
        if key != val and val in curves:
            dashed = {"color": colour, "linestyle": "--", "linewidth": 1.3}
            drawn |= _line(axes, _rounds(curves), curves[val], f"{label}, validation", **dashed)
        success = curves.get(f"eval/triggered/{metric.name}")
        dotted = {"color": colour, "linestyle": ":", "linewidth": 1.3}
        drawn |= _line(axes, _rounds(curves), success, f"{label}, with trigger", **dotted)
    _target(axes, target)
    axes.set(xlabel="Round", ylabel=metric.title, title=metric.label or metric.name)
    _whole_rounds(axes)
    return drawn


def _draw_bytes(
    axes: Any, runs: Mapping[str, Curves], metric: Metric, target: float | None
) -> bool:
    """Runs that send nothing (centralized, local only) appear as a level: their last value."""
    sent = {label: _bytes(curves) for label, curves in runs.items()}
    scale, unit = _unit(max((np.nanmax(b) for b in sent.values() if b is not None), default=0.0))
    drawn = _draw_by(axes, runs, metric, sent, scale, "sends nothing")
    _target(axes, target)
    axes.set(
        xlabel=f"Sent by server and clients together ({unit})",
        ylabel=metric.title,
        title=f"{metric.label or metric.name} by communication",
    )
    return drawn


def _draw_time(axes: Any, runs: Mapping[str, Curves], metric: Metric, target: float | None) -> bool:
    """Runs without a clock appear as a level: their last value."""
    seconds = {label: _seconds(curves) for label, curves in runs.items()}
    longest = max((np.nanmax(each) for each in seconds.values() if each is not None), default=0.0)
    scale, unit = time_unit(longest)
    drawn = _draw_by(axes, runs, metric, seconds, scale, "without a clock")
    _target(axes, target)
    axes.set(
        xlabel=f"Simulated time ({unit})",
        ylabel=metric.title,
        title=f"{metric.label or metric.name} by simulated time",
    )
    return drawn


def _draw_by(
    axes: Any,
    runs: Mapping[str, Curves],
    metric: Metric,
    spent: Mapping[str, np.ndarray | None],
    scale: float,
    without: str,
) -> bool:
    """Draws the metric over what was spent; as a level, with a remark, where that is None.

    Returns:
      Whether there is a run that spent something.
    """
    drawn = False
    for colour, (label, curves) in zip(_colours(runs), runs.items(), strict=True):
        key, rows = _evaluated(curves, metric)
        if key is None:
            continue
        text, x = f"{label}, {rows}", spent[label]
        if x is not None:
            drawn |= _line(axes, x / scale, curves[key], text, color=colour)
        else:
            values = curves[key][np.isfinite(curves[key])]
            axes.axhline(values[-1], color=colour, linestyle="--", label=f"{text} ({without})")
    return drawn


def _line(axes: Any, x: np.ndarray, y: np.ndarray | None, label: str, **style) -> bool:
    """Joins the finite points; few points, such as sparse evaluations, are marked."""
    if y is None:
        return False
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return False
    marker = "o" if known.sum() <= _FEW_POINTS else None
    axes.plot(x[known], y[known], label=label, marker=marker, markersize=4, **style)
    return True


def _target(axes: Any, target: float | None) -> None:
    if target is not None:
        axes.axhline(
            target, color="#555555", linestyle=":", linewidth=1.3, label=f"target {target:g}"
        )


def _whole_rounds(axes: Any) -> None:
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _colours(runs: Mapping[str, Curves]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(runs))]


def _rounds(curves: Curves) -> np.ndarray:
    if "round" in curves:
        return curves["round"]
    return np.arange(1, 1 + max(map(len, curves.values()), default=0), dtype=np.float64)


def _evaluated(curves: Curves, metric: Metric) -> tuple[str | None, str]:
    """Returns the key of the metric that is drawn, and on which rows it was evaluated."""
    keys = {
        f"eval/test/{metric.name}": "test",
        f"eval/val/{metric.name}": "validation",
        "eval/clients/mean": "mean over clients",
    }
    found = (key for key in keys if key in curves and np.isfinite(curves[key]).any())
    key = next(found, None)
    return key, keys.get(key, "")


def _bytes(curves: Curves) -> np.ndarray | None:
    """Returns cumulative bytes both ways; None if nothing is ever sent."""
    counts = [curves[k] for k in ("comm/uplink_bytes", "comm/downlink_bytes") if k in curves]
    total = np.sum(counts, axis=0) if counts else np.zeros(1)
    return total if np.nanmax(total, initial=0.0) > 0 else None


def _seconds(curves: Curves) -> np.ndarray | None:
    """Returns simulated seconds, 0 for the initial model; None without a clock."""
    seconds = curves.get(SIMULATED)
    if seconds is None or not np.isfinite(seconds).any():
        return None
    return np.where(_rounds(curves) == 0, 0.0, seconds)


def _unit(most: float) -> tuple[float, str]:
    units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
    return next(((scale, unit) for scale, unit in units if most >= scale), (1.0, "bytes"))

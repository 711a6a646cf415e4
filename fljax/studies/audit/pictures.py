"""Pictures of an audit: ROC curves, and what attacks prove of epsilon beside what is promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fljax.recording.plots import COLOURS, STYLE, save_figure

_LEAST_RATE = 1e-3
_GREY = "#888888"


def draw_rocs(
    curves: Mapping[str, Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]], path: Path
) -> None:
    """Draws true over false positives on logarithmic axes: a row a defence, a column a view.

    Args:
      curves: {defence: {view: {attack: (false-positive rates, true-positive rates)}}}.
      path: The PNG file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    views = list(dict.fromkeys(view for of_defence in curves.values() for view in of_defence))
    attacks = _attacks(curves)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(views) + 0.6, 3.0 * len(curves) + 0.8))
        figure.set_layout_engine("constrained")
        panels = figure.subplots(len(curves), len(views), squeeze=False, sharex=True, sharey=True)
        for line, (defence, of_defence) in zip(panels, curves.items(), strict=True):
            for panel, view in zip(line, views, strict=True):
                _draw_roc(panel, of_defence.get(view, {}), attacks)
            line[0].set_ylabel(f"{defence}\ntrue positives")
        for panel, view in zip(panels[0], views, strict=True):
            panel.set_title(view)
        for panel in panels[-1]:
            panel.set_xlabel("false positives")
        handles = [
            matplotlib.lines.Line2D([], [], **_line(number)) for number in range(len(attacks))
        ]
        columns = min(len(attacks), max(2, len(views)))
        figure.legend(handles, attacks, loc="outside lower center", ncols=columns)
        save_figure(figure, path, dpi=150)


def _attacks(curves: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Returns the names of all attacks, in the order in which they come."""
    views = [of_view for of_defence in curves.values() for of_view in of_defence.values()]
    return list(dict.fromkeys(attack for of_view in views for attack in of_view))


def _draw_roc(panel: Any, of_view: Mapping[str, Any], attacks: Sequence[str]) -> None:
    panel.plot([_LEAST_RATE, 1], [_LEAST_RATE, 1], color=_GREY, linewidth=1, linestyle=":")
    for attack, (false, true) in of_view.items():
        # a rate of zero has no place on a logarithmic axis
        shown = np.maximum(false, _LEAST_RATE), np.maximum(true, _LEAST_RATE)
        panel.step(*shown, where="post", linewidth=1.4, **_line(attacks.index(attack)))
    panel.set(xscale="log", yscale="log", xlim=(_LEAST_RATE, 1), ylim=(_LEAST_RATE, 1))
    if not of_view:
        panel.text(0.5, 0.5, "not looked at", ha="center", transform=panel.transAxes, color=_GREY)


def _line(number: int) -> dict[str, str]:
    """Returns the colour and the style of a line; lines beyond the palette are dashed."""
    style = "-" if number < len(COLOURS) else "--"
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": style}


def draw_epsilons(bounds: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draws what attacks prove of epsilon below what the mechanism promises, a line a defence.

    Args:
      bounds: {defence: {"promised": epsilon, None without a mechanism; "epsilon": the lower bound;
        "confidence": of that}}.
      path: The PNG file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.6 * len(bounds) + 1.5), layout="constrained")
        panel = figure.subplots()
        places = np.arange(len(bounds))[::-1]
        known = [values for found in bounds.values() if (values := found["promised"]) is not None]
        most = max([1.0, *known, *(found["epsilon"] for found in bounds.values())])
        for place, found in zip(places, bounds.values(), strict=True):
            promised, proved = found["promised"], found["epsilon"]
            panel.plot([proved, most * 1.1 if promised is None else promised], [place, place],
                       color=_GREY, linewidth=1)  # fmt: skip
            panel.plot(proved, place, "o", color=COLOURS[1])
            if promised is not None:
                panel.plot(promised, place, "D", color=COLOURS[0])
            else:
                panel.text(most * 1.12, place, "nothing promised", va="center", fontsize=9)
        confidence = next(iter(bounds.values()))["confidence"]
        panel.plot([], [], "o", color=COLOURS[1], label=f"proved, at {confidence:.0%}")
        panel.plot([], [], "D", color=COLOURS[0], label="promised")
        panel.set_yticks(places, list(bounds))
        panel.set(xlabel="epsilon", xlim=(0, most * 1.5), ylim=(-0.6, len(bounds) - 0.4))
        panel.grid(axis="y", visible=False)
        figure.legend(loc="outside upper center", ncols=2)
        save_figure(figure, path, dpi=150)

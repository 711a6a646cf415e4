"""What pictures of a sweep call things."""

from __future__ import annotations

from fljax.studies.selection import Configuration, Criterion, split

_SPLITS = {"val": "validation", "held_out": "held-out"}


def score_label(criterion: Criterion) -> str:
    """Returns what the score of a configuration is: "validation accuracy, best round"."""
    return f"{metric_label(criterion)}, {criterion.at} round"


def metric_label(criterion: Criterion) -> str:
    """Returns the metric in words: "validation accuracy" for "eval/val/accuracy"."""
    rows = split(criterion.metric)
    return f"{_SPLITS.get(rows, rows)} {criterion.metric.rpartition('/')[2]}"


def number(score: float) -> str:
    """Returns a score with three decimals, or three digits where these would say little."""
    return f"{score:.3f}" if score == 0 or 1e-2 <= abs(score) < 1e3 else f"{score:.3g}"


def note(configuration: Configuration) -> str:
    """Returns what a mean does not tell: trials that did not come to their end."""
    if configuration.diverged:
        return f"{configuration.diverged} of {len(configuration.trials)} diverged"
    stopped = [status.round for status in configuration.statuses if status.state == "stopped"]
    all_stopped = len(stopped) == len(configuration.trials)
    return f"stopped at {max(stopped)}" if all_stopped else ""

"""Remarks on what a study faces: which row holds best, and where the reference is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fljax.core.metrics import name_of, unit_of
from fljax.studies.columns import with_sd, worst_of
from fljax.studies.comparison import NOTHING, Compared, Comparison
from fljax.studies.selection import Spread


def remarks(comparison: Comparison) -> list[str]:
    """Returns sentences on what a study found that faces an axis; none where it faces none.

    A row is below the reference if its mean is, by more than the standard deviation of the
    differences over seeds, or if it diverged with all seeds and the reference did not.

    Args:
      comparison: Of a study.
    """
    if not comparison.study.faced_axis:
        return []
    reference = next((entry for entry in comparison.compared if entry.is_reference), None)
    found = _of_the_worst(comparison, reference)
    if reference is not None:
        found += [_below(comparison, reference, cell) for cell in reference.under]
        if len(reference.outcomes) < 2:
            found.append("With a single seed, differences may be chance.")
    return [text for text in found if text]


def _of_the_worst(comparison: Comparison, reference: Compared | None) -> list[str]:
    """Says which row is best under what is worst for it, beside the reference."""
    worst = {entry.label: worst_of(comparison, entry) for entry in comparison.compared}
    known = {
        label: comparison.sign * mean
        for label, cell in worst.items()
        if cell and math.isfinite(mean := cell.spread(comparison.reported).mean)
    }
    if not known:
        return []

    def told(label: str) -> str:
        cell = worst[label]
        assert cell is not None
        return f"`{label}`, {_figure(comparison, cell)} (`{cell.label}`)"

    faced = comparison.study.faced
    highest = max(known, key=known.__getitem__)
    text = f"Of all, each under its worst {faced}, best is {told(highest)}"
    if reference is not None and reference.faced and highest != reference.label:
        text += f"; the reference is {told(reference.label)}"
    return [f"{text}."]


def _below(comparison: Comparison, reference: Compared, under: Compared) -> str:
    """Says which rows are below the reference under one value, with all figures."""
    faced, label = comparison.study.faced, under.label
    where = f"Without {faced}" if label == NOTHING else f"Under `{label}`"
    if math.isnan(under.spread(comparison.reported).mean):
        return f"{where}, `{reference.label}` has no value to compare with." * bool(under.diverged)
    found = []
    for entry in comparison.compared:
        cell = next((cell for cell in entry.under if cell.label == label), None)
        if cell is None or cell.is_reference:
            continue
        gap = cell.gap(comparison.reported)
        if _is_below(cell, gap, comparison):
            by = "" if math.isnan(gap.mean) else f", {_points(comparison, gap)}"
            found.append(f"`{entry.label}` ({_figure(comparison, cell)}{by})")
    name = name_of(comparison.headline, comparison.metrics)
    its = f"`{reference.label}` has a {name} of {_figure(comparison, under)}"
    if not found:
        by = " by more than seeds differ" * (len(under.outcomes) > 1)
        return f"{where}, {its}, and nothing is worse{by}."
    return f"{where}, {its}, and is better than {_listed(found)}."


def _is_below(cell: Compared, gap: Spread, comparison: Comparison) -> bool:
    if math.isnan(gap.mean):
        return len(cell.diverged) == len(cell.outcomes)
    return comparison.sign * gap.mean < 0 and not abs(gap.mean) <= gap.sd


def _figure(comparison: Comparison, cell: Compared) -> str:
    factor, _ = unit_of(comparison.headline, comparison.metrics)
    if math.isnan(cell.spread(comparison.reported).mean):
        return "diverged"
    text = with_sd(cell.spread(comparison.reported), None if factor == 1 else 2, factor)
    return text + " %" * (factor != 1)


def _points(comparison: Comparison, gap: Spread) -> str:
    factor, _ = unit_of(comparison.headline, comparison.metrics)
    text = with_sd(gap, None if factor == 1 else 2, factor, "+")
    return f"{text}{' points' * (factor != 1)}"


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"

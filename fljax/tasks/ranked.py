"""Measures how well scores rank examples: the area under the ROC, exactly or from histograms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core import parts
from fljax.core.metrics import LOWER, Metric, Sum
from fljax.core.values import Field, Interval, checked


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the probability that a positive example has a higher score than a negative one.

    It is exact: the statistic of Mann and Whitney (1947) from ranks, in which equal scores count
    one half.

    Args:
      scores: float[examples].
      labels: [examples], 1 of positive examples and 0 of negative ones.

    Returns:
      A number from 0 to 1; NaN where there is no example of a class, or a score is NaN.

    Example:
      >>> tasks.auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
      0.75
    """
    positive = np.asarray(labels) > 0
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives or np.isnan(scores).any():
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # twice the mean rank of those with one score, a whole number
    ranks = (2 * counts.cumsum() - counts + 1)[place]
    twice = int(ranks[positive].sum()) - positives * (positives + 1)
    return twice / (2 * positives * negatives)


SCORE, LABEL = "score", "label"


def _auc_of(sums: Mapping[str, Sum]) -> float:
    counts = sums[SCORE].weight > 0
    return auc(sums[SCORE].value[counts], sums[LABEL].value[counts])


AUC = Metric("auc", value=_auc_of, of_examples=True, label="AUC")

# the sum by example, bool[B, 2, bins]
HISTOGRAM = "score_histogram"


def num_bins(text: str) -> int | None:
    """Returns the bins of "histogram(bins)", or None of "exact"."""
    call = parts.read_one("auc", text, {"exact": _exact, "histogram": _histogram})
    return parts.make(call)


def _exact() -> None:
    return None


def _histogram(bins: int = 100) -> int:
    return checked("bins", bins, Field(100, int, Interval(2, 10_000)))


def bin_of(scores: jax.Array, bins: int) -> jax.Array:
    """Returns int32[...], the bin of each score, a log odds; bins are alike in probability.

    Which bin a score is in never falls as it grows, whatever is rounded.
    """
    shares = np.arange(1, bins) / bins
    edges = jnp.asarray(np.log(shares / (1 - shares)), scores.dtype)
    return jnp.searchsorted(edges, scores, side="right").astype(jnp.int32)


def histograms(scores: jax.Array, labels: jax.Array, bins: int) -> jax.Array:
    """Returns bool[B, 2, bins]: where each example lies in the histograms of classes 0 and 1."""
    of_class = jnp.arange(2) == labels[:, None]
    of_bin = (jnp.arange(bins) == bin_of(scores, bins)[:, None]) & ~jnp.isnan(scores)[:, None]
    return of_class[:, :, None] & of_bin[:, None, :]


def auc_of_histograms(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the area under the ROC from histograms of scores, and how far it may be off.

    Scores within one bin count as equal. So a pair of examples in one bin, which counts one half,
    may count 0 or 1, and pairs of unlike bins count as they are: the exact area differs by half the
    share of pairs within a bin at most.

    Args:
      counts: Integer[..., 2, bins] examples of class 0 and of class 1.

    Returns:
      (area float64[...], bound float64[...]); NaN where there is no example of a class.

    Example:
      >>> area, bound = tasks.auc_of_histograms(np.array([[3, 1], [1, 3]]))
      >>> float(area), float(bound)
      (0.75, 0.1875)
    """
    negatives, positives = np.moveaxis(np.asarray(counts).astype(np.float64), -2, 0)
    below = negatives.cumsum(-1) - negatives
    pairs = positives.sum(-1) * negatives.sum(-1)
    with np.errstate(all="ignore"):
        halves = (positives * negatives).sum(-1) / 2
        area = ((positives * below).sum(-1) + halves) / pairs
        return area, halves / pairs


def histogram_metrics(
    name: str, label: str, read: Callable[[Any], Any], **of: bool
) -> list[Metric]:
    """Returns the metrics of histograms of scores: the area, and its bound `NAME_error`.

    Args:
      name, label: Of the area.
      read: What the metric is given -> (area, bound).
      **of: As for `Metric`: what it is given.
    """
    return [
        Metric(name, value=lambda given: read(given)[0], label=label, **of),
        Metric(f"{name}_error", LOWER, lambda given: read(given)[1], label=f"{label}, error", **of),
    ]


def _of_sums(sums: Mapping[str, Sum]) -> tuple[Any, Any]:
    counts, weight = np.asarray(sums[HISTOGRAM].value), sums[HISTOGRAM].weight
    whole = counts.sum((-1, -2)) == weight  # scores that are NaN are in no bin
    area, bound = auc_of_histograms(counts)
    return np.where(whole, area, np.nan), np.where(whole, bound, np.nan)


HISTOGRAM_AUC = histogram_metrics("auc", "AUC", _of_sums)

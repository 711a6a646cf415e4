"""Signals: numbers that tell how well a model knows a row.

    loss              -log p_y, the mean over a row's targets
    confidence        log(p_y / (1 - p_y)), which LiRA takes for normal (Carlini et al. 2021,
                      arXiv:2112.03570)
    probability       p_y = exp(-loss), whose ratios RMIA reads (Zarifzadeh et al. 2023,
                      arXiv:2312.03262)
    entropy           -sum_i p_i log p_i
    modified_entropy  -(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i) (Song and Mittal
                      2020, arXiv:2003.10595), which also says whether the model is right

and those of updates, see `fljax.audits.membership.updates`. A row of many targets, such as a
sentence, has the mean over them; its probability is that of a target, exp(-mean loss).

Where p_y is near 1, 1 - p_y is lost in its rounding, and it is there that members are. So
log(1 - p) comes from the logits of the other classes, and of a loss from log(1 - exp(-loss)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fljax.audits.membership.updates import cosine, gradient_difference

# Kinds of tasks whose targets are classes, or labels that apply or not.
_OF_CLASSES = ("classification", "next_token", "segmentation", "multi_label")
# A loss in float32 is a multiple of this where p is nearest to 1; 0 may be anything below.
_SMALLEST_LOSS = 2.0**-24


class Logs(NamedTuple):
    """Logarithms of the probabilities of classes.

    Attributes:
      p: float64[..., C], log p of each class.
      rest: float64[..., C], log(1 - p).
      y: int64[..., 1] labels.
    """

    p: np.ndarray
    rest: np.ndarray
    y: np.ndarray

    def of_label(self, logs: np.ndarray) -> np.ndarray:
        """Returns those of the label, [...]."""
        return np.take_along_axis(logs, self.y, -1)[..., 0]


class Signal(NamedTuple):
    """A signal: which way it points, and what it is a function of.

    Attributes:
      sign: 1.0 where members have higher values, -1.0 where they have lower ones.
      of_logs: (Logs) -> float64[...], one for each target; None where logits do not tell.
      of_mean: From the mean of these over a row's targets to the signal; None for the mean itself.
      of_losses: (losses) -> float64 of that shape, of mean losses of rows; None where losses do not
        tell.
      of_updates: As `updates.cosine`; None where updates do not tell.
    """

    sign: float
    of_logs: Callable[[Logs], np.ndarray] | None = None
    of_mean: Callable[[np.ndarray], np.ndarray] | None = None
    of_losses: Callable[[np.ndarray], np.ndarray] | None = None
    of_updates: Callable[..., np.ndarray] | None = None


def _loss(logs: Logs) -> np.ndarray:
    return -logs.of_label(logs.p)


def _confidence(logs: Logs) -> np.ndarray:
    return logs.of_label(logs.p - logs.rest)


def _entropy(logs: Logs) -> np.ndarray:
    return -_times(np.exp(logs.p), logs.p).sum(-1)


def _modified_entropy(logs: Logs) -> np.ndarray:
    terms = _times(np.exp(logs.p), logs.rest)
    own = _times(np.exp(logs.rest), logs.p)
    # taken away from the sum afterwards, a large term would leave nothing of small ones
    np.put_along_axis(terms, logs.y, logs.of_label(own)[..., None], -1)
    return -terms.sum(-1)


def _times(weights: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Returns the products, of which those with a weight of 0 are 0."""
    return np.where(weights == 0, 0.0, weights * logs)


def _confidence_of(losses: np.ndarray) -> np.ndarray:
    floored = np.maximum(losses, _SMALLEST_LOSS)
    # of log(1 - exp(-x)), the first form is exact for small x, the second for large ones
    near = floored < np.log(2)
    rest = np.where(near, np.log(-np.expm1(-floored)), np.log1p(-np.exp(-floored)))
    return -floored - rest


def _probability_of(losses: np.ndarray) -> np.ndarray:
    return np.exp(-losses)


SIGNALS: dict[str, Signal] = {
    "loss": Signal(-1.0, _loss, of_losses=np.copy),
    "confidence": Signal(1.0, _confidence, of_losses=_confidence_of),
    "probability": Signal(1.0, _loss, _probability_of, _probability_of),
    "entropy": Signal(-1.0, _entropy),
    "modified_entropy": Signal(-1.0, _modified_entropy),
    "cosine": Signal(1.0, of_updates=cosine),
    "gradient_difference": Signal(1.0, of_updates=gradient_difference),
}


def offered(kind: str) -> tuple[str, ...]:
    """Returns the names of the signals of rows that a kind of task offers.

    Args:
      kind: Of a `Task`. Those of classes and of labels offer all; others have a loss for each row,
        and what follows from it as if it were -log p, as a cross entropy is.

    Example:
      >>> offered("classification")
      ('loss', 'confidence', 'probability', 'entropy', 'modified_entropy')
      >>> offered("regression")
      ('loss', 'confidence', 'probability')
    """
    return tuple(
        name
        for name, signal in SIGNALS.items()
        if signal.of_losses or (signal.of_logs and kind in _OF_CLASSES)
    )


def check_offered(name: str, kind: str) -> None:
    """Raises ValueError for a signal that a kind of task does not offer.

    Example:
      >>> check_offered("entropy", "classification")
    """
    if name not in offered(kind):
        why = "is of updates" if _signal(name).of_updates else "needs probabilities of classes"
        raise ValueError(
            f"signal = {name!r} {why}, and a {kind} task has a loss for each row. Choose an attack "
            f"that reads one of {', '.join(offered(kind))}."
        )


def of_logits(
    name: str, logits: np.ndarray, y: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """Returns a signal of rows from what models say of them.

    It takes some 5 arrays of the logits' size in float64: give a few models at a time.

    Args:
      name: A name in `SIGNALS`.
      logits: [..., T, *, C] of T rows, whose targets have the axes *, none in classification; axes
        in front are of models. Of one logit for two classes, see `two_classes`.
      y: int[T, *] labels.
      mask: bool[T, *], which targets count; None for all.

    Returns:
      float64[..., T]; NaN for rows of which no target counts, or whose logits have no softmax.

    Raises:
      ValueError: For an unknown name, a signal that logits do not tell, shapes that do not fit, or
        labels that are no classes.

    Example:
      >>> logits = np.array([[2.0, 0.0], [0.0, 0.0]])
      >>> np.round(of_logits("confidence", logits, np.array([0, 1])), 3).tolist()
      [2.0, 0.0]
    """
    signal = _signal(name)
    if signal.of_logs is None:
        raise ValueError(f"signal = {name!r} is of updates: take `updates.{name}`.")
    logits, y = np.asarray(logits, np.float64), np.asarray(y)
    counts = np.ones(y.shape, bool) if mask is None else np.asarray(mask, bool)
    _check_shapes(logits, y, counts)
    with np.errstate(all="ignore"):
        each = signal.of_logs(_logs(logits, np.where(counts, y, 0)))
        targets = tuple(range(each.ndim - y.ndim + 1, each.ndim))
        total = np.where(counts, each, 0.0).sum(targets)
        mean = total / counts.sum(tuple(range(1, y.ndim)))
        return mean if signal.of_mean is None else signal.of_mean(mean)


def of_losses(name: str, losses: np.ndarray) -> np.ndarray:
    """Returns a signal of rows from their mean losses, as if these were -log p.

    A loss below 2^-24, which float32 cannot tell from 0, counts as that in "confidence".

    Args:
      name: "loss", "confidence" or "probability".
      losses: [...] the loss of each row, the mean over its targets.

    Raises:
      ValueError: For a name that losses do not tell, or negative losses where p is asked for.

    Example:
      >>> np.round(of_losses("confidence", np.array([0.1, 3.0])), 3).tolist()
      [2.252, -2.949]
    """
    signal, losses = _signal(name), np.asarray(losses, np.float64)
    if signal.of_losses is None:
        what = "logits" if signal.of_logs else "updates"
        raise ValueError(f"signal = {name!r} needs {what}: a loss tells {', '.join(offered(''))}.")
    if name != "loss" and (losses < 0).any():
        raise ValueError(
            f"losses go down to {np.nanmin(losses):g}, and signal = {name!r} takes them for "
            "-log p, which is never negative. Choose an attack on signal='loss', such as "
            "lira(signal='loss')."
        )
    with np.errstate(all="ignore"):
        return signal.of_losses(losses)


def two_classes(logits: np.ndarray) -> np.ndarray:
    """Returns logits [..., 2] of two classes, or of whether a label applies, from its one logit.

    Example:
      >>> z = np.array([0.0, 3.0])
      >>> np.round(of_logits("entropy", two_classes(z), np.array([1, 1])), 3).tolist()
      [0.693, 0.191]
    """
    logits = np.asarray(logits, np.float64)
    return np.stack([np.zeros_like(logits), logits], -1)


def sign_of(name: str) -> float:
    """Returns 1.0 where members have higher values of a signal, -1.0 where they have lower ones.

    Example:
      >>> sign_of("loss"), sign_of("confidence")
      (-1.0, 1.0)
    """
    return _signal(name).sign


def _signal(name: str) -> Signal:
    if name not in SIGNALS:
        raise ValueError(f"signal = {name!r} is not one of {', '.join(SIGNALS)}.")
    return SIGNALS[name]


def _logs(logits: np.ndarray, y: np.ndarray) -> Logs:
    """Returns logarithms of p and 1 - p without a difference of nearly equal numbers."""
    best = logits.argmax(-1)[..., None]
    top = np.take_along_axis(logits, best, -1)
    others = np.exp(logits - top)
    np.put_along_axis(others, best, 0.0, -1)
    rest_of_best = others.sum(-1, keepdims=True)  # over the best one: (1 - p) / p of it
    p = logits - top - np.log1p(rest_of_best)
    rest = np.log1p(-np.exp(p))  # p is at most 1/2 but for the best one
    np.put_along_axis(rest, best, np.log(rest_of_best) - np.log1p(rest_of_best), -1)
    return Logs(p, rest, np.broadcast_to(y[..., None], (*logits.shape[:-1], 1)))


def _check_shapes(logits: np.ndarray, y: np.ndarray, counts: np.ndarray) -> None:
    if y.ndim < 1 or logits.ndim <= y.ndim or logits.shape[-1 - y.ndim : -1] != y.shape:
        raise ValueError(
            f"logits have shape {list(logits.shape)} and y {list(y.shape)}; logits must end with "
            "the axes of y and one of classes. Of one logit for two classes, give "
            "two_classes(logits)."
        )
    if counts.shape != y.shape:
        raise ValueError(f"mask has shape {list(counts.shape)}; it must be y's, {list(y.shape)}.")
    num_classes = logits.shape[-1]
    if num_classes < 2:
        raise ValueError(
            f"logits have {num_classes} classes, and two are the fewest: of one logit for two "
            "classes, give two_classes(logits)."
        )
    known = y[counts]
    if known.dtype.kind not in "iub" or (
        known.size and not 0 <= known.min() <= known.max() < num_classes
    ):
        raise ValueError(
            f"y must hold classes, whole numbers from 0 to {num_classes - 1}, where mask is true."
        )

"""Infers the labels of rows from the gradient of a last layer: that of one, or counts of many.

Under softmax and cross entropy the gradient at the logits of a row is p - e_c: its predicted
probabilities, less 1 at its label c. A batch has the mean of them in its bias, and their products
with the layer's inputs in its kernel.

Of the two methods for batches, label leakage from gradients (LLG: Wainakh et al. 2021,
arXiv:2105.09369) is the one here, since it counts labels. GradInversion (Yin et al. 2021,
arXiv:2104.07586) says which labels occur, and asks that none occurs twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core import random
from fljax.core.values import COUNT, POSITIVE, SEED, Field, checked, wrong

__all__ = ["Label", "LabelCounts", "as_gradient", "impact_and_offset", "label_counts", "label_of"]

PyTree = Any
# What rounding may add to a count of rows of one label.
_ROUNDING = 1e-3


class Label(NamedTuple):
    """The label of one row.

    Attributes:
      label: The class.
      certain: Whether the gradient is that of one row of this label: whether its gradient points
        away from that of all other classes. Noise, or several rows, may break it.
    """

    label: int
    certain: bool


class LabelCounts(NamedTuple):
    """Numbers of rows of a batch with each label.

    Attributes:
      counts: int64[C], their sum is the number of rows.
      certain: int64[C], how many of them at least there are whatever the rows look like, as far as
        the gradient is exact: those that no probability can explain.
    """

    counts: np.ndarray
    certain: np.ndarray


def label_of(kernel: Any, bias: Any = None) -> Label:
    """Returns the label of a single row, by the signs of the last layer's gradient.

    That of the label's class has a negative product with the gradients of all other classes, which
    have positive ones among themselves (Zhao et al. 2020). Two classes alone look alike in this; a
    bias tells them apart, or inputs that are not negative.

    Args:
      kernel: float[D, C], the gradient of the kernel, or a positive multiple of it.
      bias: float[C], that of the bias; None for a layer without.

    Raises:
      ValueError: For other shapes, or less than two classes.

    References: arXiv:2001.02610, section 3. Their code takes the least sum of a class instead,
      which asks for inputs that are not negative.

    Example:
      >>> label_of(np.outer([1.0, -2.0], [0.2, -0.9, 0.7]))
      Label(label=1, certain=True)
    """
    kernel, bias = _last_layer(kernel, bias)
    columns = kernel if bias is None else np.vstack([kernel, bias])
    largest = np.abs(columns).max(initial=0)
    products = (columns / (largest or 1)).T @ (columns / (largest or 1))
    others = products - np.diag(np.diag(products))
    if len(products) > 2:
        label = int(others.sum(1).argmin())
    else:
        label = int((kernel.sum(0) if bias is None else bias).argmin())
    apart = np.delete(others[label], label)
    among = np.delete(np.delete(others, label, 0), label, 1)
    return Label(label, bool(largest and (apart <= 0).all() and (among >= 0).all()))


def label_counts(
    kernel: Any,
    bias: Any = None,
    *,
    rows: int,
    impact: float | None = None,
    offset: Any = 0.0,
) -> LabelCounts:
    """Returns how many rows have each label, by what each row takes from its class's gradient.

    LLG: a class is told by g, the sum of its kernel's gradient. A row of the class adds the impact,
    a negative number, to it, and all rows together add an offset. Classes of negative g have a row
    at least; after them, row by row, the class of the least g gets one, which takes the impact
    away again. Where the layer has a bias, its gradient is g, and the impact is known: -1 / rows.

    Args:
      kernel: float[D, C], the gradient of the mean loss by the kernel. Its inputs must not be
        negative, if there is no bias (ReLU, sigmoid).
      bias: float[C], that by the bias; None for a layer without.
      rows: Their number B.
      impact: That of a row; None for the known one of a bias, or for the mean over the negative g,
        sum(g) / B (1 + 1 / C), which is too small in batches of many more rows than classes, where
        the offsets hide most of it: measure it with `impact_and_offset` then.
      offset: float[C] or a number, which g are less of before counting.

    Raises:
      ValueError: For other shapes, or numbers that are not finite.

    References: arXiv:2105.09369, section 4; the impact of a bias follows from the gradient itself.

    Example:
      >>> logits = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]]) - np.array([[0, 1, 0], [0, 1, 0]])
      >>> label_counts(np.ones((4, 1)) * logits.mean(0), logits.mean(0), rows=2)
      LabelCounts(counts=array([0, 2, 0]), certain=array([0, 2, 0]))
    """
    kernel, bias = _last_layer(kernel, bias)
    rows = checked("rows", rows, Field(None, int, COUNT))
    signal = kernel.sum(0) if bias is None else bias
    classes = len(signal)
    negative = signal < 0
    if impact is None and bias is not None:
        impact = -1 / rows
    elif impact is None:
        impact = signal[negative].sum() / rows * (1 + 1 / classes)
    elif not -np.inf < impact < 0:
        raise wrong("impact", impact, "below 0: a row lowers the gradient of its label's class")
    least = np.abs(signal).max() * np.finfo(np.float64).eps or 1.0
    size = max(-impact, least)
    # with k rows taken away again, a class's signal is that of column k
    left = (signal - np.asarray(offset, np.float64))[:, None] + size * np.arange(rows)
    left[negative, 0] = np.minimum(left[negative, 0], 0) - (np.abs(left).max() + size)
    order = np.argsort(left, axis=None, kind="stable")[:rows]
    counts = np.bincount(order // rows, minlength=classes)
    certain = negative.astype(np.int64)
    if bias is not None:
        certain = np.maximum(np.ceil(-rows * bias - _ROUNDING), 0).astype(np.int64)
    return LabelCounts(counts, certain)


def impact_and_offset(
    client: Callable[[PyTree, jax.Array, jax.Array], PyTree],
    params: PyTree,
    head: Callable[[PyTree], tuple[Any, Any]],
    shape: Sequence[int],
    num_classes: int,
    *,
    draws: int = 10,
    seed: int = 0,
) -> tuple[float, np.ndarray]:
    """Returns the impact and the offset of `label_counts`, measured on rows of noise.

    LLG*, for attackers who know the model and no rows: batches of one label each are sent through
    the model, of x that are normal. The impact is the mean signal of the batches' own classes for
    each row, times 1 + 1 / C; the offset of a class is its mean signal in batches of others.

    Args:
      client: (params, x, y int[B]) -> what would be sent.
      params: Of the model.
      head: (sent) -> (kernel [D, C], bias [C] or None), the gradient of the last layer.
      shape: (B, ...), that of x.
      num_classes: C.
      draws: How many batches of each label.
      seed: Draws them.

    Returns:
      The impact, a float, and float64[C].

    References: arXiv:2105.09369, section 4.

    Example:
      >>> client = lambda w, x, y: (x.T @ (jax.nn.softmax(x @ w) - jax.nn.one_hot(y, 3))) / len(x)
      >>> head = lambda sent: (sent, sent.sum(0))
      >>> impact, offset = impact_and_offset(client, jnp.zeros((4, 3)), head, (2, 4), 3)
      >>> offset.shape
      (3,)
    """
    for name, value in (("num_classes", num_classes), ("draws", draws)):
        checked(name, value, Field(None, int, COUNT))
    if num_classes < 2:
        raise wrong("num_classes", num_classes, "at least 2")
    shape = tuple(shape)

    def signal(x, label):
        sent = client(params, x, jnp.full(shape[0], label))
        kernel, bias = head(sent)
        return kernel.sum(0) if bias is None else bias

    seed = checked("seed", seed, Field(0, int, SEED))
    noise = random.generator(seed, "dummy rows").normal(size=(draws, num_classes, *shape))
    each = jax.jit(jax.vmap(jax.vmap(signal), (0, None)))(
        noise.astype(np.float32), jnp.arange(num_classes)
    )
    mean = np.asarray(each, np.float64).mean(0)  # [label of the batch, class]
    own = np.diag(mean)
    impact = own.mean() / shape[0] * (1 + 1 / num_classes)
    return float(impact), (mean.sum(0) - own) / (num_classes - 1)


def as_gradient(update: PyTree, learning_rate: float, steps: int) -> PyTree:
    """Returns the mean gradient of local training by plain SGD, from the update that it made.

    Where the model moves little, it is near the gradient of the rows at the model that was sent,
    and labels are counted as if it were.

    Args:
      update: The client's parameters less those that it was sent.
      learning_rate: Of the client.
      steps: How many it took.

    Example:
      >>> as_gradient(np.array([-0.2]), learning_rate=0.1, steps=4).tolist()
      [0.5]
    """
    rate = checked("learning_rate", learning_rate, Field(None, float, POSITIVE))
    steps = checked("steps", steps, Field(None, int, COUNT))
    return jax.tree.map(lambda leaf: -leaf / (rate * steps), update)


def _last_layer(kernel: Any, bias: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the gradient of a last layer in float64; raises ValueError for what is none."""
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 2 or kernel.shape[1] < 2:
        raise ValueError(
            f"The last layer's kernel has a gradient of the shape {kernel.shape}, and labels are "
            "inferred from [inputs, classes], of two classes or more: transpose or reshape it."
        )
    if bias is not None:
        bias = np.asarray(bias, np.float64)
        if bias.shape != kernel.shape[1:]:
            raise ValueError(
                f"The bias has a gradient of the shape {bias.shape}, and the kernel has "
                f"{kernel.shape[1]} classes: give [classes]."
            )
    for name, leaf in (("kernel", kernel), ("bias", bias)):
        if leaf is not None and not np.isfinite(leaf).all():
            raise ValueError(f"The gradient of the last layer's {name} is not finite.")
    return kernel, bias

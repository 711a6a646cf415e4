"""Reads rows off the gradient of a dense layer with a bias, without any search.

For the inputs x of a layer x W + b, the gradient of unit i is dW[:, i] = sum_r d_ri x_r and
db[i] = sum_r d_ri over rows r. Where a single row reaches the unit, dW[:, i] / db[i] is that row
(Phong et al. 2018, "Privacy-preserving deep learning via additively homomorphic encryption";
Geiping et al. 2020, arXiv:2003.14053, proposition 3.1); where several do, it is a mixture of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy

from fljax.core.values import POSITIVE, Field, checked

__all__ = ["DenseRows", "dense_row", "dense_rows"]


class DenseRows(NamedTuple):
    """Rows that units of a layer agree on, those of most units first.

    Attributes:
      rows: float64[K, D].
      units: int64[K], how many units say so. A unit alone may hold a mixture; two that agree do so
        because the same single row reaches both, unless their gradients are in proportion for all
        rows, as below a layer of one output.
      spread: float64[K], the largest distance of a unit from the row, as a share of the row's norm:
        0 for a single unit.
    """

    rows: np.ndarray
    units: np.ndarray
    spread: np.ndarray


def dense_row(kernel: Any, bias: Any) -> np.ndarray:
    """Returns the inputs float64[D] of a dense layer that saw a single row.

    All units say the same, and are weighted by the square of their bias's gradient, so that
    rounding counts least.

    Args:
      kernel: float[D, H], the gradient of the kernel.
      bias: float[H], that of the bias. Both may be multiplied by the same number, such as minus the
        learning rate of one step.

    Raises:
      ValueError: For other shapes, and where no unit has a gradient.

    Example:
      >>> dense_row(np.outer([1.0, 4.0], [0.5, 0.0, -2.0]), np.array([0.5, 0.0, -2.0])).tolist()
      [1.0, 4.0]
    """
    kernel, bias = _gradients(kernel, bias)
    largest = np.abs(bias).max(initial=0)
    if not largest:
        raise ValueError(
            "The gradient of the bias is 0 at all units: no row reached the layer, and none can be "
            "read off."
        )
    weights = bias / largest
    return (kernel / largest) @ weights / (weights @ weights)


def dense_rows(
    kernel: Any, bias: Any, *, tolerance: float = 1e-3, least: float = 1e-6
) -> DenseRows:
    """Returns what units of a dense layer say of a batch's rows, with how many agree.

    Args:
      kernel: float[D, H], the gradient of the kernel.
      bias: float[H], that of the bias.
      tolerance: Units agree whose rows are nearer than this share of the norm of either.
      least: Units whose bias has a gradient below this share of the largest say nothing, since
        rounding is all that may be left of it.

    Raises:
      ValueError: For other shapes.

    Example:
      >>> x = np.array([[1.0, 0.0], [0.0, 2.0]])
      >>> reached = np.array([[0.5, 1.0, 0.0, 1.0], [0.0, 0.0, 3.0, 1.0]])  # of rows by units
      >>> found = dense_rows(x.T @ reached, reached.sum(0))
      >>> found.rows.tolist(), found.units.tolist()
      ([[1.0, 0.0], [0.0, 2.0], [0.5, 1.0]], [2, 1, 1])
    """
    kernel, bias = _gradients(kernel, bias)
    checked("tolerance", tolerance, Field(None, float, POSITIVE))
    checked("least", least, Field(None, float, POSITIVE))
    largest = np.abs(bias).max(initial=0)
    speaks = np.abs(bias) > least * largest
    weights = bias[speaks] / (largest or 1)
    said = (kernel[:, speaks] / (largest or 1) / weights).T  # [units, D]
    groups = _agreeing(said, tolerance)
    units = np.bincount(groups)
    totals = np.zeros((len(units), said.shape[1]))
    np.add.at(totals, groups, said * np.square(weights)[:, None])
    rows = totals / np.bincount(groups, np.square(weights))[:, None]
    norms = np.linalg.norm(rows, axis=1)
    apart = np.linalg.norm(said - rows[groups], axis=1)
    spread = np.zeros(len(units))
    np.maximum.at(spread, groups, apart / np.where(norms > 0, norms, 1)[groups])
    order = np.argsort(-units, kind="stable")
    return DenseRows(rows[order], units[order].astype(np.int64), spread[order])


def _agreeing(said: np.ndarray, tolerance: float) -> np.ndarray:
    """Returns int[units], the group of each: those that agree, directly or by way of others."""
    if not len(said):
        return np.zeros(0, np.int64)
    norms = np.linalg.norm(said, axis=1)
    scale = norms.max() or 1.0
    unit, norms = said / scale, norms / scale
    squares = np.square(norms)
    apart = squares[:, None] + squares - 2 * unit @ unit.T
    near = apart <= np.square(tolerance * np.minimum(norms[:, None], norms)) + 1e-15
    return scipy.sparse.csgraph.connected_components(scipy.sparse.csr_array(near))[1]


def _gradients(kernel: Any, bias: Any) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
    if kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
        raise ValueError(
            f"The kernel has a gradient of the shape {kernel.shape}, and the bias {bias.shape}: a "
            "dense layer has [inputs, units] and [units]."
        )
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise ValueError("The gradient of the layer is not finite, and tells nothing of any row.")
    return kernel, bias

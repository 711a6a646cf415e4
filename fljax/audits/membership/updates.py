"""Signals of rows in one update: how much it looks as if a row's gradient were part of it.

A curious server sees the updates of clients, or with secure aggregation their sum alone. A sum of
gradients is nearly orthogonal to the gradient of a row that it does not hold, where parameters are
many (Li et al. 2022, "Effective passive membership inference attacks in federated learning against
overparameterized models", ICLR 2023), so that two numbers tell members:

    cosine                 <u, g> / (|u| |g|)
    gradient difference    |u|^2 - |u - g|^2 = 2 <u, g> - |g|^2

u is the pseudo-gradient, the broadcast model minus the client's, and g the gradient of the row's
loss at the broadcast model. The difference compares lengths: divide u by the learning rate and the
local steps, which makes a mean gradient of it, or multiply by the rows too, which makes their sum.

The other clients' updates are to a client what shadow models without the row are to a model, where
no two clients hold one row (Zhu et al. 2024, arXiv:2402.06289, FedMIA): give them as shadows of
`Observed`, none of them a member, to `lira(online=False, signal="cosine")`.
"""

from __future__ import annotations

import numpy as np


def cosine(inner: np.ndarray, update_norms: np.ndarray, gradient_norms: np.ndarray) -> np.ndarray:
    """Returns the cosine of updates and gradients, a look for each round.

    Args:
      inner: [..., R, T] inner products <u, g> of R updates and the gradients of T rows, u being the
        broadcast model minus the client's; further axes in front are of clients or trials.
      update_norms: [..., R] Euclidean norms of the updates.
      gradient_norms: [..., R, T] of the gradients, each at the model of its round; or [T] where
        they are those of one model.

    Returns:
      float64[..., T, R], from -1 to 1; 0 where an update or a gradient is 0.

    Example:
      >>> cosine(np.array([[6.0, 0.0]]), np.array([2.0]), np.array([[3.0, 5.0]])).tolist()
      [[1.0], [0.0]]
    """
    inner, update_norms, gradient_norms = _wide(inner, update_norms, gradient_norms)
    lengths = update_norms * gradient_norms
    with np.errstate(invalid="ignore"):
        found = np.divide(inner, lengths, out=np.zeros_like(inner), where=lengths != 0)
    return np.swapaxes(found, -1, -2)


def gradient_difference(
    inner: np.ndarray, update_norms: np.ndarray, gradient_norms: np.ndarray
) -> np.ndarray:
    """Returns |u|^2 - |u - g|^2 of updates and gradients, a look for each round.

    Args:
      inner, update_norms, gradient_norms: As for `cosine`. The norms of the updates cancel.

    Returns:
      float64[..., T, R], in squares of the gradients' unit.

    Example:
      >>> looks = gradient_difference(np.array([[6.0]]), np.array([2.0]), np.array([[3.0]]))
      >>> looks.tolist(), 2.0**2 - (2.0 - 3.0) ** 2
      ([[3.0]], 3.0)
    """
    inner, _, gradient_norms = _wide(inner, update_norms, gradient_norms)
    return np.swapaxes(2 * inner - gradient_norms**2, -1, -2)


def _wide(inner: np.ndarray, update_norms: np.ndarray, gradient_norms: np.ndarray) -> list:
    """Returns the arrays in float64, each [..., R, T]; raises ValueError for other shapes."""
    inner = np.asarray(inner, np.float64)
    update_norms = np.asarray(update_norms, np.float64)
    gradient_norms = np.asarray(gradient_norms, np.float64)
    if inner.ndim < 2 or update_norms.shape != inner.shape[:-1]:
        raise ValueError(
            f"inner has shape {list(inner.shape)} and update_norms {list(update_norms.shape)}; "
            "give inner products [..., R, T] of R updates and T rows, and a norm for each update."
        )
    if gradient_norms.shape not in (inner.shape, inner.shape[-2:], inner.shape[-1:]):
        raise ValueError(
            f"gradient_norms have shape {list(gradient_norms.shape)}; give one for each row and "
            f"round, {list(inner.shape[-2:])}, or for each row, {list(inner.shape[-1:])}."
        )
    return list(np.broadcast_arrays(inner, update_norms[..., None], gradient_norms))

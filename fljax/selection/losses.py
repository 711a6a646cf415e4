"""Reads what rounds tell samplers of the clients' losses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fljax.core.values import Field

# What samplers that learn from losses may ask for, see `fljax.core.sampler.Sampler`.
FEEDBACK = Field(None, str, ("delayed", "immediate"))


def mean_losses(statistics: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the clients whose work was kept, and their mean loss over the rows they trained on.

    Args:
      statistics: As `fljax.core.sampler.Sampler.observe` gets them.

    Returns:
      (int64[k] clients, float64[k] losses).

    Example:
      >>> told = {"client": [3, 5], "loss": [6.0, 0.0], "weight": [4.0, 0.0]}
      >>> [part.tolist() for part in mean_losses(told)]
      [[3], [1.5]]
    """
    weight = np.asarray(statistics["weight"], np.float64)
    kept = weight > 0  # of those that were lost, or not finite, all is 0
    losses = np.asarray(statistics["loss"], np.float64)[kept] / weight[kept]
    return np.asarray(statistics["client"], np.int64)[kept], losses

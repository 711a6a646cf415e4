"""Dropout whose random numbers cost little on CPUs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from fljax_kernels import random_words


class Dropout(nnx.Dropout):
    """`nnx.Dropout` with `fljax_kernels.random_words` in place of threefry.

    Threefry takes a twentieth of a CPU's step of the EMNIST CNN. The keys are the same: one of each
    stream, and so of seed, round, client and step; the entries that are dropped are others.
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Returns the inputs, in training each of them zero or divided by the share that is kept.

        Args:
          inputs: float[...].
        """
        if self.deterministic or self.rate == 0:
            return inputs
        if self.rate == 1:
            return jnp.zeros_like(inputs)  # below, its gradient would be infinity times zero
        kept = 1 - self.rate
        words = random_words(self.rngs(), inputs.size).reshape(inputs.shape)
        return jnp.where(words < jnp.uint32(kept * 2**32), inputs / kept, 0)

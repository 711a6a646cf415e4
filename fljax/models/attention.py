"""Blocks of transformers: attention and a perceptron, each behind a normalization.

Everything is a matrix product over [batch, place, width], which XLA computes well in the lanes of
clients; queries, keys and values come of one product. Layers are `nnx.Linear`, so that adapters
(`fljax.models.lora`) find them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from fljax.core.values import DECAY, Field, checked
from fljax.models.dropout import Dropout
from fljax.models.inputs import count

# GPT-2's standard deviation of weights, and epsilon of normalizations
DEVIATION, EPSILON = 0.02, 1e-5
_DROPOUT = Field(0.0, float, DECAY)


class Attention(nnx.Module):
    """Attention of all places to all that they may read: [B, T, width] -> [B, T, width]."""

    def __init__(self, width: int, heads: int, deviation: float, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = dense(width, 3 * width, DEVIATION, rngs)
        self.out = dense(width, width, deviation, rngs)

    def __call__(
        self, x: jax.Array, allowed: jax.Array | None = None, rotary: bool = False
    ) -> jax.Array:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if rotary:
            queries, keys = rotated(queries), rotated(keys)
        scores = jnp.einsum("bihd,bjhd->bhij", queries, keys) * (width // self.heads) ** -0.5
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        if allowed is not None:
            scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores).astype(x.dtype)
        read = jnp.einsum("bhij,bjhd->bihd", weights, values)
        return self.out(read.reshape(batch, length, width))


class Block(nnx.Module):
    """Attention and a perceptron with GELU, both added to what they read behind a normalization.

    The order is that of GPT-2 and of vision transformers ("pre-norm").
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        layers: int,
        rngs: nnx.Rngs,
        *,
        dropout: float = 0.0,
        exact_gelu: bool = False,
        epsilon: float = EPSILON,
    ):
        # Radford et al. (2019): what is added up over 2 layers' worth of branches stays at one size
        deviation = DEVIATION * (2 * layers) ** -0.5
        self.exact_gelu = exact_gelu
        self.norm1 = nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.attention = Attention(width, heads, deviation, rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.up = dense(width, hidden, DEVIATION, rngs)
        self.down = dense(hidden, width, deviation, rngs)
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(
        self, x: jax.Array, allowed: jax.Array | None = None, rotary: bool = False
    ) -> jax.Array:
        x = x + dropped(self.dropout, self.attention(self.norm1(x), allowed, rotary))
        hidden = jax.nn.gelu(self.up(self.norm2(x)), approximate=not self.exact_gelu)
        return x + dropped(self.dropout, self.down(hidden))


def dense(inputs: int, outputs: int, deviation: float, rngs: nnx.Rngs, **options) -> nnx.Linear:
    """Returns a dense layer whose weights are normal with a standard deviation."""
    init = nnx.initializers.normal(deviation)
    return nnx.Linear(inputs, outputs, kernel_init=init, rngs=rngs, **options)


def dropped(dropout: Dropout | None, x: jax.Array) -> jax.Array:
    """Returns x behind a dropout, or as it is where there is none."""
    return x if dropout is None else dropout(x)


def rotated(x: jax.Array) -> jax.Array:
    """Rotates pairs of entries by angles that grow with the place (Su et al., arXiv:2104.09864).

    Entry k goes with entry k + d/2, in the order of GPT-NeoX and Llama.

    Args:
      x: float[B, T, heads, d], d even.
    """
    half = x.shape[-1] // 2
    speeds = 10_000.0 ** (-jnp.arange(half) / half)
    angles = jnp.arange(x.shape[1])[:, None] * speeds
    cos, sin = (f(angles)[:, None, :].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    left, right = x[..., :half], x[..., half:]
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def block_sizes(
    name: str, *, layers: int, heads: int, width: int, hidden: int | None, dropout: float
) -> dict[str, int | float]:
    """Returns the sizes of blocks, checked; hidden units are four times the width if unset.

    Raises:
      ValueError: For sizes that are no whole numbers of at least 1, heads that do not divide the
        width, and a dropout outside of [0, 1).
    """
    sizes = {"layers": layers, "heads": heads, "width": width}
    sizes = {key: count(key, value) for key, value in sizes.items()}
    if width % heads:
        raise ValueError(
            f"{name}: heads = {heads} must divide width = {width}, since each head has an equal "
            f"part of it; {width // heads * heads or heads} would do."
        )
    hidden = 4 * sizes["width"] if hidden is None else count("hidden", hidden)
    return {**sizes, "hidden": hidden, "dropout": checked("dropout", dropout, _DROPOUT)}

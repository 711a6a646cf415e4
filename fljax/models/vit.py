"""A vision transformer: an image is a sequence of patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from fljax.core.values import Field, checked
from fljax.models.attention import DEVIATION, Block, block_sizes, dense, dropped
from fljax.models.dropout import Dropout
from fljax.models.inputs import count, image_shape, shaped

Factory = Callable[[nnx.Rngs], nnx.Module]

# Of the normalizations in Dosovitskiy et al.'s code, and in the weights that are published
_EPSILON = 1e-6
_POOLING = Field("mean", str, ("mean", "token"))


def vit(
    num_classes: int,
    input_shape: Sequence[int] = (32, 32, 3),
    *,
    patch: int = 4,
    layers: int = 6,
    heads: int = 4,
    width: int = 128,
    hidden: int | None = None,
    pooling: str = "mean",
    dropout: float = 0.0,
) -> Factory:
    """Returns a vision transformer (Dosovitskiy et al., arXiv:2010.11929).

    Patches go through one dense layer, get learned positions, and are read by blocks as of `gpt`,
    each place by each. The mean over places takes the place of a class token, as in Beyer et al.
    (arXiv:2205.01580), unless pooling is "token". ViT-B/16: `vit(1000, (224, 224, 3), patch=16,
    layers=12, heads=12, width=768, pooling="token")`, of 86,567,656 parameters.

    Args:
      num_classes: Number of classes.
      input_shape: Height, width and channels of an image.
      patch: Height and width of a patch; it divides those of the image.
      layers: Number of blocks.
      heads: Attention heads of each; they divide the width.
      width: Size of a patch's vector.
      hidden: Hidden units of the perceptron; unset: four times the width.
      pooling: What is classified: the "mean" over places, or a "token" before them.
      dropout: Share of entries that training drops, of embeddings and of what blocks add.

    Raises:
      ValueError: For sizes that do not fit together.

    Example:
      >>> vit = models.vit(10, (8, 8, 1), patch=4, layers=1, width=16)
      >>> model = nnx.eval_shape(lambda: vit(nnx.Rngs(0)))
      >>> model.patches.kernel.shape, model.positions.shape
      ((16, 16), (4, 16))
    """
    patch = count("patch", patch)
    shape = image_shape("vit", input_shape, patch)
    if shape[0] % patch or shape[1] % patch:
        raise ValueError(
            f"vit: patch = {patch} must divide height and width of images, which are {shape[0]} x "
            f"{shape[1]}. Choose another patch, or pad the images."
        )
    sizes = block_sizes(
        "vit", layers=layers, heads=heads, width=width, hidden=hidden, dropout=dropout
    )
    by_token = checked("pooling", pooling, _POOLING) == "token"
    return partial(ViT, count("num_classes", num_classes), shape, patch, by_token, **sizes)


class ViT(nnx.Module):
    """Classifies images by their patches: float[B, H, W, C] -> float[B, classes]."""

    def __init__(
        self,
        num_classes: int,
        shape: Sequence[int],
        patch: int,
        by_token: bool,
        rngs: nnx.Rngs,
        *,
        layers: int,
        heads: int,
        width: int,
        hidden: int,
        dropout: float,
    ):
        self.shape, self.patch, self.by_token = tuple(shape), patch, by_token
        height, breadth, channels = shape
        places = height // patch * (breadth // patch) + by_token
        normal = nnx.initializers.normal(DEVIATION)
        self.patches = dense(
            patch * patch * channels, width, (patch * patch * channels) ** -0.5, rngs
        )
        self.positions = nnx.Param(normal(rngs.params(), (places, width)))
        if by_token:
            self.token = nnx.Param(jnp.zeros(width))
        self.blocks = nnx.List(
            [
                Block(
                    width, heads, hidden, layers, rngs,
                    dropout=dropout, exact_gelu=True, epsilon=_EPSILON,
                )
                for _ in range(layers)
            ]
        )  # fmt: skip
        self.norm = nnx.LayerNorm(width, epsilon=_EPSILON, rngs=rngs)
        self.head = dense(width, num_classes, DEVIATION, rngs)
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.patches(in_patches(shaped(x, *self.shape), self.patch))
        if self.by_token:
            token = jnp.broadcast_to(self.token[...].astype(x.dtype), (len(x), 1, x.shape[-1]))
            x = jnp.concatenate([token, x], axis=1)
        x = dropped(self.dropout, x + self.positions[...])
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.by_token else x.mean(1))


def in_patches(x: jax.Array, patch: int) -> jax.Array:
    """Returns images [B, H, W, C] as patches [B, places, patch * patch * C], row by row.

    Example:
      >>> in_patches(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1]
      Array([2., 3., 6., 7.], dtype=float32)
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)

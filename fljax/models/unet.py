"""A U-Net: a class for each pixel of an image, with group normalization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from fljax.models.convolutional import with_form
from fljax.models.inputs import count, image_shape, shaped
from fljax_kernels import max_pool

Factory = Callable[[nnx.Rngs], nnx.Module]
Shape = Sequence[int]

# He et al. (arXiv:1502.01852)
_KERNEL_INIT = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


def unet(
    num_classes: int = 2,
    input_shape: Shape = (128, 128, 1),
    *,
    width: int = 16,
    depth: int = 3,
    groups: int = 4,
    conv_form: str = "auto",
) -> Factory:
    """Returns the U-Net of Ronneberger et al. (arXiv:1505.04597), with logits of the image's size.

    Each of `depth` stages has two 3x3 convolutions, each with group normalization (see
    `resnet18_gn`) and ReLU, and halves the image; the way back up repeats each pixel four times in
    place of a transposed convolution, which leaves checkerboards (Odena et al., 2016), and reads
    beside that what the stage of the same size had. Convolutions are padded, so that nothing is
    cut off. The original has width 64 and depth 4.

    Args:
      num_classes: Number of classes.
      input_shape: Height, width and channels of an image; 2^depth divides the first two.
      width: Channels of the first stage; each further one has twice as many.
      depth: How often the image is halved.
      groups: Groups of each normalization.
      conv_form: How convolutions are computed; see `with_fast_convolutions`.

    Raises:
      ValueError: If the groups do not divide the width, or 2^depth the image.

    Example:
      >>> model = nnx.eval_shape(lambda: models.unet(2, (32, 32, 1), width=8, depth=2)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      29786
    """
    width, depth, groups = count("width", width), count("depth", depth), count("groups", groups)
    if width % groups:
        raise ValueError(
            f"groups = {groups} must divide width = {width}: each group of channels is normalized "
            "together."
        )
    shape = image_shape("unet", input_shape, 2**depth)
    if any(size % 2**depth for size in shape[:2]):
        raise ValueError(
            f"unet(depth={depth}) halves images {depth} times, and {shape[0]} x {shape[1]} cannot "
            f"be: choose a smaller depth, or pad or crop x to a multiple of {2**depth}."
        )
    factory = partial(UNet, count("num_classes", num_classes), shape, width, depth, groups)
    return with_form(factory, conv_form)


class UNet(nnx.Module):
    """Maps images [B, H, W, C] to logits [B, H, W, classes]."""

    def __init__(
        self,
        num_classes: int,
        input_shape: Shape,
        width: int,
        depth: int,
        groups: int,
        rngs: nnx.Rngs,
    ):
        self.input_shape = input_shape
        widths = [width * 2**stage for stage in range(depth + 1)]
        inputs = [input_shape[-1], *widths]
        self.down = nnx.List([Block(inputs[n], widths[n], groups, rngs) for n in range(depth)])
        self.bottom = Block(widths[-2], widths[-1], groups, rngs)
        self.up = nnx.List([Block(3 * each, each, groups, rngs) for each in reversed(widths[:-1])])
        self.out = nnx.Conv(width, num_classes, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = shaped(x, *self.input_shape)
        beside = []
        for block in self.down:
            x = block(x)
            beside.append(x)
            x = max_pool(x)
        x = self.bottom(x)
        for block in self.up:
            x = block(jnp.concatenate([beside.pop(), _doubled(x)], -1))
        return self.out(x)


class Block(nnx.Module):
    """Two 3x3 convolutions, each with group normalization and ReLU."""

    def __init__(self, inputs: int, outputs: int, groups: int, rngs: nnx.Rngs):
        layer = {"use_bias": False, "kernel_init": _KERNEL_INIT, "rngs": rngs}
        self.conv1 = nnx.Conv(inputs, outputs, (3, 3), **layer)
        self.norm1 = nnx.GroupNorm(outputs, groups, epsilon=1e-5, rngs=rngs)
        self.conv2 = nnx.Conv(outputs, outputs, (3, 3), **layer)
        self.norm2 = nnx.GroupNorm(outputs, groups, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm1(self.conv1(x)))
        return nnx.relu(self.norm2(self.conv2(x)))


def _doubled(x: jax.Array) -> jax.Array:
    """Returns images of twice the size, each pixel four times; its gradient is a sum."""
    size, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (size, height, 2, width, 2, channels))
    return x.reshape(size, 2 * height, 2 * width, channels)

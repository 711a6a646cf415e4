"""A small mobile network: inverted residuals, depthwise convolutions, group normalization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
from flax import nnx

from fljax.core.values import POSITIVE, Field, checked
from fljax.models.convolutional import with_form
from fljax.models.inputs import count, image_shape, shaped
from fljax.models.residual import conv, norm

Factory = Callable[[nnx.Rngs], nnx.Module]
Shape = Sequence[int]

# Of Sandler et al., for images of 32 x 32: (channels, blocks, stride of the first block).
_STAGES = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2))
_EXPANSION = 6
_GROUP = 8


def mobilenet_gn(
    num_classes: int = 10,
    input_shape: Shape = (32, 32, 3),
    *,
    width: float = 1.0,
    conv_form: str = "auto",
) -> Factory:
    """Returns a network like MobileNetV2 for small images, with group in place of batch norm.

    Sandler et al. (arXiv:1801.04381): blocks widen sixfold, convolve each channel by itself, and
    narrow again; with strides for images of 32 x 32 and groups of eight channels. 1,350,250
    parameters for 10 classes.

    Args:
      num_classes: Number of classes.
      input_shape: Height, width and channels of an image; any size that three halvings leave
        something of.
      width: Factor of all channels, which are rounded to multiples of eight.
      conv_form: How convolutions are computed; see `with_fast_convolutions`. Depthwise ones are
        sums of shifted images in all forms but XLA's.

    Raises:
      ValueError: If a size is out of range.

    Example:
      >>> model = nnx.eval_shape(lambda: models.mobilenet_gn(10)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      1350250
    """
    width = checked("width", width, Field(1.0, float, POSITIVE))
    shape = image_shape("mobilenet_gn", input_shape)
    factory = partial(MobileNet, count("num_classes", num_classes), shape, width)
    return with_form(factory, conv_form)


class MobileNet(nnx.Module):
    """A 3x3 convolution, stages of inverted residuals, the mean over places, a dense layer."""

    def __init__(self, num_classes: int, input_shape: Shape, width: float, rngs: nnx.Rngs):
        self.input_shape = input_shape
        channels = _scaled(32, width)
        self.stem = conv(input_shape[-1], channels, 3, rngs=rngs)
        self.norm = norm(channels, channels // _GROUP, rngs)
        blocks = []
        for outputs, repeats, stride in _STAGES:
            outputs = _scaled(outputs, width)
            for place in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, 1 if place else stride, rngs))
                channels = outputs
        self.blocks = nnx.List(blocks)
        self.dense = nnx.Linear(channels, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = shaped(x, *self.input_shape)
        x = nnx.relu6(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((1, 2)))


class InvertedResidual(nnx.Module):
    """Widens, convolves each channel by itself, narrows; added to its input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs):
        wide = inputs * _EXPANSION
        self.widen = conv(inputs, wide, 1, rngs=rngs)
        self.widen_norm = norm(wide, wide // _GROUP, rngs)
        self.depthwise = conv(wide, wide, 3, stride, wide, rngs=rngs)
        self.depthwise_norm = norm(wide, wide // _GROUP, rngs)
        self.narrow = conv(wide, outputs, 1, rngs=rngs)
        self.narrow_norm = norm(outputs, outputs // _GROUP, rngs)
        self.is_residual = stride == 1 and inputs == outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu6(self.widen_norm(self.widen(x)))
        y = nnx.relu6(self.depthwise_norm(self.depthwise(y)))
        y = self.narrow_norm(self.narrow(y))
        return x + y if self.is_residual else y


def _scaled(channels: int, width: float) -> int:
    """Returns so many channels times the width, as a multiple of eight."""
    return max(_GROUP, round(channels * width / _GROUP) * _GROUP)

"""Residual networks for small images, with group normalization.

Batch statistics differ from client to client, and a server that averages them averages what is not
alike. Group normalization (Wu and He, arXiv:1803.08494) normalizes each example by itself: there is
no state to average, and the padding rows of a batch touch nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
from flax import nnx

from fljax.models.convolutional import with_form
from fljax.models.inputs import count, image_shape, shaped

Factory = Callable[[nnx.Rngs], nnx.Module]
Shape = Sequence[int]

# He et al. (arXiv:1502.01852): the variance of gradients stays the same from layer to layer
_KERNEL_INIT = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def resnet18_gn(
    num_classes: int = 100,
    input_shape: Shape = (32, 32, 3),
    *,
    width: int = 64,
    groups: int = 2,
    conv_form: str = "auto",
) -> Factory:
    """Returns ResNet-18 for CIFAR, with group in place of batch normalization.

    He et al. (arXiv:1512.03385) with a 3x3 stem and no max-pooling. Hsieh et al. (arXiv:1910.00189)
    show that batch normalization fails on non-IID clients and group normalization does not; Reddi
    et al. (arXiv:2003.00295) train this model, with two groups, on CIFAR-100. 11,220,132 parameters
    for 100 classes, 11,173,962 for 10.

    Args:
      num_classes: Number of classes.
      input_shape: Height, width and channels of an image; any size that three halvings leave
        something of.
      width: Channels of the first of the four stages; each later stage has twice as many.
      groups: Groups of each normalization.
      conv_form: How convolutions are computed; see `with_fast_convolutions`.

    Raises:
      ValueError: If the groups do not divide the width, or a size is no whole number.

    Example:
      >>> model = nnx.eval_shape(lambda: models.resnet18_gn(100)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      11220132
    """
    width, groups = count("width", width), count("groups", groups)
    if width % groups:
        raise ValueError(
            f"groups = {groups} must divide width = {width}: each group of "
            "channels is normalized together."
        )
    shape = image_shape("resnet18_gn", input_shape)
    factory = partial(ResNet18, count("num_classes", num_classes), shape, width, groups)
    return with_form(factory, conv_form)


class ResNet18(nnx.Module):
    """A 3x3 convolution, four stages of two basic blocks, the mean over places, a dense layer."""

    def __init__(
        self, num_classes: int, input_shape: Shape, width: int, groups: int, rngs: nnx.Rngs
    ):
        self.input_shape = input_shape
        self.stem = _conv(input_shape[-1], width, 3, rngs=rngs)
        self.norm = _norm(width, groups, rngs)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        blocks = []
        for stage, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            blocks += [
                BasicBlock(inputs, outputs, 1 if stage == 0 else 2, groups, rngs),
                BasicBlock(outputs, outputs, 1, groups, rngs),
            ]
        self.blocks = nnx.List(blocks)
        self.dense = nnx.Linear(sizes[-1], num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = shaped(x, *self.input_shape)
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((1, 2)))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut: the identity, or a 1x1 convolution where it must be.

    Each convolution is normalized; the first is followed by ReLU, and so is the sum.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, rngs: nnx.Rngs):
        self.conv1 = _conv(inputs, outputs, 3, stride, rngs=rngs)
        self.norm1 = _norm(outputs, groups, rngs)
        self.conv2 = _conv(outputs, outputs, 3, rngs=rngs)
        self.norm2 = _norm(outputs, groups, rngs)
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut = _conv(inputs, outputs, 1, stride, rngs=rngs)
            self.shortcut_norm = _norm(outputs, groups, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.projects:
            x = self.shortcut_norm(self.shortcut(x))
        return nnx.relu(x + y)


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, *, rngs: nnx.Rngs) -> nnx.Conv:
    """Returns a convolution without bias that pads by half its kernel on every side."""
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=_KERNEL_INIT,
        rngs=rngs,
    )


def _norm(channels: int, groups: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    return nnx.GroupNorm(channels, groups, epsilon=1e-5, rngs=rngs)

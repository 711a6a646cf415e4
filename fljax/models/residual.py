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

from fljax.core.values import NON_NEGATIVE, Field, checked, wrong
from fljax.models.convolutional import with_form
from fljax.models.inputs import count, image_shape, shaped

# depth -> basic blocks of each stage
_STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    **{depth: ((depth - 2) // 6,) * 3 for depth in (20, 32, 44, 56, 110)},
}

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
    _check_groups(groups, width)
    shape = image_shape("resnet18_gn", input_shape)
    sizes = (count("num_classes", num_classes), shape, width, groups)
    return with_form(partial(ResNet, _STAGES[18], *sizes), conv_form)


def resnet_gn(
    num_classes: int = 10,
    input_shape: Shape = (32, 32, 3),
    *,
    depth: int = 20,
    width: int = 0,
    groups: int = 2,
    conv_form: str = "auto",
) -> Factory:
    """Returns a residual network for small images, with group in place of batch normalization.

    He et al. (arXiv:1512.03385): depths 20, 32, 44, 56 and 110 are their networks for CIFAR, three
    stages of (depth - 2) / 6 basic blocks from 16 channels on; 18 and 34 are those of four stages
    from 64 channels on, with a 3x3 stem and no max-pooling. Shortcuts that must be are 1x1
    convolutions. 272,474 parameters at depth 20 for 10 classes.

    Args:
      num_classes: Number of classes.
      input_shape: As for `resnet18_gn`.
      depth: Number of layers: 18, 20, 32, 34, 44, 56 or 110.
      width: Channels of the first stage, each later one has twice as many; 0: 16 or 64, by depth.
      groups: Groups of each normalization.
      conv_form: How convolutions are computed; see `with_fast_convolutions`.

    Raises:
      ValueError: For another depth, or if the groups do not divide the width.

    Example:
      >>> model = nnx.eval_shape(lambda: models.resnet_gn(10, depth=20)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      272474
    """
    if (depth := count("depth", depth)) not in _STAGES:
        raise wrong("depth", depth, f"one of {', '.join(map(str, sorted(_STAGES)))}")
    stages = _STAGES[depth]
    width = checked("width", width, Field(0, int, NON_NEGATIVE)) or (16 if len(stages) == 3 else 64)
    groups = count("groups", groups)
    _check_groups(groups, width)
    shape = image_shape("resnet_gn", input_shape)
    sizes = (count("num_classes", num_classes), shape, width, groups)
    return with_form(partial(ResNet, stages, *sizes), conv_form)


def _check_groups(groups: int, width: int) -> None:
    if width % groups:
        raise ValueError(
            f"groups = {groups} must divide width = {width}: each group of "
            "channels is normalized together."
        )


class ResNet(nnx.Module):
    """A 3x3 convolution, stages of basic blocks, the mean over places, a dense layer."""

    def __init__(
        self,
        stages: Sequence[int],
        num_classes: int,
        input_shape: Shape,
        width: int,
        groups: int,
        rngs: nnx.Rngs,
    ):
        self.input_shape = input_shape
        self.stem = conv(input_shape[-1], width, 3, rngs=rngs)
        self.norm = norm(width, groups, rngs)
        blocks, channels = [], width
        for stage, repeats in enumerate(stages):
            outputs = width * 2**stage
            for place in range(repeats):
                stride = 2 if stage and not place else 1
                blocks.append(BasicBlock(channels, outputs, stride, groups, rngs))
                channels = outputs
        self.blocks = nnx.List(blocks)
        self.dense = nnx.Linear(channels, num_classes, rngs=rngs)

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
        self.conv1 = conv(inputs, outputs, 3, stride, rngs=rngs)
        self.norm1 = norm(outputs, groups, rngs)
        self.conv2 = conv(outputs, outputs, 3, rngs=rngs)
        self.norm2 = norm(outputs, groups, rngs)
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut = conv(inputs, outputs, 1, stride, rngs=rngs)
            self.shortcut_norm = norm(outputs, groups, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.projects:
            x = self.shortcut_norm(self.shortcut(x))
        return nnx.relu(x + y)


def conv(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, *, rngs: nnx.Rngs
) -> nnx.Conv:
    """Returns a convolution without bias that pads by half its kernel on every side."""
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=size // 2,
        feature_group_count=groups,
        use_bias=False,
        kernel_init=_KERNEL_INIT,
        rngs=rngs,
    )


def norm(channels: int, groups: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    return nnx.GroupNorm(channels, groups, epsilon=1e-5, rngs=rngs)

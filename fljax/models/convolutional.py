"""Small convolutional networks for images.

Tasks compute their convolutions from matrix products, as those of all NNX modules; `conv_form` says
how: see `fljax.models.with_fast_convolutions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
from flax import nnx

from fljax.core.fast_layers import FORM, relu_of, with_fast_convolutions
from fljax.core.values import Field, checked
from fljax.models.dropout import Dropout
from fljax.models.initializers import PYTORCH_KERNEL
from fljax.models.inputs import count, image_shape, shaped

Factory = Callable[[nnx.Rngs], nnx.Module]
Shape = Sequence[int]

_PADDING = Field(None, str, allowed=("SAME", "VALID"))
_GLOROT = nnx.initializers.glorot_uniform()


def mcmahan_cnn(
    num_classes: int = 10,
    input_shape: Shape = (28, 28, 1),
    *,
    padding: str = "SAME",
    conv_form: str = "auto",
) -> Factory:
    """Returns the CNN of McMahan et al. (arXiv:1602.05629): 1,663,370 parameters for MNIST.

    Args:
      num_classes: Number of classes.
      input_shape: Height, width and channels of an image.
      padding: Of its convolutions: "SAME", or "VALID", the four-layer CNN of PFLlib
        (arXiv:2312.04992) with 582,026 parameters for MNIST.
      conv_form: How its convolutions are computed; see `fljax.models.with_fast_convolutions`.

    Example:
      >>> model = nnx.eval_shape(lambda: models.mcmahan_cnn(10)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      1663370
    """
    padding = checked("padding", padding, _PADDING)
    shape = image_shape("mcmahan_cnn", input_shape, 4 if padding == "SAME" else 16)
    classes = count("num_classes", num_classes)
    return with_form(partial(McMahanCNN, classes, shape, padding), conv_form)


def emnist_cnn(
    num_classes: int = 62, input_shape: Shape = (28, 28, 1), *, conv_form: str = "auto"
) -> Factory:
    """Returns the EMNIST CNN of Reddi et al. (arXiv:2003.00295): 1,206,590 parameters.

    Example:
      >>> model = nnx.eval_shape(lambda: models.emnist_cnn(62)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      1206590
    """
    shape = image_shape("emnist_cnn", input_shape, 6)
    return with_form(partial(EmnistCNN, count("num_classes", num_classes), shape), conv_form)


def pfl_cifar10_cnn(
    num_classes: int = 10, input_shape: Shape = (32, 32, 3), *, conv_form: str = "auto"
) -> Factory:
    """Returns the CIFAR-10 CNN of pfl-research (arXiv:2404.06430): 1,626,442 parameters.

    It is the EMNIST CNN on color images.

    Example:
      >>> model = nnx.eval_shape(lambda: models.pfl_cifar10_cnn(10)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      1626442
    """
    return emnist_cnn(num_classes, input_shape, conv_form=conv_form)


def lenet_cnn(
    num_classes: int = 10, input_shape: Shape = (32, 32, 3), *, conv_form: str = "auto"
) -> Factory:
    """Returns the CNN of NIID-Bench (arXiv:2102.02079).

    62,006 parameters for CIFAR-10, 44,426 for images of 28 x 28 in one channel.

    Example:
      >>> model = nnx.eval_shape(lambda: models.lenet_cnn(10)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      62006
    """
    shape = image_shape("lenet_cnn", input_shape, 16)
    return with_form(partial(LeNet, count("num_classes", num_classes), shape), conv_form)


def with_form(factory: Factory, conv_form: str) -> Factory:
    """Returns a model whose convolutions are computed in a form; with "auto", the task chooses."""
    if checked("conv_form", conv_form, FORM) == "auto":
        return factory
    return with_fast_convolutions(factory, conv_form)


class McMahanCNN(nnx.Module):
    """5x5 convolutions of 32 and 64 filters, each pooled, then 512 hidden units."""

    def __init__(self, num_classes: int, input_shape: Shape, padding: str, rngs: nnx.Rngs):
        height, width, channels = self.input_shape = input_shape
        layer = {"kernel_init": _GLOROT, "rngs": rngs}
        self.conv1 = nnx.Conv(channels, 32, (5, 5), padding=padding, **layer)
        self.conv2 = nnx.Conv(32, 64, (5, 5), padding=padding, **layer)
        # 4 pixels less on each convolution without padding, half of them behind each pooling
        left = [(size if padding == "SAME" else size - 12) // 4 for size in (height, width)]
        self.dense1 = nnx.Linear(left[0] * left[1] * 64, 512, **layer)
        self.dense2 = nnx.Linear(512, num_classes, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = shaped(x, *self.input_shape)
        x = relu_of(self.conv1, x, pool=True)
        x = relu_of(self.conv2, x, pool=True)
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
        return self.dense2(x)


class EmnistCNN(nnx.Module):
    """3x3 convolutions of 32 and 64 filters without padding, pooled once, then 128 hidden units."""

    def __init__(self, num_classes: int, input_shape: Shape, rngs: nnx.Rngs):
        height, width, channels = self.input_shape = input_shape
        layer = {"kernel_init": _GLOROT, "rngs": rngs}
        self.conv1 = nnx.Conv(channels, 32, (3, 3), padding="VALID", **layer)
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", **layer)
        self.dropout1 = Dropout(0.25, rngs=rngs)
        self.dense1 = nnx.Linear(((height - 4) // 2) * ((width - 4) // 2) * 64, 128, **layer)
        self.dropout2 = Dropout(0.5, rngs=rngs)
        self.dense2 = nnx.Linear(128, num_classes, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = shaped(x, *self.input_shape)
        x = relu_of(self.conv1, x)
        x = self.dropout1(relu_of(self.conv2, x, pool=True))
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
        return self.dense2(self.dropout2(x))


class LeNet(nnx.Module):
    """5x5 convolutions of 6 and 16 filters without padding, each pooled, then 120 and 84 units.

    Weights begin as PyTorch's, biases at zero.
    """

    def __init__(self, num_classes: int, input_shape: Shape, rngs: nnx.Rngs):
        height, width, channels = self.input_shape = input_shape
        height, width = (((size - 4) // 2 - 4) // 2 for size in (height, width))
        layer = {"kernel_init": PYTORCH_KERNEL, "rngs": rngs}
        self.conv1 = nnx.Conv(channels, 6, (5, 5), padding="VALID", **layer)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding="VALID", **layer)
        self.dense1 = nnx.Linear(height * width * 16, 120, **layer)
        self.dense2 = nnx.Linear(120, 84, **layer)
        self.dense3 = nnx.Linear(84, num_classes, **layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = shaped(x, *self.input_shape)
        x = relu_of(self.conv1, x, pool=True)
        x = relu_of(self.conv2, x, pool=True)
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
        return self.dense3(nnx.relu(self.dense2(x)))

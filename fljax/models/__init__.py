"""The field's usual models, as Flax NNX modules.

Each function returns a factory `(nnx.Rngs) -> nnx.Module`, which `fljax.tasks.classification` and
`next_token` take as it is. `make` builds one from its name, for configurations.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

from flax import nnx

from fljax.core.names import unknown
from fljax.models.convolutional import emnist_cnn, lenet_cnn, mcmahan_cnn, pfl_cifar10_cnn
from fljax.models.dense import mlp, softmax_regression
from fljax.models.fast import with_fast_convolutions
from fljax.models.inputs import counts
from fljax.models.recurrent import char_lstm
from fljax.models.residual import resnet18_gn

__all__ = [
    "MODELS",
    "char_lstm",
    "emnist_cnn",
    "lenet_cnn",
    "make",
    "mcmahan_cnn",
    "mlp",
    "pfl_cifar10_cnn",
    "resnet18_gn",
    "softmax_regression",
    "with_fast_convolutions",
]

Factory = Callable[[nnx.Rngs], nnx.Module]


def _softmax(num_classes: int, input_shape: Sequence[int]) -> Factory:
    return softmax_regression(math.prod(input_shape), num_classes)


def _mlp(
    num_classes: int, input_shape: Sequence[int], *, hidden: Sequence[int] = (200, 200)
) -> Factory:
    return mlp((math.prod(input_shape), *counts("hidden", hidden), num_classes))


def _char_lstm(
    num_classes: int,
    input_shape: Sequence[int],
    *,
    embedding: int = 8,
    hidden: int = 256,
    layers: int = 2,
) -> Factory:
    del input_shape  # any sequence length
    return char_lstm(num_classes, embedding=embedding, hidden=hidden, layers=layers)


# name -> function (num_classes, input_shape, **options) -> factory
MODELS: dict[str, Callable[..., Factory]] = {
    "softmax_regression": _softmax,
    "mlp": _mlp,
    "mcmahan_cnn": mcmahan_cnn,
    "emnist_cnn": emnist_cnn,
    "pfl_cifar10_cnn": pfl_cifar10_cnn,
    "lenet_cnn": lenet_cnn,
    "resnet18_gn": resnet18_gn,
    "char_lstm": _char_lstm,
}


def make(name: str, num_classes: int, input_shape: Sequence[int], **options) -> Factory:
    """Returns a model by name.

    Args:
      name: One of `MODELS`.
      num_classes: Number of classes, or size of the vocabulary.
      input_shape: Shape of one example.
      **options: Those of the model, such as hidden=(100,) for "mlp".

    Raises:
      ValueError: For an unknown name or option.

    Example:
      >>> model = models.make('mlp', num_classes=10, input_shape=(8, 8, 1), hidden=(32,))
      >>> model(nnx.Rngs(0))(jnp.zeros((2, 8, 8, 1))).shape
      (2, 10)
    """
    if not isinstance(name, str) or name not in MODELS:
        raise ValueError(unknown("model", name, MODELS))
    known = list(inspect.signature(MODELS[name]).parameters)[2:]
    for option in options:
        if option not in known:
            raise ValueError(unknown(f"option of the model {name}", option, known))
    return MODELS[name](num_classes, counts("input_shape", input_shape), **options)

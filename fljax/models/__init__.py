"""The field's usual models, as Flax NNX modules.

Each function returns a factory `(nnx.Rngs) -> nnx.Module`, which `fljax.tasks.classification` and
`next_token` take as it is. `make` builds one from its name, for configurations.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flax import nnx

from fljax.core import parts
from fljax.core.fast_layers import with_fast_convolutions
from fljax.core.lora import lora, merged
from fljax.core.network import Network, check_model
from fljax.core.task import Task
from fljax.core.values import COUNT, Field, checked, shown
from fljax.core.weights import with_weights
from fljax.models.convolutional import emnist_cnn, lenet_cnn, mcmahan_cnn, pfl_cifar10_cnn
from fljax.models.dense import mlp, softmax_regression
from fljax.models.factorization import matrix_factorization
from fljax.models.gru import char_gru, gru_classifier
from fljax.models.initializers import pytorch_init
from fljax.models.inputs import counts
from fljax.models.mobile import mobilenet_gn
from fljax.models.preparation import ADAPTERS, prepared
from fljax.models.recurrent import char_lstm
from fljax.models.residual import resnet18_gn, resnet_gn
from fljax.models.transformer import gpt, transformer_encoder
from fljax.models.unet import unet
from fljax.models.vit import vit

__all__ = [
    "ADAPTERS",
    "MODELS",
    "char_gru",
    "char_lstm",
    "emnist_cnn",
    "gpt",
    "gru_classifier",
    "lenet_cnn",
    "lora",
    "make",
    "matrix_factorization",
    "mcmahan_cnn",
    "merged",
    "mlp",
    "mobilenet_gn",
    "pfl_cifar10_cnn",
    "prepared",
    "pytorch_init",
    "resnet18_gn",
    "resnet_gn",
    "softmax_regression",
    "transformer_encoder",
    "unet",
    "vit",
    "with_fast_convolutions",
    "with_weights",
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
    lstm_form: str = "auto",
) -> Factory:
    del input_shape  # any sequence length
    sizes = {"embedding": embedding, "hidden": hidden, "layers": layers}
    return char_lstm(num_classes, **sizes, lstm_form=lstm_form)


def _char_gru(
    num_classes: int,
    input_shape: Sequence[int],
    *,
    embedding: int = 8,
    hidden: int = 256,
    layers: int = 2,
) -> Factory:
    del input_shape  # any sequence length
    return char_gru(num_classes, embedding=embedding, hidden=hidden, layers=layers)


def _matrix_factorization(
    num_classes: int,
    input_shape: Sequence[int],
    *,
    num_items: int | None = None,
    dim: int = 16,
    user: str = "personal",
) -> Factory:
    del input_shape  # any number of items
    return matrix_factorization(num_classes if num_items is None else num_items, dim, user=user)


# name -> function (num_classes, input_shape, **options) -> factory
MODELS: dict[str, Callable[..., Factory]] = {
    "softmax_regression": _softmax,
    "logistic": _softmax,
    "mlp": _mlp,
    "mcmahan_cnn": mcmahan_cnn,
    "emnist_cnn": emnist_cnn,
    "pfl_cifar10_cnn": pfl_cifar10_cnn,
    "lenet_cnn": lenet_cnn,
    "resnet18_gn": resnet18_gn,
    "resnet_gn": resnet_gn,
    "mobilenet_gn": mobilenet_gn,
    "char_lstm": _char_lstm,
    "char_gru": _char_gru,
    "gru_classifier": gru_classifier,
    "unet": unet,
    "matrix_factorization": _matrix_factorization,
    "gpt": gpt,
    "transformer_encoder": transformer_encoder,
    "vit": vit,
}


def make(name: str, num_classes: int, input_shape: Sequence[int], **options) -> Any:
    """Returns a model by name.

    Args:
      name: One of `MODELS`, a call of one, or "module:function" of your own, which gets those of
        `num_classes` and `input_shape` that it names and returns a model as `fljax.simulate` takes
        it. One that names `rngs`, such as the class of a module, is the model itself.
      num_classes: Number of classes, size of the vocabulary, or of whatever outputs the task wants.
      input_shape: Shape of one example.
      **options: Those of the model, such as hidden=(100,) for "mlp".

    Raises:
      ValueError: For an unknown name or option.

    Example:
      >>> model = models.make('mlp(hidden=[32])', num_classes=10, input_shape=(8, 8, 1))
      >>> model(nnx.Rngs(0))(jnp.zeros((2, 8, 8, 1))).shape
      (2, 10)
    """
    return named(name, num_classes, input_shape, options)


def named(
    name: str, num_classes: int, input_shape: Sequence[int], options: Mapping[str, Any]
) -> Any:
    """Returns a model by name, as `make` does, whatever its options are called."""
    call = parts.read_one("model", name, MODELS)
    if num_classes is None and not call.is_own:
        raise ValueError(
            f"model = {name!r} has an output for each class, and these data have none: give a "
            "model of your own, my_module:my_model, and a task of your own; or name a task that "
            "says how many outputs it wants, such as task = 'regression'."
        )
    if num_classes is not None:
        num_classes = checked("num_classes", num_classes, Field(None, int, COUNT))
    offered = {"num_classes": num_classes, "input_shape": counts("input_shape", input_shape)}
    found = parts.parameters_of(call.function)
    parameters = {parameter.name: parameter for parameter in found}
    if call.is_own and parameters.pop("rngs", None):
        call = call._replace(function=_factories_of(call, parameters.values()))
    model = parts.make(
        call, offered=offered, given=options, said=dict.fromkeys(offered, "the data")
    )
    return _checked_own(call, model) if call.is_own else model


def _factories_of(call: parts.Call, parameters: Iterable[inspect.Parameter]) -> Callable:
    """Returns a function of these parameters that leaves `rngs` to be given."""

    def make(**arguments):
        return lambda rngs: parts.called(call, call.function, {**arguments, "rngs": rngs})

    factory: Any = make
    factory.__signature__ = inspect.Signature(list(parameters))
    return factory


def _checked_own(call: parts.Call, model: Any) -> Any:
    """Returns the model that a function of the user's returned, whose errors name its text.

    Raises:
      FailedCall: For what is no model.
    """
    if isinstance(model, Task):
        return model
    try:
        check_model(model)
    except TypeError as error:
        raise parts.FailedCall(
            f"{call.where}: {call.name} returned {shown(model)} ({type(model).__name__}). {error}"
        ) from None
    if not callable(model) or isinstance(model, nnx.Module | Network):
        return model

    def factory(rngs):
        module = parts.called(call, lambda: model(rngs), {})
        if not isinstance(module, nnx.Module):
            raise parts.FailedCall(
                f"{call.where}: {call.name} gives {shown(module)} ({type(module).__name__}) where "
                "it is called with nnx.Rngs, and a model is an nnx.Module."
            )
        return module

    return factory

"""Prepares a model for a run by what its options say: first weights of a file, and adapters."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fljax.core import parts
from fljax.core.lora import lora
from fljax.core.network import as_network, check_model
from fljax.core.values import checked_path, shown
from fljax.core.weights import with_weights

# name -> function (model, fast_layers, **options) -> model
ADAPTERS: dict[str, Callable[..., Any]] = {"lora": lora}


def prepared(
    model: Any,
    *,
    init_from: str | os.PathLike | None = None,
    adapters: str | None = None,
    fast_layers: bool = True,
) -> Any:
    """Returns a model that starts from a file, and whose adapters alone are trained.

    Args:
      model: As `fljax.tasks.classification` takes it.
      init_from: A safetensors file; see `with_weights`.
      adapters: One of `ADAPTERS` or a call of one, such as "lora(rank=8)", or "module:function" of
        your own, which gets the model and returns one.
      fast_layers: As for `fljax.tasks.from_nnx`.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: For weights that are not those of the model, and adapters that are none.

    Example:
      >>> network = models.prepared(models.mlp((64, 10)), adapters="lora(rank=2)")
      >>> params, *_ = jax.eval_shape(network.init, jax.random.key(0))
      >>> jax.tree.map(jnp.shape, params)
      {'layers': {'0': {'dot_general': {'a': (64, 2), 'b': (2, 10)}}}}
    """
    if init_from is not None:
        model = with_weights(model, checked_path("init_from", init_from))
    if adapters is not None:
        call = parts.read_one("adapters", adapters, ADAPTERS)
        offered = {"model": model, "fast_layers": fast_layers}
        said = {"model": "the run", "fast_layers": "the run"}
        model = parts.make(call, offered=offered, said=said)
        _check(call, model)
    return model if fast_layers else as_network(model, fast_layers=False)


def _check(call: parts.Call, model: Any) -> None:
    try:
        check_model(model)
    except TypeError as error:
        raise parts.FailedCall(
            f"{call.where}: {call.name} returned {shown(model)} ({type(model).__name__}). {error}"
        ) from None

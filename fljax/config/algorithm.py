"""The algorithm of a configuration, with its own defaults where the configuration sets nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import optax

from fljax import algorithms
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.settings import ALGORITHM, has_effect

_FUNCTIONS: dict[str, Callable[..., AlgorithmSpec]] = {
    "fedavg": functools.partial(algorithms.fedopt, server_optimizer="sgd"),
    "fedsgd": algorithms.fedsgd,
    "fedprox": algorithms.fedprox,
    "scaffold": algorithms.scaffold,
    "fedopt": algorithms.fedopt,
}


def make_algorithm(config: Mapping[str, Any]) -> AlgorithmSpec:
    """Returns the configured algorithm with its hyperparameters.

    Args:
      config: Values of all keys; of those that have an effect, None stands for the algorithm's own.
    """
    given = _given(config)
    if "client_weight_decay" in given:
        given["client_optimizer"] = _with_weight_decay("client_momentum" in given)
    return _FUNCTIONS[config["algorithm"]](**given)


def own_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of all keys, those of the algorithm as it counts them."""
    given, hparams = _given(config), make_algorithm(config).hparams
    counted = {name: hparams.get(name, given.get(name)) for name in ALGORITHM}
    return {
        name: counted[name] if value is None and name in counted else value
        for name, value in config.items()
    }


def _given(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of the algorithm's function: what is set, else what it has itself."""
    parameters = inspect.signature(_FUNCTIONS[config["algorithm"]]).parameters
    own = {name: one.default for name, one in parameters.items() if name in ALGORITHM}
    known = {name: own.get(name) if config[name] is None else config[name] for name in ALGORITHM}
    return {
        name: known[name]
        for name in ALGORITHM
        if name != "algorithm" and known[name] is not None and has_effect(name, known)
    }


def _with_weight_decay(momentum: bool) -> Callable[[Mapping[str, Any]], Any]:
    """Returns the clients' SGD with weight decay added to the gradient, as PyTorch's does."""

    def optimizer(hp):
        sgd = optax.sgd(hp["client_lr"], momentum=hp["client_momentum"] if momentum else None)
        return optax.chain(optax.add_decayed_weights(hp["client_weight_decay"]), sgd)

    return optimizer

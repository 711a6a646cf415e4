"""Makes the algorithm of a configuration, with its own defaults where nothing is set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fljax import algorithms
from fljax.core import parts
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.contradictions import has_effect
from fljax.core.settings import ALGORITHM


def make_algorithm(config: Mapping[str, Any]) -> AlgorithmSpec:
    """Returns the configured algorithm with its hyperparameters.

    Args:
      config: Values of all keys; of those that have an effect, None stands for the algorithm's own.

    Raises:
      ValueError: For an unknown algorithm, or keys that one of the user's own does not name.
    """
    known = _known(config)
    given = {
        name: config[name]
        for name in ALGORITHM
        if name != "algorithm" and config[name] is not None and has_effect(name, known)
    }
    return algorithms.named(config["algorithm"], given)


def own_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of all keys, those of the algorithm as it counts them."""
    hparams, known = make_algorithm(config).hparams, _known(config)
    counted = {name: value for name, value in known.items() if has_effect(name, known)}
    call = parts.read_one("algorithm", config["algorithm"], algorithms.ALGORITHMS)
    # one of the user's own may hand on numbers that it does not take
    named = {parameter.name for parameter in parts.parameters_of(call.function)}
    takes = ALGORITHM.keys() & named if call.is_own else ALGORITHM.keys()
    counted |= {name: value for name, value in hparams.items() if name in takes}
    return {
        name: counted.get(name) if value is None and name in ALGORITHM else value
        for name, value in config.items()
    }


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the algorithm's own keys: what is written, else what is set, else its defaults."""
    call = parts.read_one("algorithm", config["algorithm"], algorithms.ALGORITHMS)
    own = parts.defaults_of(call.function)
    set_here = {name: config[name] for name in ALGORITHM if config[name] is not None}
    known = {**own, **set_here, **parts.written(call)}
    return {name: known[name] for name in ALGORITHM if known.get(name) is not None}

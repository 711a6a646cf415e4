"""Makes the samplers that texts in a configuration name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fljax.core import parts
from fljax.core.sampler import Sampler, poisson, separated, uniform
from fljax.core.values import shown
from fljax.selection.by_size import by_size
from fljax.selection.clustered import clustered
from fljax.selection.divfl import divfl
from fljax.selection.fedcs import fedcs
from fljax.selection.growth import grown
from fljax.selection.importance import importance
from fljax.selection.oort import oort
from fljax.selection.power_of_choice import rpow_d

__all__ = ["MEANS", "SAMPLERS", "check_name", "make"]

# name -> function (num_clients, clients_per_round, seed, what else is offered) -> Sampler
SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "uniform": uniform,
    "poisson": poisson,
    "separated": separated,
    "by_size": by_size,
    "importance": importance,
    "clustered": clustered,
    "rpow_d": rpow_d,
    "oort": oort,
    "fedcs": fedcs,
    "divfl": divfl,
    "grown": grown,
}
# Samplers whose cohorts have a mean size, which may be any number.
MEANS = ("poisson", "separated")
# What runs may know of their clients, and where they have it from.
_SOURCES = {
    "labels": "the label counts of a data set with classes",
    "durations": "the devices of the clients",
    "compute_seconds": "the devices of the clients",
    "upload_seconds": "the devices of the clients",
}
_OFFERED = ("num_clients", "clients_per_round", "seed", "sizes", *_SOURCES)


def check_name(name: str, separation: int | None = None) -> None:
    """Raises ValueError for a text that names no sampler, or arguments that it does not have.

    Example:
      >>> check_name("uniform")
    """
    call = parts.read_one("sampler", name, SAMPLERS)
    parts.bound(call, offered=dict.fromkeys(_OFFERED), given=_given(separation))


def _given(separation: int | None) -> dict[str, int]:
    return {} if separation is None else {"separation": separation}


def make(
    name: str,
    num_clients: int,
    clients_per_round: float,
    seed: int,
    sizes: np.ndarray,
    separation: int | None = None,
    *,
    labels: np.ndarray | None = None,
    durations: np.ndarray | None = None,
    compute_seconds: np.ndarray | None = None,
    upload_seconds: np.ndarray | None = None,
) -> Sampler:
    """Returns a sampler by name.

    Args:
      name: One of `SAMPLERS`, a call of one, or "module:function" of your own, which gets those of
        the arguments below that it names and returns a Sampler.
      num_clients: Size of the population.
      clients_per_round: Size of a cohort, or its mean.
      seed: Of the run.
      sizes: int64[N] training rows of each client.
      separation: Of samplers that keep one; None is their default.
      labels: int64[N, classes] rows of each label, or None where there are none.
      durations: float64[N] planned seconds of a job, or None without a clock.
      compute_seconds: float64[N] those of them until a client has trained, or None.
      upload_seconds: float64[N] those of them that it sends for, or None.

    Raises:
      ValueError: For an unknown name or argument, for a sampler that asks for what the run does not
        know, or where a function of your own returns something else.

    Example:
      >>> make("uniform", 10, 3, 0, np.ones(10, int)).max_cohort
      3
    """
    call = parts.read_one("sampler", name, SAMPLERS)
    values = (
        *(num_clients, clients_per_round, seed, sizes),
        *(labels, durations, compute_seconds, upload_seconds),
    )
    offered: dict[str, Any] = dict(zip(_OFFERED, values, strict=True))
    for parameter in parts.parameters_of(call.function):
        source = _SOURCES.get(parameter.name)
        if source and offered[parameter.name] is None and parameter.default is parameter.empty:
            raise ValueError(
                f"{call.where}: {call.name} needs {parameter.name}, which come from {source}, and "
                "this run has none. Give it some, or choose another sampler."
            )
    sampler = parts.make(call, offered=offered, given=_given(separation))
    if not isinstance(sampler, Sampler):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(sampler)} ({type(sampler).__name__}), and "
            "a sampler is a fljax.core.sampler.Sampler."
        )
    return sampler

"""HeteroFL: each client trains the first units of every layer, as many as its device can.

Diao, Ding and Tarokh 2021, "HeteroFL: computation and communication efficient federated learning
for heterogeneous clients" (arXiv:2010.01264). With rates r_1 = 1 > r_2 > ..., FedAvg changes in

    client of rate r    holds the first ceil(r n) of the n units of each hidden layer
    its training        divides what these layers make by r / r_1 (the scaler); not so when judged
    server              each number is the mean over the clients that hold it

Inputs and outputs are whole. In training, batch normalization takes the statistics of the batch.
The paper's static one keeps none meanwhile, and asks all clients once, after training, for those of
the whole model, which judge it; `static_norm` asks the cohort in each round. Without it the mean of
what clients keep of their own parts judges the model, which has other statistics. The paper's
masked cross entropy, for clients without some of the labels, is not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.algorithms.levels import levels_of, rates_of
from fljax.algorithms.sub_models import Extraction, Held, narrowed, of_widths, sub_models
from fljax.core.algorithm import AlgorithmSpec, Job, Variables
from fljax.core.gradients import LocalTask
from fljax.core.hidden_units import hidden_units
from fljax.core.values import Field, checked

Rates = str | Sequence[float]


def heterofl(
    rates: Rates = "1, 0.5, 0.25, 0.125, 0.0625",
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    shares: Rates | None = None,
    levels: Any = None,
    dynamic: bool = False,
    level_seed: int = 0,
    scaler: bool = True,
    static_norm: bool = False,
    weighting: str = "uniform",
    **options,
) -> AlgorithmSpec:
    """Returns HeteroFL.

    Args:
      rates: Shares of a layer's units, one for each level of clients: numbers, or a text of some.
        The largest is that of the model which is judged.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      shares: Shares of the clients that have each level, by their ratios; None for equal ones.
      levels: int[N] level of each client, in place of a draw.
      dynamic: Whether levels are drawn in each round anew.
      level_seed: Of the draw that is once for all.
      scaler: Whether hidden layers are divided by the rate in training.
      static_norm: Whether statistics of batch normalization come from a second pass over the
        cohort's rows, in which it receives the whole model anew: `train/loss` is then that
        model's.
      weighting: "uniform", as in the paper, or "examples".
      **options: Further arguments of `fedavg`.

    Raises:
      ValueError: If a rate is not above 0 and at most 1, or levels are not those of the rates.

    Example:
      >>> algorithms.heterofl("1, 0.5", client_lr=0.05).name
      'heterofl'
    """
    rates = rates_of(rates)
    who = levels_of(len(rates), levels, shares, dynamic, level_seed)
    options["weighting"] = weighting

    def extraction(task: LocalTask, variables: Variables) -> Extraction:
        units, level_of = hidden_units(task, variables), who.of(task)
        largest = max(rates)
        scales = [largest / rate for rate in rates] if scaler else None

        def held(job: Job) -> Held:
            level = level_of(job)
            scale = None if scales is None else jnp.asarray(scales)[level]
            return of_widths(units, lambda n: units_of(rates, n)[level], scale=scale)

        def whole(variables: Variables) -> Variables:
            biggest = of_widths(units, lambda n: jnp.asarray(math.ceil(largest * n)))
            return narrowed(biggest, variables)

        return Extraction(held, whole=None if largest == 1 else whole)

    return sub_models(
        "heterofl",
        extraction,
        client_lr,
        server_lr,
        options,
        all_whole=min(rates) == 1,
        static_norm=checked("static_norm", static_norm, Field(False, bool)),
    )


def units_of(rates: Sequence[float], n: int) -> jax.Array:
    """Returns int32[L], how many of n units each rate keeps, rounded up.

    Example:
      >>> units_of((1.0, 0.3), 10).tolist()
      [10, 3]
    """
    # 0.3 x 10 is 3 and not what is a rounding error above it
    return jnp.asarray([math.ceil(np.round(rate * n, 9)) for rate in rates], jnp.int32)

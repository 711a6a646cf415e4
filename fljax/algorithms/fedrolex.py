"""FedRolex: HeteroFL whose window of units rolls on, so that all of them are trained.

Alam et al. 2022, "FedRolex: model-heterogeneous federated learning with rolling sub-model
extraction" (arXiv:2212.01548). In round j, from 0 on,

    client of rate r    holds the floor(r n) units of each hidden layer from j mod n on, round the
                        end, and one at least

and what follows is as in HeteroFL, without its scaler. The authors' code rounds up, and scales.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from fljax.algorithms.heterofl import Rates
from fljax.algorithms.levels import levels_of, rates_of
from fljax.algorithms.sub_models import Extraction, Held, of_widths, sub_models
from fljax.core.algorithm import AlgorithmSpec, Job, Variables
from fljax.core.gradients import LocalTask
from fljax.core.hidden_units import hidden_units


def fedrolex(
    rates: Rates = "1, 0.5, 0.25, 0.125, 0.0625",
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    shares: Rates | None = None,
    levels: Any = None,
    dynamic: bool = False,
    level_seed: int = 0,
    scaler: bool = False,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedRolex.

    Args:
      rates: Shares of a layer's units, one for each level of clients. The largest may be below 1:
        the server's model is then larger than any client's.
      client_lr, server_lr, shares, levels, dynamic, level_seed, weighting: As of HeteroFL.
      scaler: Whether hidden layers are divided by the rate in training.
      **options: Further arguments of `fedavg`.

    Example:
      >>> algorithms.fedrolex("0.5, 0.25", client_lr=0.05).name
      'fedrolex'
    """
    rates = rates_of(rates)
    who = levels_of(len(rates), levels, shares, dynamic, level_seed)
    options["weighting"] = weighting

    def extraction(task: LocalTask, variables: Variables) -> Extraction:
        units, level_of = hidden_units(task, variables), who.of(task)

        def held(job: Job) -> Held:
            level = level_of(job)
            scale = 1 / jnp.asarray(rates)[level] if scaler else None
            counts = lambda n: jnp.asarray(_counts(rates, n))[level]  # noqa: E731
            return of_widths(units, counts, lambda n: job.round % n, scale)

        return Extraction(held)

    return sub_models(
        "fedrolex", extraction, client_lr, server_lr, options, all_whole=min(rates) == 1
    )


def _counts(rates: tuple[float, ...], n: int) -> list[int]:
    # 0.3 x 10 is 3 and not what is a rounding error below it
    return [max(1, math.floor(np.round(rate * n, 9))) for rate in rates]

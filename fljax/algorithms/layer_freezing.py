"""Layer freezing: weak clients train some layers of the model, and hold the others as they are.

As in CoCoFL (Pfeiffer et al. 2022, arXiv:2203.05468), without its quantization of what is frozen,
and with the layers of each level of clients said beforehand, not drawn. FedAvg changes in

    client of a level   receives all, and trains, sends the layers of its level
    server              each layer is the mean over the clients that train it

so that backward passes, optimizer states and the uplink shrink, and forward passes do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fljax.algorithms.heterofl import Rates
from fljax.algorithms.levels import levels_of
from fljax.algorithms.sub_models import Extraction, Held, sub_models
from fljax.core.algorithm import AlgorithmSpec, Job, Variables
from fljax.core.gradients import LocalTask
from fljax.core.personal import Filter, check_filter, chosen
from fljax.core.values import sequence


def layer_freezing(
    trained: str | Sequence[Filter] = "all; head",
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    shares: Rates | None = None,
    levels: Any = None,
    dynamic: bool = False,
    level_seed: int = 0,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedAvg with frozen layers.

    Args:
      trained: What clients of each level train, filters as in `fljax.core.personal`; as a text,
        with semicolons between the levels.
      client_lr, server_lr, shares, levels, dynamic, level_seed, weighting: As of HeteroFL.
      **options: Further arguments of `fedavg`.

    Raises:
      ValueError: If a filter is none, or means nothing in the model.

    Example:
      >>> algorithms.layer_freezing("all; head; layers/0", client_lr=0.05).name
      'layer_freezing'
    """
    if isinstance(trained, str):
        trained = [text.strip() for text in trained.split(";")]
    filters = list(sequence("trained", trained, "filters, one for each level of clients"))
    for number, part in enumerate(filters):
        check_filter(f"trained[{number}]", part)
    who = levels_of(len(filters), levels, shares, dynamic, level_seed)
    options["weighting"] = weighting

    def extraction(task: LocalTask, variables: Variables) -> Extraction:
        level_of = who.of(task)
        masks = [chosen(f"trained[{n}]", part, task, variables) for n, part in enumerate(filters)]

        def held(job: Job) -> Held:
            level = level_of(job)
            return Held(*jax.tree.map(lambda *leaf: jnp.asarray(leaf)[level], *masks))

        return Extraction(held)

    return sub_models("layer_freezing", extraction, client_lr, server_lr, options)

"""FjORD: clients drop the last units of every layer, at a width drawn anew in each step.

Horváth et al. 2021, "FjORD: fair and accurate federated learning under heterogeneous targets with
ordered dropout" (arXiv:2102.13451). With widths p, a client whose largest one is p_max

    in each step        draws p among the widths up to p_max, and trains the first ceil(p n) of the
                        n units of each hidden layer
    sends               the first ceil(p_max n)
    server              each number is the weighted mean over the clients that hold it

so that the model of every width can be taken out after training. Of the paper, self-distillation
and statistics of batch normalization for each width are left out: statistics are those of all
widths together.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.algorithms.heterofl import Rates, units_of
from fljax.algorithms.levels import levels_of, rates_of
from fljax.algorithms.sub_models import Extraction, Held, narrowed, of_widths, sub_models
from fljax.core.algorithm import AlgorithmSpec, Job, Variables, step_key
from fljax.core.gradients import LocalTask
from fljax.core.hidden_units import hidden_units

# Tells the draws of widths from all others of a step's key.
_PURPOSE = 0xF108D


def fjord(
    rates: Rates = "1, 0.8, 0.6, 0.4, 0.2",
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    shares: Rates | None = None,
    levels: Any = None,
    level_seed: int = 0,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FjORD, without self-distillation.

    Args:
      rates: The widths, and the p_max of each level of clients.
      client_lr, server_lr, shares, levels, level_seed, weighting: As of HeteroFL.
      **options: Further arguments of `fedavg`.

    Example:
      >>> algorithms.fjord("1, 0.5", client_lr=0.05).name
      'fjord'
    """
    rates = rates_of(rates)
    who = levels_of(len(rates), levels, shares, False, level_seed)
    options["weighting"] = weighting
    widest = int(np.argmax(rates))
    ascending = np.argsort(rates, kind="stable")
    # how many widths each level draws from, the narrowest first
    choices = [sum(other <= rate for other in rates) for rate in rates]

    def extraction(task: LocalTask, variables: Variables) -> Extraction:
        units, level_of = hidden_units(task, variables), who.of(task)

        def of_level(level: jax.Array | int) -> Held:
            return of_widths(units, lambda n: units_of(rates, n)[level])

        def in_step(job: Job) -> Held:
            among = jnp.asarray(choices)[level_of(job)]
            drawn = jax.random.randint(jax.random.fold_in(step_key(job), _PURPOSE), (), 0, among)
            return of_level(jnp.asarray(ascending)[drawn])

        def whole(variables: Variables) -> Variables:
            return narrowed(of_level(widest), variables)

        held = lambda job: of_level(level_of(job))  # noqa: E731
        return Extraction(
            held,
            in_step if len(rates) > 1 else None,
            None if max(rates) == 1 else whole,
        )

    return sub_models("fjord", extraction, client_lr, server_lr, options, all_whole=min(rates) == 1)

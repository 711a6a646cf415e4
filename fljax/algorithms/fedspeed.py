"""FedSpeed: clients look uphill, are pulled to the broadcast model, and undo the pull's bias.

Sun et al. 2023, "FedSpeed: larger local interval, less communication round, and higher
generalization accuracy" (arXiv:2302.10429), Algorithm 1; the proximal coefficient 1/lambda is
called mu, as FedProx's is, and alpha ascent_share. With a client's own correction c_i:

    clients   g = (1 - alpha) grad f(y) + alpha grad f(y + rho grad f(y))    of one batch
              y <- y - lr (g - c_i + mu (y - x))
              c_i <- c_i - mu (y - x)              sends  y - c_i / mu
    server    x <- mean of what is sent

A client that stands several times in a cohort keeps the c_i of the last. (FL-Simulator's divides
the way uphill by the gradient's norm, takes alpha = 1, and adds the mean over all clients of
-c_i / mu instead of that over the cohort.)
"""

from __future__ import annotations

from typing import Any

import jax
import optax

from fljax.algorithms.fedavg import check_weighting, from_passes, local_training, sgd, sgd_step
from fljax.algorithms.fedsam import with_ascent
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.algorithms.scaffold import Corrected, no_control
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.core.gradients import LocalTask
from fljax.core.precision import difference
from fljax.core.values import wrong

PyTree = Any


def fedspeed(
    mu: float = 0.1,
    rho: float = 0.1,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    ascent_share: float = 1.0,
    weighting: str = "uniform",
) -> AlgorithmSpec:
    """Returns FedSpeed with plain SGD.

    Args:
      mu: The proximal coefficient, the paper's 1 / lambda, by which corrections are divided. The
        paper takes 0.1 for CIFAR-10.
      rho: How many times the gradient the way uphill is long.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server; 1 as in the paper.
      ascent_share: The paper's alpha: share of the gradient uphill in a step; 0 for none.
      weighting: "uniform" as in the paper, or "examples".

    Raises:
      ValueError: If mu is 0, or a number is out of range.

    Example:
      >>> algorithms.fedspeed(mu=0.1, rho=0.05).hparams["rho"]
      0.05
    """
    check_weighting(weighting)
    own = {"mu": mu, "rho": rho, "client_lr": client_lr, "server_lr": server_lr}
    values = hyperparameters("fedspeed", own | {"ascent_share": ascent_share})
    check_divides("fedspeed", mu)
    client_optimizer = sgd()

    def build(task: LocalTask, hp) -> Algorithm:
        def combined(here, uphill):
            share = hp["ascent_share"]
            return jax.tree.map(lambda a, b: (1 - share) * a + share * b, here, uphill)

        optimizer = client_optimizer(hp)
        uphill = with_ascent(task, lambda gradient: hp["rho"], combined)
        local = local_training(uphill, optimizer, weighting)

        def start(message: Variables, control, job):
            return Corrected(local.start(message, (), job), control)

        def step(message: Variables, carry: Corrected, batch, job):
            def correct(grads, params, message):
                return jax.tree.map(
                    lambda g, mine, gap: g - mine + hp["mu"] * gap,
                    grads,
                    carry.client_control,
                    difference(params, message.params),
                )

            trained = sgd_step(uphill, optimizer, message, carry.local, batch, job, correct)
            return carry._replace(local=trained)

        def finish(message: Variables, carry: Corrected, job):
            sent, _, stats = local.finish(message, carry.local, job)
            way = sent["update"]
            control = jax.tree.map(
                lambda mine, d: mine - hp["mu"] * d, carry.client_control, way.value
            )
            update = jax.tree.map(lambda d, mine: d - mine / hp["mu"], way.value, control)
            sent["update"] = way._replace(value=update)
            return sent, control, stats

        corrected = local._replace(start=start, step=step, finish=finish)
        algorithm = from_passes((corrected,), optax.sgd(hp["server_lr"]))
        return algorithm._replace(init_client=no_control)

    return AlgorithmSpec("fedspeed", build, values, client_optimizer)


def check_divides(name: str, mu: float) -> None:
    """Raises ValueError for a coefficient of 0, by which an algorithm divides."""
    if not isinstance(mu, jax.core.Tracer) and mu == 0:
        raise wrong("mu", mu, f"above 0 with {name}, whose clients divide by it")

"""Power-of-choice: of the clients in a cohort those train on whom the model has the largest loss.

Cho, Wang and Joshi 2020, "Client selection in federated learning: convergence analysis and
power-of-choice selection strategies" (arXiv:2010.01243). A round has two passes:

    pow-d     d candidates find the loss of the global model on all of their rows
    cpow-d    ... on one batch of them, drawn at random
    then      the m of them with the largest mean loss train, and count alike

The candidates are the cohort: the paper draws them in proportion to their rows, as the sampler
"by_size(replacement=False)" does, with clients_per_round = d. Who trains is decided on the devices,
and nothing waits for it; among equal losses it is decided by lot. With m = d this is FedAvg on
clients sampled by size.
rpow-d, which asks candidates for nothing, is the sampler `fljax.selection.power_of_choice.rpow_d`.

A batch costs candidates less than all rows on real devices; here the pass goes over all rows and
counts those of the first step.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import fedavg, zero_of
from fljax.algorithms.optimizer_arguments import defaults_of, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Job, Variables, step_key
from fljax.core.gradients import LocalTask, LossSums
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


def power_of_choice(
    chosen: float = 10.0,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    loss_rows: str = "all",
    weighting: str = "uniform",
    **options,
) -> AlgorithmSpec:
    """Returns FedAvg behind power-of-choice.

    Args:
      chosen: m, how many clients of a cohort train; all of them, where no more arrive.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      loss_rows: Which rows candidates tell the loss of: "all" (pow-d) or a "batch" (cpow-d).
      weighting: "uniform" as in the paper, since sizes count in the draw of candidates, or
        "examples".
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`; or for fewer clients than one, or other rows.

    Example:
      >>> algorithms.power_of_choice(chosen=5, client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'chosen': 5.0}
    """
    options.setdefault("name", "power_of_choice")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    return choosing(plain, chosen, loss_rows)._replace(defaults=defaults_of(power_of_choice))


def choosing(spec: AlgorithmSpec, chosen: float, loss_rows: str = "all") -> AlgorithmSpec:
    """Returns an algorithm behind power-of-choice; see `power_of_choice`.

    Args:
      spec: What the chosen clients do. Its first message must hold one model.
      chosen: How many clients of a cohort take part in it.
      loss_rows: "all" or "batch".

    Example:
      >>> from fljax.algorithms.power_of_choice import choosing
      >>> choosing(algorithms.scaffold(client_lr=0.1), chosen=5).hparams["chosen"]
      5.0
    """
    checked("loss_rows", loss_rows, ALGORITHM["loss_rows"]._replace(optional=False))
    values = hyperparameters("power_of_choice", {"chosen": chosen})
    build_spec = spec.build

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_spec(task, hp)
        first, *others = algorithm.passes
        # candidates have the message already when they train
        passes = (_asking(task, first, hp["chosen"], loss_rows), first._replace(broadcast=None))
        return algorithm._replace(passes=(*passes, *others))

    return spec._replace(build=build, hparams={**spec.hparams, **values})


def _asking(task: LocalTask, first: ClientPass, chosen: jax.Array, loss_rows: str) -> ClientPass:
    """Returns the pass in which candidates find their loss, and which decides who goes on."""

    def start(message: PyTree, client_state: PyTree, job: Job):
        del job
        zero = zero_of(_model_of(message).params)
        return LossSums(zero, zero), client_state

    def step(message: PyTree, carry, batch, job: Job):
        total, client_state = carry
        sums, _ = task.loss(*_model_of(message), batch, step_key(job), False)
        counts = (job.step == 0).astype(total.loss.dtype) if loss_rows == "batch" else 1
        total = LossSums(total.loss + counts * sums.loss, total.weight + counts * sums.weight)
        return total, client_state

    def finish(message: PyTree, carry, job: Job):
        del message, job
        total, client_state = carry
        return {}, client_state, {"loss": total.loss, "weight": total.weight}

    return ClientPass(
        broadcast=first.broadcast,
        start=start,
        step=step,
        finish=finish,
        # one epoch in a random order, or all rows as they stand
        schedule=1 if loss_rows == "batch" else "epoch",
        select=lambda stats, arrived: largest_losses(stats, arrived, chosen),
    )


def largest_losses(stats: dict[str, jax.Array], arrived: jax.Array, chosen: jax.Array) -> jax.Array:
    """Returns which jobs have the largest mean losses; of equal ones those with the least lots.

    Args:
      stats: {"loss": [P], "weight": [P]} sums, and a "lot" [P], in cohort order.
      arrived: bool[P].
      chosen: How many.

    Returns:
      bool[P].

    Example:
      >>> stats = {"loss": jnp.array([4.0, 9.0, 1.0]), "weight": jnp.array([4.0, 3.0, 1.0])}
      >>> stats["lot"] = jnp.array([0.3, 0.9, 0.7])
      >>> largest_losses(stats, jnp.array([True, True, True]), 2)
      Array([ True,  True, False], dtype=bool)
    """
    mean = stats["loss"] / jnp.maximum(stats["weight"], 1)
    order = jnp.lexsort((stats["lot"], jnp.where(arrived, -mean, jnp.inf)))
    rank = jnp.zeros(len(order), jnp.int32).at[order].set(jnp.arange(len(order), dtype=jnp.int32))
    return arrived & (rank < chosen)


def _model_of(message: PyTree) -> Variables:
    """Returns the model that a message holds.

    Raises:
      ValueError: If it holds several, or none.
    """
    if isinstance(message, Variables):
        return message
    if isinstance(model := getattr(message, "variables", None), Variables):
        return model
    if hasattr(message, "params") and hasattr(message, "model_state"):
        return Variables(message.params, message.model_state)
    raise ValueError(
        f"power-of-choice asks for the loss of one model, and what clients receive first "
        f"({type(message).__name__}) holds none or several. Choose an algorithm with one."
    )

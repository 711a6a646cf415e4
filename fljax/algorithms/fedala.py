"""FedALA: clients mix the global model into their own, entry by entry, before they train.

Zhang et al. 2023, "FedALA: adaptive local aggregation for personalized federated learning"
(arXiv:2212.01197), Algorithm 1. v is a client's model of its last round, W its weights, one for
each parameter of the higher layers, all 1 at first:

    clients   u <- v + (w - v) W                               lower layers: u = w
              W <- clip(W - ala_lr grad f_i(u) (w - v), 0, 1)  on a share of the client's rows
              v <- local training from u                       kept, and sent: v - w
    server    w <- w + server_lr mean(v_i - w)

W is learned batch by batch, in a pass of its own over the first `ala_share` of the rows in the
round's order. The first time that a client's model differs from the global one, the pass is
repeated until W converges; later on there is one pass a round. What convergence is, the authors'
code says (TsingZ0/FedALA, PFLlib's `utils/ALA.py`): of each pass it keeps the loss of the last
batch before its step, and ends after more than `num_pre_loss` passes if the last `num_pre_loss` of
these losses have a standard deviation below `threshold`. So it is here, with `ala_max_passes`
beside, as theirs may never end. For the rest this is the paper: the code learns on a block of rows
in stored order, and asks whether the first array of the lowest layer is the global one; here rows
are drawn anew in each round, and the layers that are mixed are compared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import LocalState, fedavg, zero_of
from fljax.algorithms.optimizer_arguments import check_idle, given_of, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Job, Variables, step_key
from fljax.core.gradients import LocalTask
from fljax.core.personal import Filter, check_filter, chosen, like_part, part_of, together
from fljax.core.precision import difference, rounded, widened
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class Convergence(NamedTuple):
    """The progress of a client's first learning of its weights.

    Attributes:
      losses: float[K] of the last passes, the newest last.
      passes: int32, passes so far, 0 before the first.
      reached: bool, whether the weights have converged, once for all.
    """

    losses: jax.Array
    passes: jax.Array
    reached: jax.Array


class Own(NamedTuple):
    """A client's model, its weights of the higher layers, and how far their learning is."""

    model: Variables
    weights: PyTree
    convergence: Convergence


class Learning(NamedTuple):
    """A pass over weights: what the client keeps, rows seen, the loss of the last batch."""

    own: Own
    rows: jax.Array
    loss: jax.Array


class Training(NamedTuple):
    """Local training, and what the client keeps beside its model."""

    local: LocalState
    own: Own


def fedala(
    ala_lr: float = 1.0,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    ala_layers: Filter = "head",
    ala_share: float = 0.8,
    ala_threshold: float = 0.1,
    ala_losses: int = 10,
    ala_max_passes: int = 100,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedALA; `personalize` gives a client's model as its last round left it.

    Args:
      ala_lr: Learning rate of the weights, the paper's eta.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      ala_layers: The higher layers, a filter as in `fljax.core.personal`: "head" is the paper's
        p = 1, "all" mixes every layer.
      ala_share: Share of a client's rows that weights are learned on, the paper's s.
      ala_threshold: Standard deviation of losses below which weights have converged when a client
        learns them for the first time, the code's `threshold`.
      ala_losses: How many losses these are, the code's `num_pre_loss`; there is one pass more at
        least.
      ala_max_passes: After so many passes weights count as converged. With 1 a first pass is as
        all later ones. Losses are of no use up to `ala_losses` + 1 passes.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`; for filters that mean nothing in the model.

    Example:
      >>> algorithms.fedala(client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'ala_lr': 1.0, 'ala_share': 0.8, 'ala_threshold': 0.1}
    """
    check_filter("ala_layers", ala_layers)
    for name, value in (("ala_losses", ala_losses), ("ala_max_passes", ala_max_passes)):
        checked(name, value, ALGORITHM[name]._replace(optional=False))
    options.setdefault("name", "fedala")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm, known = build_fedavg(task, hp), []
        (average,) = algorithm.passes

        def higher(model: Variables) -> PyTree:
            """Returns which parameters are mixed, found once."""
            if not known:
                known.append(chosen("ala_layers", ala_layers, task, model).params)
            return known[0]

        def learn(message: Variables, carry: Learning, batch, job: Job) -> Learning:
            own, width = carry.own, batch["mask"].shape[0]
            gap = _gap(message, own)
            rows = carry.rows + jnp.arange(width, dtype=carry.rows.dtype)
            used = batch | {"mask": batch["mask"] & (rows < hp["ala_share"] * job.rows)}
            mixed = _mixed(message, own)
            gradient, sums, _ = task.gradient(*mixed, used, step_key(job))
            weights = jax.tree.map(
                lambda w, g, d: jnp.clip(w - hp["ala_lr"] * g * d, 0, 1),
                own.weights,
                like_part(gradient, own.weights),
                gap,
            )
            # a batch behind the share of rows teaches nothing
            some, loss = used["mask"].any(), sums.loss / jnp.maximum(sums.weight, 1)
            weights = jax.tree.map(lambda new, old: jnp.where(some, new, old), weights, own.weights)
            seen = carry.rows + batch["mask"].sum(dtype=carry.rows.dtype)
            return Learning(own._replace(weights=weights), seen, jnp.where(some, loss, carry.loss))

        def keep_weights(message: Variables, carry: Learning, job: Job):
            own = carry.own
            differ = [jnp.any(leaf != 0) for leaf in jax.tree.leaves(_gap(message, own))]
            after = counted_pass(own.convergence, carry.loss, hp["ala_threshold"], ala_max_passes)
            begins = jnp.any(jnp.stack(differ)) & ~own.convergence.reached
            convergence = jax.tree.map(
                lambda new, old: jnp.where(begins, new, old), after, own.convergence
            )
            return {}, own._replace(convergence=convergence), {}

        def start(message: Variables, own: Own, job: Job) -> Training:
            return Training(average.start(_mixed(message, own), (), job), own)

        def step(message: Variables, carry: Training, batch, job: Job) -> Training:
            return carry._replace(local=average.step(message, carry.local, batch, job))

        def finish(message: Variables, carry: Training, job: Job):
            sent, _, stats = average.finish(message, carry.local, job)
            model = Variables(carry.local.params, carry.local.model_state)
            return sent, carry.own._replace(model=model), stats

        def init_client(variables: Variables) -> Own:
            mixed = part_of(variables.params, higher(variables))
            ones = jax.tree.map(jnp.ones_like, widened(mixed))
            losses = jnp.zeros(ala_losses, zero_of(variables.params).dtype)
            return Own(variables, ones, Convergence(losses, jnp.int32(0), jnp.bool_(False)))

        learning = ClientPass(
            broadcast=average.broadcast,
            start=lambda message, own, job: Learning(own, jnp.int32(0), zero_of(message.params)),
            step=learn,
            finish=keep_weights,
            schedule="epoch",
            repeats=lambda own: goes_on(own.convergence),
        )
        return algorithm._replace(
            passes=(learning, ClientPass(None, start, step, finish)),
            init_client=init_client,
            personalize=lambda server, own, batch, key: own.model,
        )

    own = {"ala_lr": ala_lr, "ala_share": ala_share, "ala_threshold": ala_threshold}
    values = hyperparameters("fedala", own)
    if ala_max_passes <= ala_losses + 1:
        # the last pass comes before losses may settle
        of_losses = {"ala_threshold": ala_threshold, "ala_losses": ala_losses}
        check_idle(
            given_of(fedala, of_losses),
            f"ala_max_passes = {ala_max_passes} and ala_losses = {ala_losses}",
            f"set ala_max_passes to {ala_losses + 2} or more",
        )
    return plain._replace(build=build, hparams={**plain.hparams, **values})


def counted_pass(
    before: Convergence, loss: jax.Array, threshold: jax.Array, max_passes: int
) -> Convergence:
    """Returns how far learning is after one more pass, whose last batch had this loss."""
    losses = jnp.append(before.losses[1:], loss.astype(before.losses.dtype))
    passes = before.passes + 1
    settled = (passes > len(losses)) & (jnp.std(losses) < threshold)
    return Convergence(losses, passes, settled | (passes >= max_passes))


def goes_on(convergence: Convergence) -> jax.Array:
    """Returns whether a client's first learning has begun and is not over."""
    return (convergence.passes > 0) & ~convergence.reached


def _gap(message: Variables, own: Own) -> PyTree:
    """Returns w - v of the higher layers."""
    return difference(
        *(like_part(params, own.weights) for params in (message.params, own.model.params))
    )


def _mixed(message: Variables, own: Own) -> Variables:
    """Returns u: the global model, with the client's mixture in the higher layers."""
    mine = like_part(own.model.params, own.weights)
    mixed = jax.tree.map(
        lambda v, d, weight: v + d * weight, widened(mine), _gap(message, own), own.weights
    )
    return message._replace(params=together(rounded(mixed, mine), message.params))

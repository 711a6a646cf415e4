"""APFL: a client's model is a mixture of one of its own and the global one.

Deng et al. 2020, "Adaptive personalized federated learning" (arXiv:2003.13461), Algorithm 1, where
u_i = a_i v_i + (1 - a_i) w_i is the mixture of client i:

    clients   w_i <- w_i - lr g_i(w_i),  from w_i = w          sent, as in FedAvg
              v_i <- v_i - lr a_i g_i(u_i)                     kept
              a_i <- a_i - lr <v_i - w_i, g_i(u_i)>            kept, at the first step of a round
    server    w <- w + server_lr mean(w_i - w)

Both gradients of a step are those of one batch, at the models before it, and a_i g_i(u_i) is the
derivative of f_i(u_i) by v_i. Shares stay within [0, 1]; a = 0 is FedAvg, a = 1 local-only
training. PFLlib takes the gradient at v_i itself, without a_i, and puts the mixture in the place of
v_i after each round.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import LocalState, fedavg, start_local, stepped, zero_of
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Job, Variables, step_key
from fljax.core.gradients import LocalTask
from fljax.core.precision import difference, rounded, widened
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class Own(NamedTuple):
    """A client's part of the mixture, the mixture's model state, and the share; -1 before it is."""

    params: PyTree
    model_state: PyTree
    share: jax.Array


class Mixed(NamedTuple):
    """Local training: of the shared model, and of the own part with its share."""

    shared: LocalState
    own: LocalState
    share: jax.Array


def apfl(
    mixture: float = 0.5,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    adaptive_mixture: bool = True,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns APFL; `personalize` gives a client's mixture with the global model.

    Args:
      mixture: The paper's alpha: the share of the own part in a client's model, in [0, 1]; where it
        adapts, the one that clients start with.
      client_lr: Learning rate of both parts and of the share.
      server_lr: Learning rate of the server.
      adaptive_mixture: Whether each client learns a share of its own.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`; its client optimizer trains both parts.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.apfl(mixture=0.25, client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'mixture': 0.25}
    """
    adapts = ALGORITHM["adaptive_mixture"]._replace(optional=False)
    adapts = checked("adaptive_mixture", adaptive_mixture, adapts)
    options.setdefault("name", "apfl")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)

    build_fedavg, client_optimizer = plain.build, plain.client_optimizer

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_fedavg(task, hp)
        (shared,) = algorithm.passes
        optimizer = client_optimizer(hp)

        def share_of(own: Own) -> jax.Array:
            # trials share the state of clients that never took part, and start with their own
            return jnp.where(own.share < 0, hp["mixture"], own.share).astype(own.share.dtype)

        def start(message: Variables, own: Own, job: Job) -> Mixed:
            mine = start_local(Variables(own.params, own.model_state), optimizer)
            return Mixed(shared.start(message, (), job), mine, share_of(own))

        def step(message: Variables, carry: Mixed, batch, job: Job) -> Mixed:
            own, here = carry.own, carry.shared.params
            mixture = mix(own.params, here, carry.share)
            gradient, sums, model_state = task.gradient(
                mixture, own.model_state, batch, step_key(job)
            )
            share = carry.share
            if adapts:
                slope = _dot(difference(own.params, here), gradient)
                moved = jnp.clip(share - hp["client_lr"] * slope, 0, 1)
                share = jnp.where(job.step == 0, moved.astype(share.dtype), share)
            gradient = jax.tree.map(lambda g: carry.share * g, gradient)
            params, opt_state = stepped(optimizer, gradient, own.opt_state, own.params)
            own = LocalState(
                params, model_state, opt_state, own.loss + sums.loss, own.weight + sums.weight
            )
            return Mixed(shared.step(message, carry.shared, batch, job), own, share)

        def finish(message: Variables, carry: Mixed, job: Job):
            sent, _, stats = shared.finish(message, carry.shared, job)
            stats |= {
                "personal_loss": carry.own.loss,
                "personal_loss/weight": carry.own.weight,
                "mixture": carry.share,
                "mixture/weight": jnp.ones_like(carry.share),
            }
            return sent, Own(carry.own.params, carry.own.model_state, carry.share), stats

        def personalize(server, own: Own, batch, key) -> Variables:
            params = mix(own.params, algorithm.variables(server).params, share_of(own))
            return Variables(params, own.model_state)

        return algorithm._replace(
            passes=(ClientPass(shared.broadcast, start, step, finish),),
            init_client=lambda variables: Own(*variables, share=-_one(variables.params)),
            personalize=personalize,
        )

    values = hyperparameters("apfl", {"mixture": mixture})
    return plain._replace(build=build, hparams={**plain.hparams, **values})


def mix(own: PyTree, others: PyTree, share: jax.Array) -> PyTree:
    """Returns share x own + (1 - share) x others, exactly one of the two where the share is so."""
    return rounded(
        jax.tree.map(lambda v, w: share * v + (1 - share) * w, widened(own), widened(others)), own
    )


def _dot(a: PyTree, b: PyTree) -> jax.Array:
    return sum(jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def _one(params: PyTree) -> jax.Array:
    return jnp.ones_like(zero_of(params))

"""pFedMe: clients' own models are minimizers near the shared one, along which it moves.

T. Dinh et al. 2020, "Personalized federated learning with Moreau envelopes" (arXiv:2006.08848),
Algorithm 1. For each batch D, by `inner_steps` steps of gradient descent,

    clients   t ~ argmin_t f_i(t; D) + lam / 2 |t - w_i|^2     t is the client's own model
              w_i <- w_i - lr lam (w_i - t),  from w_i = w
    server    w <- w + server_lr mean(w_i - w)                 server_lr is the paper's beta

The minimization goes on from the last t of the round, which starts from w, as the authors' code
does. Their code weights clients by 1 / |S| as here, whatever their rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fljax.algorithms.fedavg import LocalState, fedavg, zero_of
from fljax.algorithms.optimizer_arguments import defaults_of, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Job, Variables, step_key
from fljax.core.gradients import LocalTask
from fljax.core.precision import difference, rounded, widened
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class Envelope(NamedTuple):
    """Local training: the shared model w_i and the own one; loss sums are over all inner steps."""

    shared: PyTree
    own: Variables
    loss: jax.Array
    weight: jax.Array


def pfedme(
    lam: float = 15.0,
    client_lr: float = 0.005,
    server_lr: float = 1.0,
    *,
    inner_lr: float = 0.01,
    inner_steps: int = 5,
    weighting: str = "uniform",
    name: str = "pfedme",
) -> AlgorithmSpec:
    """Returns pFedMe; `personalize` gives the own model of a client's last inner step.

    Args:
      lam: The paper's lambda, how near own models stay to the shared one; `client_lr` times it must
        stay below 2, and `inner_lr` times it too, or they run away from each other.
      client_lr: Learning rate of the shared model on clients, the paper's eta.
      server_lr: The paper's beta: how far the server goes to the mean of the clients' models.
      inner_lr: Learning rate of the inner steps.
      inner_steps: Steps on each batch, the paper's K; a sweep over it compiles for each value.
      weighting: "uniform" counts clients alike as the paper does, "examples" weights them by rows.
      name: Shown in records.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.pfedme(lam=15.0).hparams
      {'client_lr': 0.005, 'server_lr': 1.0, 'lam': 15.0, 'inner_lr': 0.01}
    """
    checked("inner_steps", inner_steps, ALGORITHM["inner_steps"]._replace(optional=False))
    plain = fedavg(client_lr, server_lr, weighting=weighting, name=name)

    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_fedavg(task, hp)
        (average,) = algorithm.passes

        def start(message: Variables, own, job: Job) -> Envelope:
            zero = zero_of(message.params)
            return Envelope(widened(message.params), message, zero, zero)

        def step(message: Variables, carry: Envelope, batch, job: Job) -> Envelope:
            def inner(number, state):
                own, loss, weight = state
                key = jax.random.fold_in(step_key(job), number)
                gradient, sums, model_state = task.gradient(*own, batch, key)
                params = jax.tree.map(
                    lambda t, g, gap: t - hp["inner_lr"] * (g + hp["lam"] * gap),
                    widened(own.params),
                    widened(gradient),
                    difference(own.params, carry.shared),
                )
                own = Variables(rounded(params, own.params), model_state)
                return own, loss + sums.loss, weight + sums.weight

            own, loss, weight = jax.lax.fori_loop(
                0, inner_steps, inner, (carry.own, carry.loss, carry.weight)
            )
            shared = jax.tree.map(
                lambda w, t: w - hp["client_lr"] * hp["lam"] * (w - t),
                carry.shared,
                widened(own.params),
            )
            return Envelope(shared, own, loss, weight)

        def finish(message: Variables, carry: Envelope, job: Job):
            trained = LocalState(
                rounded(carry.shared, message.params),
                carry.own.model_state,
                (),
                carry.loss,
                carry.weight,
            )
            sent, _, stats = average.finish(message, trained, job)
            return sent, carry.own, stats

        return algorithm._replace(
            passes=(ClientPass(average.broadcast, start, step, finish),),
            init_client=lambda variables: variables,
            personalize=lambda server, own, batch, key: own,
        )

    values = hyperparameters("pfedme", {"lam": lam, "inner_lr": inner_lr})
    return AlgorithmSpec(name, build, {**plain.hparams, **values}, defaults=defaults_of(pfedme))

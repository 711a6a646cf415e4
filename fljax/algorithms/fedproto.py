"""FedProto: clients keep their models, and send what classes look like to them.

Tan et al. 2022, "FedProto: federated prototype learning across heterogeneous clients"
(arXiv:2105.00243), Algorithm 1. r(x) is what the last layer reads of a row x, its representation,
of dimension d, and P_y the server's prototype of class y:

    clients   w_i <- w_i - lr grad(f_i(w_i) + lam mean over rows |r(x) - P_y|^2 / d)     kept
              P_iy = mean of r(x) over the rows of class y, of which there are n_iy      sent
    server    P_y <- sum_i n_iy P_iy / sum_i n_iy
    predicts  argmin_y |r(x) - P_y|^2

A class that nobody has sent yet pulls nobody and is predicted for nothing; one that nobody sends in
a round stays. All clients have one architecture here. The authors' code counts clients alike
(`weighting="uniform"`), and so does PFLlib's, which takes prototypes over the batches of a round,
while the model still moves.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import (
    LocalState,
    check_weighting,
    loss_stats,
    sgd,
    start_local,
    stepped,
    zero_of,
)
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.algorithms.representations import check_classifies, labels_of, represented
from fljax.core.algorithm import (
    Algorithm,
    AlgorithmSpec,
    ClientPass,
    Contribution,
    Job,
    Variables,
    step_key,
)
from fljax.core.gradients import LocalTask

PyTree = Any


class Prototypes(NamedTuple):
    """float[C, D] prototypes, and bool[C], of which classes there are any."""

    of_class: jax.Array
    known: jax.Array


class ProtoState(NamedTuple):
    """The model that every client starts with, and the server's prototypes."""

    first: Variables
    prototypes: Prototypes


class Collected(NamedTuple):
    """A client's trained model; sums and counts of its rows by class; its loss on them."""

    own: Variables
    sums: jax.Array
    counts: jax.Array
    loss: jax.Array
    weight: jax.Array


def fedproto(
    lam: float = 1.0,
    client_lr: float = 0.1,
    *,
    client_momentum: float | None = None,
    weighting: str = "examples",
) -> AlgorithmSpec:
    """Returns FedProto, for classification.

    There is no global model. `personalize` gives a client's own, which predicts by the nearest
    prototype. The training loss of records is that of the trained models on all rows of their
    clients, without the pull.

    Args:
      lam: How strongly representations are pulled to prototypes; 0 is local-only training.
      client_lr: Learning rate of the clients.
      client_momentum: Momentum of the clients' SGD, which starts from zero in each round.
      weighting: "examples" weights a client's prototype of a class by its rows of that class,
        "uniform" counts the clients that have the class alike.

    Raises:
      TypeError, ValueError: As `fedavg`; for tasks other than classification.

    Example:
      >>> algorithms.fedproto(lam=1.0, client_lr=0.05).hparams
      {'lam': 1.0, 'client_lr': 0.05}
    """
    check_weighting(weighting)
    client_optimizer = sgd(client_momentum)

    def build(task: LocalTask, hp) -> Algorithm:
        check_classifies("fedproto", task)
        optimizer = client_optimizer(hp)

        def step(message: Prototypes, carry: LocalState, batch, job: Job) -> LocalState:
            labels = labels_of(task, batch)

            def pulled(params):
                found, sums, state = task.representation(
                    params, carry.model_state, batch, step_key(job), True
                )
                rows = found.reshape(len(found), -1)
                pull = jnp.mean((rows - message.of_class[labels]) ** 2, 1)
                pulls = batch["mask"] & message.known[labels]
                mean = jnp.sum(jnp.where(pulls, pull, 0)) / jnp.maximum(batch["mask"].sum(), 1)
                loss = sums.loss / jnp.maximum(sums.weight, 1)
                return loss + hp["lam"] * mean, (sums, state)

            gradient, (sums, state) = jax.grad(pulled, has_aux=True)(carry.params)
            params, opt_state = stepped(optimizer, gradient, carry.opt_state, carry.params)
            return LocalState(
                params, state, opt_state, carry.loss + sums.loss, carry.weight + sums.weight
            )

        def begin_collecting(message: Prototypes, own: Variables, job: Job) -> Collected:
            none, zero = jnp.zeros_like(message.of_class), zero_of(own.params)
            return Collected(own, none, jnp.zeros(len(none), none.dtype), zero, zero)

        def collect(message: Prototypes, carry: Collected, batch, job: Job) -> Collected:
            found, sums, _ = task.representation(*carry.own, batch, None, False)
            classes = jax.nn.one_hot(labels_of(task, batch), len(carry.counts), dtype=found.dtype)
            classes = jnp.where(batch["mask"][:, None], classes, 0)
            # zeros, since 0 x NaN in a product is NaN
            rows = jnp.where(batch["mask"][:, None], found.reshape(len(found), -1), 0)
            return Collected(
                carry.own,
                carry.sums + classes.T @ rows,
                carry.counts + classes.sum(0),
                carry.loss + sums.loss,
                carry.weight + sums.weight,
            )

        def send(message: Prototypes, carry: Collected, job: Job):
            prototypes = carry.sums / jnp.maximum(carry.counts, 1)[:, None]
            weight = carry.counts if weighting == "examples" else jnp.sign(carry.counts)
            if job.weight is not None:
                weight = jnp.sign(carry.counts) * job.weight.astype(weight.dtype)
            return {"prototypes": Contribution(prototypes, weight)}, carry.own, loss_stats(carry)

        def server_update(state: ProtoState, aggregates, round) -> ProtoState:
            found, (old, known) = aggregates["prototypes"], state.prototypes
            new = jnp.where(found.weight[:, None] > 0, found.mean(), old).astype(old.dtype)
            return ProtoState(state.first, Prototypes(new, known | (found.weight > 0)))

        def init(variables: Variables) -> ProtoState:
            rows = jax.eval_shape(partial(represented, task), variables, dict(task.like))
            none = jnp.zeros((task.num_classes, rows.shape[1]), zero_of(variables.params).dtype)
            return ProtoState(variables, Prototypes(none, jnp.zeros(task.num_classes, bool)))

        def predict(state: ProtoState, own: Variables, batch) -> jax.Array:
            rows, (prototypes, known) = represented(task, own, batch), state.prototypes
            squares = jnp.sum(prototypes**2, 1) - 2 * rows @ prototypes.T
            nearness = -(squares + jnp.sum(rows**2, 1, keepdims=True))
            outputs = jnp.where(known, nearness, jnp.finfo(nearness.dtype).min / 2)
            return jnp.where(known.any(), outputs, task.outputs(*own, batch))

        broadcast = lambda state, aggregates: state.prototypes  # noqa: E731
        return Algorithm(
            init=init,
            passes=(
                ClientPass(
                    broadcast=broadcast,
                    start=lambda message, own, job: start_local(own, optimizer),
                    step=step,
                    finish=lambda message, carry, job: (
                        {},
                        Variables(carry.params, carry.model_state),
                        loss_stats(carry),
                    ),
                ),
                ClientPass(None, begin_collecting, collect, send, schedule="epoch"),
            ),
            server_update=server_update,
            variables=lambda state: state.first,
            init_client=lambda variables: variables,
            personalize=lambda state, own, batch, key: own,
            has_global_model=False,
            predict=predict,
        )

    values = hyperparameters(
        "fedproto", {"lam": lam, "client_lr": client_lr}, client_momentum=client_momentum
    )
    return AlgorithmSpec("fedproto", build, values, client_optimizer)

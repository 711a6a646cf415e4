"""MOON: what a client's model sees in its rows stays near what the global model sees in them.

Li, He, Song 2021, "Model-contrastive federated learning" (arXiv:2103.16257). With z the
representation of an example by the model that trains, z_global by the broadcast one and z_before by
the one that the client ended with when it last took part, clients train on

    loss + mu log(1 + exp((cos(z, z_before) - cos(z, z_global)) / temperature))

the second term being -log(e^g / (e^g + e^b)) of the two cosines over the temperature. A client that
never took part has ended with the initial model. All else is FedAvg.

The representation is what the last layer reads (`fljax.core.representation`); in the paper a
projection head of two layers lies between, which is a part of the model here. The two other models
are evaluated as at a test: without dropout, with the statistics that they have. A step takes two
forward passes more than FedAvg's. The training loss in records is without the second term.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms.fedavg import (
    LocalState,
    check_weighting,
    from_passes,
    local_training,
    sgd,
    sgd_step,
)
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.core.gradients import LocalTask, LossSums, plain

PyTree = Any


class Contrasting(NamedTuple):
    """Local training, and the model that the client ended with before."""

    local: LocalState
    before: Variables


def moon(
    mu: float = 1.0,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    temperature: float = 0.5,
    client_momentum: float | None = None,
    client_weight_decay: float | None = None,
    weighting: str = "examples",
) -> AlgorithmSpec:
    """Returns MOON.

    Args:
      mu: Weight of the contrast. The paper tunes it among 0.1, 1, 5 and 10; 0 is FedAvg.
      client_lr: Learning rate of the clients' SGD.
      server_lr: Learning rate of the server.
      temperature: By which cosines are divided; 0.5 in the paper.
      client_momentum: Momentum of the clients' SGD, starting from zero in each round; None for
        plain SGD.
      client_weight_decay: Its weight decay; None for nothing.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.

    Raises:
      ValueError: If a number is out of range; before the first round, for a model without a layer
        that reads a representation.

    Example:
      >>> algorithms.moon(mu=5.0).hparams
      {'mu': 5.0, 'client_lr': 0.1, 'server_lr': 1.0, 'temperature': 0.5}
    """
    check_weighting(weighting)
    own = {"mu": mu, "client_lr": client_lr, "server_lr": server_lr, "temperature": temperature}
    values = hyperparameters(
        "moon", own, client_momentum=client_momentum, client_weight_decay=client_weight_decay
    )
    client_optimizer = sgd(client_momentum, client_weight_decay)

    def build(task: LocalTask, hp) -> Algorithm:
        optimizer = client_optimizer(hp)
        local = local_training(task, optimizer, weighting)

        def start(message: Variables, before: Variables, job):
            return Contrasting(local.start(message, (), job), before)

        def step(message: Variables, carry: Contrasting, batch, job):
            contrasting = contrasted(task, message, carry.before, hp["mu"], hp["temperature"])
            trained = sgd_step(contrasting, optimizer, message, carry.local, batch, job)
            return carry._replace(local=trained)

        def finish(message: Variables, carry: Contrasting, job):
            sent, _, stats = local.finish(message, carry.local, job)
            return sent, Variables(carry.local.params, carry.local.model_state), stats

        contrast = local._replace(start=start, step=step, finish=finish)
        algorithm = from_passes((contrast,), optax.sgd(hp["server_lr"]))

        def init(variables: Variables):
            check_represents(task.head(*variables))
            return algorithm.init(variables)

        return algorithm._replace(init=init, init_client=lambda variables: variables)

    return AlgorithmSpec("moon", build, values, client_optimizer)


def check_represents(head: PyTree) -> None:
    """Raises ValueError where the head is all of a model, and nothing trained represents."""
    if all(jax.tree.leaves(head)):
        raise ValueError(
            "moon contrasts what the model's last layer reads, and here that layer is the whole "
            "model and reads the inputs themselves. Use a model with a layer before it, such as "
            "an mlp, or fedavg."
        )


def contrasted(
    task: LocalTask, near: Variables, far: Variables, mu: jax.Array, temperature: jax.Array
) -> LocalTask:
    """Returns a task whose gradients have the contrast added; its losses have not.

    Args:
      task: The task.
      near, far: Models whose representations are approached, and left.
      mu, temperature: Weight of the contrast, and what cosines are divided by.
    """

    def gradient(params, model_state, batch, key):
        ahead, behind = (
            _flat(task.representation(*model, batch, key, False)[0]) for model in (near, far)
        )

        def loss(params, model_state, batch, key, train):
            found, sums, new_state = task.representation(params, model_state, batch, key, train)
            here = _flat(found)
            gap = (_cosines(here, behind) - _cosines(here, ahead)) / temperature
            values = jnp.where(batch["mask"], jax.nn.softplus(gap), 0)
            contrast = values.sum() / jnp.maximum(batch["mask"].sum(), 1)
            # the mean of the loss over its weight is what is differentiated
            total = sums.loss + mu * contrast * jnp.maximum(sums.weight, 1)
            return LossSums(total, sums.weight), (new_state, sums)

        grads, _, (new_state, sums) = plain(loss)(params, model_state, batch, key)
        return grads, sums, new_state

    return task._replace(gradient=gradient)


def _flat(representation: jax.Array) -> jax.Array:
    return representation.reshape(representation.shape[0], -1)


def _cosines(rows: jax.Array, others: jax.Array) -> jax.Array:
    """Returns the cosine of each row; 0 of a row of zeros, whose gradient is 0 as well."""
    along = (rows * others).sum(1)
    squares = (rows * rows).sum(1) * (others * others).sum(1)
    return jnp.where(squares > 0, along * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0)

"""Federated averaging: clients train locally, the server averages what changed.

McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data"
(arXiv:1602.05629), in the generalized form of Reddi et al. 2021, "Adaptive federated optimization"
(arXiv:2003.00295): the weighted mean of the clients' changes is a pseudo-gradient which any server
optimizer may use. FedAvg is the server optimizer SGD with learning rate 1, FedOpt any other, and
FedProx (Li et al. 2020, arXiv:1812.06127) adds mu/2 |w - w_server|^2 to the clients' loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms import optimizer_arguments
from fljax.algorithms.optimizers import at_present
from fljax.core.algorithm import (
    Aggregate,
    Algorithm,
    AlgorithmSpec,
    ClientPass,
    Contribution,
    Job,
    OptimizerFactory,
    Variables,
    step_key,
)
from fljax.core.gradients import LocalTask
from fljax.core.precision import (
    Differences,
    difference,
    rounded,
    state_after,
    state_change,
    widened,
)
from fljax.core.settings import ALGORITHM
from fljax.core.trees import beside
from fljax.core.values import checked

PyTree = Any
Hparams = Mapping[str, jax.Array]


class ServerState(NamedTuple):
    """The global model and the server optimizer's state."""

    variables: Variables
    opt_state: PyTree


class LocalState(NamedTuple):
    """A client during its local training; loss and weight are sums over its steps."""

    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    loss: jax.Array
    weight: jax.Array


def fedavg(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    client_momentum: float | None = None,
    client_weight_decay: float | None = None,
    mu: float | None = None,
    weighting: str = "examples",
    client_optimizer: OptimizerFactory | None = None,
    server_optimizer: OptimizerFactory | None = None,
    name: str = "fedavg",
    **hparams: float,
) -> AlgorithmSpec:
    """Returns FedAvg, FedOpt (`server_optimizer`) or FedProx (`mu`).

    Args:
      client_lr: Learning rate of the clients' SGD.
      server_lr: Learning rate of the server; 1 with plain SGD is averaging.
      client_momentum: Momentum of the clients' SGD, starting from zero in each round; None for
        plain SGD, which keeps no velocity.
      client_weight_decay: What the clients' SGD multiplies the parameters by and adds to their
        gradient, as PyTorch's does; None for nothing.
      mu: FedProx's proximal coefficient; None for no proximal term.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      client_optimizer: Replaces the clients' SGD: hparams -> optax optimizer, which starts anew in
        each round; one with a schedule is refused, for which there is `client_lr_schedule`.
      server_optimizer: Replaces the server's SGD: hparams -> optax optimizer, whose state is kept:
        its schedules count the rounds in which somebody contributed.
      name: Shown in records.
      **hparams: Further numbers that the optimizers read from hparams.

    Raises:
      TypeError: If a number is given that no optimizer could read, or something else as optimizer.
      ValueError: If `weighting` is neither of the two, or a number is out of range.

    Example:
      >>> spec = algorithms.fedavg(client_lr=0.1, client_momentum=0.9)
      >>> spec.name, spec.hparams
      ('fedavg', {'client_lr': 0.1, 'server_lr': 1.0, 'client_momentum': 0.9})
    """
    check_weighting(weighting)
    values = optimizer_arguments.hyperparameters(
        name,
        {"client_lr": client_lr, "server_lr": server_lr},
        hparams,
        (client_optimizer, server_optimizer),
        client_momentum=client_momentum,
        client_weight_decay=client_weight_decay,
        mu=mu,
    )
    defaults = optimizer_arguments.defaults_of(fedavg)
    if client_optimizer is None:
        client_optimizer = sgd(client_momentum, client_weight_decay)
    else:
        client_optimizer = optimizer_arguments.optimizer("client_optimizer", client_optimizer)
    if server_optimizer is None:
        server_optimizer = lambda hp: optax.sgd(hp["server_lr"])  # noqa: E731
    else:
        server_optimizer = optimizer_arguments.optimizer("server_optimizer", server_optimizer)
    proximal = mu is not None

    def build(task: LocalTask, hp: Hparams) -> Algorithm:
        correct = pull_towards_message(hp["mu"]) if proximal else None
        local = local_training(task, client_optimizer(hp), weighting, correct)
        return from_passes((local,), server_optimizer(hp))

    return AlgorithmSpec(name, build, values, client_optimizer, defaults)


def sgd(momentum: float | None = None, weight_decay: float | None = None) -> OptimizerFactory:
    """Returns the clients' SGD, with heavy-ball momentum and weight decay unless they are None."""
    moves_on, decays = momentum is not None, weight_decay is not None

    def optimizer(hp):
        step = optax.sgd(hp["client_lr"], momentum=hp["client_momentum"] if moves_on else None)
        if not decays:
            return step
        return optax.chain(optax.add_decayed_weights(hp["client_weight_decay"]), step)

    return optimizer


def pull_towards_message(coefficient: jax.Array) -> Callable:
    """Returns the `correct` of a proximal term, coefficient / 2 |w - w_message|^2."""
    return lambda grads, params, message: jax.tree.map(
        lambda g, w, start: g + coefficient * difference(w, start), grads, params, message.params
    )


def check_weighting(weighting: str) -> None:
    """Raises ValueError unless the weighting is known."""
    checked("weighting", weighting, ALGORITHM["weighting"]._replace(optional=False))


def job_weight(weighting: str, job: Job, like: jax.Array) -> jax.Array:
    """Returns a job's weight in averages: the client's own, or by the rule."""
    if job.weight is not None:
        return job.weight.astype(like.dtype)
    return (job.rows if weighting == "examples" else jnp.ones_like(job.rows)).astype(like.dtype)


def from_passes(
    passes: tuple[ClientPass, ...], server_optimizer: optax.GradientTransformation
) -> Algorithm:
    """Returns an algorithm whose server steps along the mean "update" of its last pass."""

    def init(variables: Variables) -> ServerState:
        return start_server(variables, server_optimizer)

    def server_update(server: ServerState, aggregates, round) -> ServerState:
        del round
        return step_server(server, aggregates, server_optimizer)

    return Algorithm(
        init=init,
        passes=passes,
        server_update=server_update,
        variables=lambda server: server.variables,
    )


def start_server(variables: Variables, optimizer: optax.GradientTransformation) -> ServerState:
    """Returns the state of a server that is about to step from `variables`."""
    return ServerState(variables, optimizer.init(widened(variables.params)))


def step_server(
    server: ServerState, aggregates, optimizer: optax.GradientTransformation
) -> ServerState:
    """Applies a server optimizer to the pseudo-gradient; unchanged if nobody contributed."""
    update = aggregates["update"]
    params, model_state = server.variables
    pseudo_gradient = jax.tree.map(jnp.negative, update.mean())
    opt_state = at_present(optimizer, server.opt_state, params)
    params, opt_state = stepped(optimizer, pseudo_gradient, opt_state, params)
    if "model_state" in aggregates:
        model_state = after_mean(model_state, aggregates["model_state"])
    new = ServerState(Variables(params, model_state), rounded(opt_state, server.opt_state))
    return jax.tree.map(lambda new, old: jnp.where(update.count > 0, new, old), new, server)


def after_mean(model_state: PyTree, sent: Aggregate) -> PyTree:
    """Returns the state of the model after what clients sent; as it was where no weight arrived.

    Of no weight there is no mean, and a variance of 0 would be none.
    """
    after = state_after(model_state, sent.mean())
    if isinstance(sent.sum, Differences):
        return after  # differences of 0 leave it as it was
    return jax.tree.map(
        lambda weight, new, old: jax.tree.map(
            lambda new, old: jnp.where(beside(weight != 0, new), new, old), new, old
        ),
        sent.weight,
        after,
        model_state,
    )


def stepped(
    optimizer: optax.GradientTransformation, gradient: PyTree, opt_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """Returns (params', opt_state') of an optimizer's step, taken in float32 at least."""
    wide = widened(params)
    step, opt_state = optimizer.update(widened(gradient), opt_state, wide)
    return rounded(optax.apply_updates(wide, step), params), opt_state


def local_training(
    task: LocalTask,
    optimizer: optax.GradientTransformation,
    weighting: str = "examples",
    correct: Callable[[PyTree, PyTree, Variables], PyTree] | None = None,
) -> ClientPass:
    """Returns the pass in which clients train from the broadcast model.

    Args:
      task: The bound task.
      optimizer: The clients' optimizer, started anew in each round.
      weighting: "examples" or "uniform".
      correct: (grads, params, message) -> grads, applied at each step.
    """

    def finish(message: Variables, carry: LocalState, job: Job):
        update = difference(carry.params, message.params)
        weight = job_weight(weighting, job, carry.loss)
        state = state_change(carry.model_state, message.model_state, task.state_changes)
        return contributions(update, state, weight), (), loss_stats(carry)

    return ClientPass(
        broadcast=lambda server, aggregates: server.variables,
        start=lambda message, client_state, job: start_local(message, optimizer),
        step=lambda message, carry, batch, job: sgd_step(
            task, optimizer, message, carry, batch, job, correct
        ),
        finish=finish,
    )


def start_local(variables: Variables, optimizer: optax.GradientTransformation) -> LocalState:
    """Returns a client that is about to train from `variables`."""
    zero = zero_of(variables.params)
    opt_state = optimizer.init(widened(variables.params))
    return LocalState(variables.params, variables.model_state, opt_state, zero, zero)


def zero_of(params: PyTree) -> jax.Array:
    """Returns the zero from which sums over a client's steps start."""
    return jnp.zeros((), jnp.result_type(jnp.float32, *jax.tree.leaves(params)))


def sgd_step(task, optimizer, message, carry: LocalState, batch, job: Job, correct=None):
    """Takes one local step."""
    grads, sums, model_state = task.gradient(carry.params, carry.model_state, batch, step_key(job))
    if correct is not None:
        grads = correct(grads, carry.params, message)
    params, opt_state = stepped(optimizer, grads, carry.opt_state, carry.params)
    return LocalState(
        params,
        model_state,
        opt_state,
        carry.loss + sums.loss,
        carry.weight + sums.weight,
    )


def contributions(update: PyTree, state: PyTree, weight: jax.Array) -> dict:
    """Returns what a client sends, under one weight.

    Args:
      update: The model's change.
      state: Of the model's state, if it has one, what `state_change` makes of it.
      weight: The client's weight in both means.
    """
    sent = {"update": Contribution(update, weight)}
    if jax.tree.leaves(state):
        sent["model_state"] = Contribution(state, weight)
    return sent


def loss_stats(carry) -> dict[str, jax.Array]:
    """Returns the sums that make up the round's training loss."""
    return {"loss": carry.loss, "weight": carry.weight}

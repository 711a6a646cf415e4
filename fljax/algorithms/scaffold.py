"""SCAFFOLD: control variates correct the drift of local training.

Karimireddy et al. 2020 (arXiv:1910.06378), Algorithm 1, option II:

    clients   y <- y - lr (g(y) - c_i + c)          c_i' = c_i - c + (x - y) / (K lr)
    server    x <- x + server_lr mean(y - x)        c <- c + |S| / N mean(c_i' - c_i)

Option I reads the client's rows once more for c_i' = grad f_i(x), the gradient over all of them.

N counts the clients that can take part: clients without a batch never do. A client that
stands several times in a cohort adds each of its changes to c, and keeps the c_i of the last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms import optimizer_arguments
from fljax.algorithms.fedavg import (
    LocalState,
    ServerState,
    check_weighting,
    contributions,
    job_weight,
    loss_stats,
    sgd,
    sgd_step,
    start_local,
    start_server,
    step_server,
)
from fljax.algorithms.fedsgd import gradient_pass
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Contribution, Variables
from fljax.core.gradients import LocalTask
from fljax.core.precision import difference, state_change, widened
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class ScaffoldState(NamedTuple):
    """FedAvg's server state and the server's control variate c."""

    server: ServerState
    control: PyTree


class Message(NamedTuple):
    """The global model and the server's control variate."""

    variables: Variables
    control: PyTree


class Corrected(NamedTuple):
    """Local training with its correction c - c_i."""

    local: LocalState
    client_control: PyTree


def scaffold(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    option: str = "II",
    weighting: str = "uniform",
) -> AlgorithmSpec:
    """Returns SCAFFOLD with plain SGD on both sides.

    With option I the recorded loss of training is that of the broadcast model on clients' rows.

    Args:
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      option: "II" makes control variates of the way that a client went, "I" of a second pass.
      weighting: Weights of the model changes: "uniform" as in the paper, or "examples".

    Example:
      >>> algorithms.scaffold(client_lr=0.1, server_lr=1.0).hparams
      {'client_lr': 0.1, 'server_lr': 1.0}
    """
    check_weighting(weighting)
    checked("option", option, ALGORITHM["option"]._replace(optional=False))
    client_optimizer = sgd()

    def build(task: LocalTask, hp) -> Algorithm:
        optimizer, server_optimizer = client_optimizer(hp), optax.sgd(hp["server_lr"])

        def start(message: Message, client_control, job):
            return Corrected(start_local(message.variables, optimizer), client_control)

        def step(message: Message, carry: Corrected, batch, job):
            def correct(grads, params, message):
                return jax.tree.map(
                    lambda g, mine, c: g - mine + c, grads, carry.client_control, message.control
                )

            return carry._replace(
                local=sgd_step(task, optimizer, message, carry.local, batch, job, correct)
            )

        def finish(message: Message, carry: Corrected, job):
            update = difference(carry.local.params, message.variables.params)
            weight = job_weight(weighting, job, carry.local.loss)
            state = state_change(
                carry.local.model_state, message.variables.model_state, task.state_changes
            )
            sent = contributions(update, state, weight)
            if option == "I":
                return sent, carry.client_control, loss_stats(carry.local)
            # a schedule may end at 0: then nothing moved, and nothing was learned about the drift
            moves = hp["client_lr"] > 0
            travelled = jnp.maximum(job.steps, 1) * jnp.where(moves, hp["client_lr"], 1)
            change = jax.tree.map(
                lambda c, d: jnp.where(moves, -c - d / travelled, 0), message.control, update
            )
            control = jax.tree.map(jnp.add, carry.client_control, change)
            sent["control"] = Contribution(change, jnp.ones_like(weight))
            return sent, control, loss_stats(carry.local)

        def server_update(state: ScaffoldState, aggregates, round):
            del round
            control = jax.tree.map(
                lambda c, change: c + change / hp["num_clients"],
                state.control,
                aggregates["control"].sum,
            )
            return ScaffoldState(step_server(state.server, aggregates, server_optimizer), control)

        def init(variables: Variables) -> ScaffoldState:
            return ScaffoldState(start_server(variables, server_optimizer), no_control(variables))

        local = ClientPass(
            broadcast=lambda state, aggregates: Message(state.server.variables, state.control),
            start=start,
            step=step,
            finish=finish,
        )
        return Algorithm(
            init=init,
            passes=(local, control_pass(task)) if option == "I" else (local,),
            server_update=server_update,
            variables=lambda state: state.server.variables,
            init_client=no_control,
        )

    own = {"client_lr": client_lr, "server_lr": server_lr}
    values = optimizer_arguments.hyperparameters("scaffold", own)
    return AlgorithmSpec("scaffold", build, values, client_optimizer)


def control_pass(task: LocalTask) -> ClientPass:
    """Returns the pass of option I: c_i' is the gradient at the global model over all rows."""
    gradient = gradient_pass(task, lambda total, job: total)

    def finish(message: Variables, carry, job):
        summed, client_control = carry
        total: Any = gradient.finish(message, summed, job)  # the sum itself, by the function above
        control = total.mean()
        change = difference(control, client_control)
        sent = {"control": Contribution(change, jnp.ones_like(total.loss))}
        return sent, control, loss_stats(total)

    return ClientPass(
        broadcast=lambda state, aggregates: state.server.variables,
        start=lambda message, own, job: (gradient.start(message, own, job), own),
        step=lambda message, carry, batch, job: (
            gradient.step(message, carry[0], batch, job),
            carry[1],
        ),
        finish=finish,
        schedule=gradient.schedule,
    )


def no_control(variables: Variables) -> PyTree:
    """Returns the control variate that everybody starts from."""
    return jax.tree.map(jnp.zeros_like, widened(variables.params))

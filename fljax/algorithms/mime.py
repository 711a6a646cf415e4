"""Mime: clients step as a centralized optimizer would, whose statistics stay frozen meanwhile.

Karimireddy et al. 2020, "Mime: mimicking centralized stochastic algorithms in federated learning"
(arXiv:2008.03606), Algorithm 1. A base optimizer is a step U(g, s) and statistics s <- V(g, s):

    sgd         U = g
    momentum    U = beta1 m + (1 - beta1) g                        m <- beta1 m + (1 - beta1) g
    adaptive    U = (beta1 m + (1 - beta1) g) / (sqrt(v) + tau)    m, v as those of FedOpt's servers

    clients     y <- y - lr U(g(y) - g(x) + c, s)     Mime, both g on the same rows
                y <- y - lr U(g(y), s)                MimeLite
    server      x <- x + server_lr mean(y - x)        s <- V(c, s)

where c is the mean of the clients' gradients at x over all of their rows, which they send before
they train. v starts at tau^2, as in FedOpt. MimeLite with sgd is FedAvg. (FedJAX takes any
optimizer and throws its new state away, so that a client's gradient is in v at each step.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms.fedavg import (
    ServerState,
    check_weighting,
    job_weight,
    local_training,
    sgd,
    sgd_step,
    step_server,
)
from fljax.algorithms.fedsgd import GradientSum, gradient_pass
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.algorithms.server_optimizers import scale_by_second_moment
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Contribution, step_key
from fljax.core.gradients import LocalTask
from fljax.core.precision import rounded, widened
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any

# The numbers that a base optimizer reads, with their defaults.
_DECAYS = {"beta1": 0.9, "beta2": 0.99, "tau": 1e-3}
_READ = {
    "sgd": (),
    "momentum": ("beta1",),
    "adagrad": ("beta1", "tau"),
    "adam": ("beta1", "beta2", "tau"),
    "yogi": ("beta1", "beta2", "tau"),
}


class BaseOptimizer(NamedTuple):
    """init: params -> s;  step: (g, s) -> U;  track: (g, s) -> V."""

    init: Callable[[PyTree], PyTree]
    step: Callable[[PyTree, PyTree], PyTree]
    track: Callable[[PyTree, PyTree], PyTree]


class Message(NamedTuple):
    """The global model, the optimizer's statistics s, and the mean gradient c, which Mime needs."""

    params: PyTree
    model_state: PyTree
    statistics: PyTree
    control: PyTree


def mime(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    base_optimizer: str = "momentum",
    weighting: str = "uniform",
    beta1: float | None = None,
    beta2: float | None = None,
    tau: float | None = None,
) -> AlgorithmSpec:
    """Returns Mime, whose local steps take two gradients each.

    Args:
      client_lr: Learning rate of the base optimizer, with which clients step.
      server_lr: Learning rate of the server; 1 averages the clients' models.
      base_optimizer: "sgd", "momentum", "adagrad", "adam" or "yogi".
      weighting: Of gradients and changes: "uniform" as in the paper, or "examples".
      beta1: Momentum, or decay of the first moment; None for 0.9.
      beta2: Decay of the second moment of adam and yogi; None for 0.99.
      tau: Adaptivity of the adaptive ones; None for 0.001.

    Raises:
      ValueError: For an unknown base optimizer, numbers out of range or that it does not read.

    Example:
      >>> algorithms.mime(client_lr=0.1, base_optimizer="adam").hparams["beta2"]
      0.99
    """
    decays = {"beta1": beta1, "beta2": beta2, "tau": tau}
    return _mime("mime", client_lr, server_lr, base_optimizer, weighting, decays)


def mimelite(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    base_optimizer: str = "momentum",
    weighting: str = "uniform",
    beta1: float | None = None,
    beta2: float | None = None,
    tau: float | None = None,
) -> AlgorithmSpec:
    """Returns MimeLite: Mime without its correction, of one gradient a local step.

    Args:
      client_lr, server_lr, base_optimizer, weighting, beta1, beta2, tau: As of `mime`.

    Raises:
      ValueError: As `mime`.

    Example:
      >>> algorithms.mimelite(client_lr=0.1).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 'beta1': 0.9}
    """
    decays = {"beta1": beta1, "beta2": beta2, "tau": tau}
    return _mime("mimelite", client_lr, server_lr, base_optimizer, weighting, decays)


def _mime(name, client_lr, server_lr, kind, weighting, decays) -> AlgorithmSpec:
    checked("base_optimizer", kind, ALGORITHM["base_optimizer"]._replace(optional=False))
    check_weighting(weighting)
    for number, value in decays.items():
        if value is not None and number not in _READ[kind]:
            raise ValueError(
                f"{number} = {value} has no effect with base_optimizer = {kind!r}, which reads "
                f"{' and '.join(_READ[kind]) or 'no such number'}. Leave it out."
            )
    read = {
        number: _DECAYS[number] if decays[number] is None else decays[number]
        for number in _READ[kind]
    }
    own = {"client_lr": client_lr, "server_lr": server_lr, **read}
    corrects, client_optimizer = name == "mime", sgd()

    def build(task: LocalTask, hp) -> Algorithm:
        base, optimizer, averaging = (
            made(kind, hp),
            client_optimizer(hp),
            optax.sgd(hp["server_lr"]),
        )

        def send_gradient(total: GradientSum, job):
            weight = job_weight(weighting, job, total.loss)
            return {"gradient": Contribution(total.mean(), weight)}, (), {}

        def broadcast(server: ServerState, aggregates):
            control = aggregates["gradient"].mean() if corrects else ()
            return Message(*server.variables, server.opt_state, control)

        def step(message: Message, carry, batch, job):
            def correct(grads, params, message):
                if corrects:
                    key = step_key(job)
                    there = task.gradient(message.params, message.model_state, batch, key)[0]
                    grads = jax.tree.map(lambda g, x, c: g - x + c, grads, there, message.control)
                return base.step(widened(grads), message.statistics)

            return sgd_step(task, optimizer, message, carry, batch, job, correct)

        def init(variables) -> ServerState:
            return ServerState(variables, base.init(widened(variables.params)))

        def server_update(server: ServerState, aggregates, round):
            del round
            moved = step_server(
                server._replace(opt_state=averaging.init(server.variables.params)),
                aggregates,
                averaging,
            )
            if "gradient" not in aggregates:
                return moved._replace(opt_state=server.opt_state)
            gradient = aggregates["gradient"]
            tracked = rounded(base.track(gradient.mean(), server.opt_state), server.opt_state)
            statistics = jax.tree.map(
                lambda new, old: jnp.where(gradient.count > 0, new, old), tracked, server.opt_state
            )
            return moved._replace(opt_state=statistics)

        local = local_training(task, optimizer, weighting)._replace(broadcast=broadcast, step=step)
        needs_gradient = corrects or kind != "sgd"
        return Algorithm(
            init=init,
            passes=(gradient_pass(task, send_gradient),) * needs_gradient + (local,),
            server_update=server_update,
            variables=lambda server: server.variables,
        )

    return AlgorithmSpec(name, build, hyperparameters(name, own), client_optimizer)


def made(kind: str, hp) -> BaseOptimizer:
    """Returns a base optimizer by name."""
    if kind == "sgd":
        return BaseOptimizer(lambda params: (), lambda g, s: g, lambda g, s: ())

    def mixed(grads, mean):
        return jax.tree.map(lambda g, m: hp["beta1"] * m + (1 - hp["beta1"]) * g, grads, mean)

    if kind == "momentum":
        return BaseOptimizer(lambda params: jax.tree.map(jnp.zeros_like, params), mixed, mixed)
    moments = scale_by_second_moment(kind, hp["beta1"], hp.get("beta2"), hp["tau"])

    def step(grads, frozen):
        return jax.tree.map(
            lambda m, v: m / (jnp.sqrt(v) + hp["tau"]), mixed(grads, frozen.mean), frozen.second
        )

    return BaseOptimizer(moments.init, step, lambda g, s: moments.update(g, s)[1])

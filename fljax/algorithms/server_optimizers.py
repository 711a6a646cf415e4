"""Makes the adaptive server optimizers of FedOpt.

Reddi et al. 2021, "Adaptive federated optimization" (arXiv:2003.00295), Algorithm 2:

    m <- beta1 m + (1 - beta1) D
    v <- v + D^2                                  FedAdagrad
    v <- v - (1 - beta2) D^2 sign(v - D^2)        FedYogi
    v <- beta2 v + (1 - beta2) D^2                FedAdam
    x <- x + server_lr m / (sqrt(v) + tau)

with v starting at tau^2 and no bias correction. `bias_correction=True` starts v at 0 and corrects
both moments as Kingma and Ba 2015 (arXiv:1412.6980) do.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.contradictions import ONLY_WITH
from fljax.core.parts import defaults_of
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked, shown

PyTree = Any

SERVER_OPTIMIZERS = ALGORITHM["server_optimizer"].allowed
# What their steps are multiplied by unless said otherwise: those of the adaptive ones have about
# the same size in each coordinate, whatever the size of the clients' mean change.
_SERVER_LR = {"sgd": 1.0, "momentum": 1.0, "adagrad": 0.01, "adam": 0.01, "yogi": 0.01}


class AdaptiveState(NamedTuple):
    """First and second moments, and the number of updates."""

    count: jax.Array
    mean: PyTree
    second: PyTree


def scale_by_second_moment(
    kind: str, beta1, beta2, tau, *, bias_correction: bool = False
) -> optax.GradientTransformation:
    """Returns m / (sqrt(v) + tau) of FedAdagrad, FedAdam or FedYogi.

    Args:
      kind: "adagrad", "adam" or "yogi".
      beta1: Decay of the first moment.
      beta2: Decay of the second moment; unused by adagrad.
      tau: Adaptivity; v starts at tau^2.
      bias_correction: Correct the moments for their start; then v starts at 0.
    """

    def second_moment(v, square):
        if kind == "adagrad":
            return v + square
        if kind == "yogi":
            return v - (1 - beta2) * square * jnp.sign(v - square)
        return beta2 * v + (1 - beta2) * square

    def init(params):
        start = 0.0 if bias_correction else tau**2
        return AdaptiveState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(lambda leaf: jnp.full_like(leaf, start), params),
        )

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        mean = jax.tree.map(lambda m, d: beta1 * m + (1 - beta1) * d, state.mean, updates)
        second = jax.tree.map(lambda v, d: second_moment(v, d * d), state.second, updates)
        state = AdaptiveState(count, mean, second)
        if bias_correction:
            mean = jax.tree.map(lambda m: m / (1 - beta1**count), mean)
            if kind != "adagrad":
                second = jax.tree.map(lambda v: v / (1 - beta2**count), second)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + tau), mean, second), state

    return optax.GradientTransformation(init, update)


def fedopt(
    server_optimizer: str = "adam",
    client_lr: float = 0.1,
    server_lr: float | None = None,
    *,
    weighting: str = "examples",
    beta1: float = 0.9,
    beta2: float = 0.99,
    tau: float = 1e-3,
    server_momentum: float = 0.9,
    bias_correction: bool = False,
    **options,
) -> AlgorithmSpec:
    """Returns FedAvg with another server optimizer.

    Args:
      server_optimizer: "sgd", "momentum" (FedAvgM, Hsu et al. 2019, arXiv:1909.06335), "adagrad",
        "adam" or "yogi".
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server; None takes 1 for "sgd" and "momentum", 0.01 for the
        adaptive ones.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      beta1: Decay of the first moment (the paper uses 0 with adagrad).
      beta2: Decay of the second moment.
      tau: Adaptivity.
      server_momentum: Momentum of FedAvgM.
      bias_correction: See the module's docstring.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError: If the optimizer is a function: `fedavg` takes those.
      ValueError: If the optimizer is unknown, or a number is given that it does not use.

    Example:
      >>> sorted(algorithms.fedopt('adam', server_lr=0.01).hparams)
      ['beta1', 'beta2', 'client_lr', 'server_lr', 'tau']
    """
    if callable(server_optimizer) or isinstance(server_optimizer, optax.GradientTransformation):
        raise TypeError(
            f"server_optimizer = {shown(server_optimizer)}: fedopt knows optimizers by name, "
            f"{', '.join(SERVER_OPTIMIZERS)}. One of your own goes to fljax.algorithms.fedavg("
            "server_optimizer=lambda hp: optax.sgd(hp['server_lr']))."
        )
    for name, value in (
        ("server_optimizer", server_optimizer),
        ("bias_correction", bias_correction),
    ):
        checked(name, value, ALGORITHM[name]._replace(optional=False))
    given = {
        "beta1": beta1,
        "beta2": beta2,
        "tau": tau,
        "server_momentum": server_momentum,
        "bias_correction": bias_correction,
    }
    _check_used(server_optimizer, given)
    server_lr = _SERVER_LR[server_optimizer] if server_lr is None else server_lr
    further = {name: options[name] for name in options.keys() - signature(fedavg).parameters}
    rates = {"client_lr": client_lr, "server_lr": server_lr}
    hyperparameters("fedopt", rates, further, (options.get("client_optimizer"),))
    if server_optimizer == "sgd":
        return fedavg(client_lr, server_lr, weighting=weighting, **options)
    if server_optimizer == "momentum":
        numbers = {"server_momentum": server_momentum}
        factory = lambda hp: optax.sgd(hp["server_lr"], momentum=hp["server_momentum"])  # noqa: E731
    else:
        used = {"beta1": beta1, "beta2": beta2, "tau": tau}
        numbers = {name: number for name, number in used.items() if _uses(server_optimizer, name)}
        factory = lambda hp: optax.chain(  # noqa: E731
            scale_by_second_moment(
                server_optimizer, hp["beta1"], hp.get("beta2"), hp["tau"],
                bias_correction=bias_correction,
            ),
            optax.scale_by_learning_rate(hp["server_lr"]),
        )  # fmt: skip
    options.setdefault("name", f"fedopt/{server_optimizer}")
    return fedavg(
        client_lr, server_lr, weighting=weighting, server_optimizer=factory, **numbers, **options
    )


def _check_used(kind: str, given: Mapping[str, Any]) -> None:
    """Raises ValueError for an argument that the optimizer does not use, unless at its default."""
    defaults = defaults_of(fedopt)
    for name, value in given.items():
        default = defaults[name]
        field = ALGORITHM[name]._replace(optional=False)
        if not _uses(kind, name) and checked(name, value, field) != default:
            raise ValueError(
                f"{name} = {value!r} has no effect with server_optimizer = {kind!r}. Leave it at "
                f"{default!r}, or choose {' or '.join(map(repr, ONLY_WITH[name][1]))}."
            )


def _uses(kind: str, name: str) -> bool:
    return kind in ONLY_WITH[name][1]

"""FedNova: clients' changes are normalized by how far each client went before they are averaged.

Wang et al. 2020, "Tackling the objective inconsistency problem in heterogeneous federated
optimization" (arXiv:2007.07481). After tau_i local steps at rate eta a client has moved by

    y_i - x = - eta G_i a_i                       G_i its gradients, one a column

where a_i says how much each of them counts: 1 in plain SGD, (1 - rho^(tau_i - k)) / (1 - rho) in
step k of 0 .. tau_i - 1 with momentum rho, (1 - eta mu)^(tau_i - 1 - k) with FedProx's pull. FedAvg
hence weights clients by |a_i|_1 once more. FedNova averages d_i = G_i a_i / |a_i|_1 and goes as far
as FedAvg would:

    server    x <- x - server_lr tau_eff sum p_i eta d_i,      tau_eff = sum p_i |a_i|_1

or gives this to momentum or another optimizer. p_i are the clients' weights. If all take equally
many steps this is FedAvg. |a_i|_1 is found step by step as the sum of a_i, whose entries are
positive with momentum or a pull (eta mu < 1). Clients' own rates eta_i belong to a_i.

(The official code takes sum p_i tau_i for tau_eff where there is a pull, and adds the sums of both
recurrences where there is momentum as well.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms.fedavg import fedavg
from fljax.core.algorithm import AlgorithmSpec, Contribution

PyTree = Any


class Normalized(NamedTuple):
    """Local training; how much gradients count in the last step, and in all steps: |a_i|_1."""

    local: PyTree
    last: jax.Array
    norm: jax.Array


def fednova(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    client_momentum: float | None = None,
    mu: float | None = None,
    server_momentum: float | None = None,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedNova.

    Clients send the normalized change, d_i, as "update" and eta |a_i|_1 as "path".

    Args:
      client_lr: Learning rate of the clients' SGD, eta.
      server_lr: Learning rate of the server.
      client_momentum: Momentum of the clients' SGD, rho; None for plain SGD.
      mu: FedProx's proximal coefficient; None for no proximal term.
      server_momentum: Momentum of the server; None for none.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`, but for `client_optimizer`.

    Raises:
      TypeError: For a client optimizer of one's own, whose a_i nobody knows, or a server optimizer
        beside `server_momentum`.
      ValueError: As `fedavg`.

    Example:
      >>> algorithms.fednova(client_lr=0.1, client_momentum=0.9).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 'client_momentum': 0.9}
    """
    if options.get("client_optimizer") is not None:
        raise TypeError(
            "fednova: how far clients go is known of SGD with client_momentum and mu, not of a "
            "client_optimizer of your own. Leave it out."
        )
    if server_momentum is not None:
        if options.get("server_optimizer") is not None:
            raise TypeError(
                f"fednova: server_momentum = {server_momentum} is that of the server's SGD, beside "
                "which there is a server_optimizer. Leave one of them out."
            )
        options["server_optimizer"] = lambda hp: optax.sgd(
            hp["server_lr"], momentum=hp["server_momentum"]
        )
        options["server_momentum"] = server_momentum
    options.setdefault("name", "fednova")
    plain = fedavg(
        client_lr, server_lr, client_momentum=client_momentum, mu=mu, weighting=weighting, **options
    )

    build_fedavg = plain.build
    has_momentum, is_proximal = client_momentum is not None, mu is not None

    def build(task, hp):
        algorithm = build_fedavg(task, hp)
        (local,) = algorithm.passes

        def start(message, client_state, job):
            carry = local.start(message, client_state, job)
            zero = jnp.zeros_like(carry.loss)
            return Normalized(carry, zero, zero)

        def step(message, carry, batch, job):
            last = 1.0
            if has_momentum:
                last += hp["client_momentum"] * carry.last
            if is_proximal:
                last -= hp["client_lr"] * hp["mu"] * carry.norm
            last = jnp.asarray(last, carry.last.dtype)
            stepped = local.step(message, carry.local, batch, job)
            return Normalized(stepped, last, carry.norm + last)

        def finish(message, carry, job):
            sent, state, stats = local.finish(message, carry.local, job)
            update = sent["update"]
            path = jnp.asarray(hp["client_lr"] * carry.norm, carry.norm.dtype)
            # a schedule may end at 0: then nobody moves
            direction = jax.tree.map(lambda d: d / jnp.where(path > 0, path, 1), update.value)
            sent |= {
                "update": update._replace(value=direction),
                "path": Contribution(path, update.weight),
            }
            return sent, state, stats

        def server_update(server, aggregates, round):
            update, path = aggregates["update"], aggregates["path"].mean()
            update = update._replace(sum=jax.tree.map(lambda d: path * d, update.sum))
            return algorithm.server_update(server, {**aggregates, "update": update}, round)

        normalized = local._replace(start=start, step=step, finish=finish)
        return algorithm._replace(passes=(normalized,), server_update=server_update)

    return plain._replace(build=build)

"""q-FedAvg: clients with a large loss count more, and the server's step follows from how much.

Li et al. 2020, "Fair resource allocation in federated learning" (arXiv:1905.10497), Algorithm 2,
which minimizes the sum of F_k^(q + 1) / (q + 1), with L = 1 / client_lr:

    clients   F_k = loss of w over all rows         w_k = w after local steps
              Delta_k = F_k^q L (w - w_k)           h_k = q F_k^(q - 1) |L (w - w_k)|^2 + L F_k^q
    server    w <- w - server_lr sum of Delta_k / sum of h_k

q = 0 is FedAvg in which clients count alike; q -> infinity serves the client that fares worst. F_k
belongs to the broadcast model and to all rows, hence the pass of forward computations before local
training: the mean loss of the local steps would cost nothing, but is the lower the longer a client
trains. Losses below 1e-10 count as 1e-10. Both sums are divided by L, so that q = 0 is a mean also
where clients have learning rates of their own, and by a q-th power of the cohort's losses, which
leaves the ratio as it is and keeps F_k^q in the range of floats: clients send F_k^2 first, and the
server tells the root of its mean.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.algorithms.client_losses import Message, counted, loss_pass, no_loss, reweighted
from fljax.algorithms.fedavg import fedavg, job_weight
from fljax.algorithms.optimizer_arguments import defaults_of, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Contribution
from fljax.core.gradients import LocalTask
from fljax.core.trees import square_norm

_SMALLEST_LOSS = 1e-10
# Of the logarithm of the largest float: how far F^q may go, so that sums over a cohort fit as well.
_SHARE_OF_RANGE = 0.75


def q_fedavg(
    q: float = 1.0,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    weighting: str = "uniform",
    **options,
) -> AlgorithmSpec:
    """Returns q-FedAvg.

    Args:
      q: How fair; 0 is FedAvg. The paper takes 0.001 to 15, mostly 1 or 5.
      client_lr: Learning rate of the clients, whose inverse is L.
      server_lr: Learning rate of the server, 1 in the paper.
      weighting: "uniform" counts clients alike but for F_k, as in the paper, which draws them by
        their rows; "examples" multiplies by the rows.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.q_fedavg(q=5.0, client_lr=0.1).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 'q': 5.0}
    """
    options.setdefault("name", "q_fedavg")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)

    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_fedavg(task, hp)
        (local,) = algorithm.passes

        def report(loss, job):
            loss = jnp.maximum(loss, _SMALLEST_LOSS)
            counts = counted(job_weight(weighting, job, loss))
            return {"square_loss": Contribution(loss**2, counts)}, loss

        def broadcast(server, aggregates) -> Message:
            square = aggregates["square_loss"].mean()
            usual = jnp.sqrt(jnp.where(square > 0, square, 1))  # 1 where nobody has said a loss
            return Message(algorithm.variables(server), usual)

        def weigh(usual, loss, update: Contribution, job):
            del job
            loss = jnp.maximum(loss, _SMALLEST_LOSS)  # of a client that has not found one
            exponent = hp["q"] * jnp.log(loss / usual)
            # with a steep q a loss far from the others' would be out of range even so, and nobody
            # would count where those others do not arrive
            most = _SHARE_OF_RANGE * jnp.log(jnp.finfo(exponent.dtype).max)
            weight = update.weight * jnp.exp(jnp.clip(exponent, -most, most))
            rate = jnp.where(hp["client_lr"] > 0, hp["client_lr"], 1)
            h = weight * (1 + hp["q"] * square_norm(update.value) / (loss * rate))
            return weight, {"h": Contribution(h, jnp.ones_like(h))}

        def server_update(server, aggregates, round):
            update, h = aggregates["update"], aggregates["h"].sum
            share = update.weight / jnp.where(h > 0, h, 1)
            shorter = jax.tree.map(lambda leaf: leaf * share.astype(leaf.dtype), update.sum)
            shorter = update._replace(sum=shorter)
            return algorithm.server_update(server, aggregates | {"update": shorter}, round)

        losses = loss_pass(task, algorithm.variables, report)
        return algorithm._replace(
            passes=(losses, reweighted(local, broadcast, weigh)),
            server_update=server_update,
            init_client=no_loss,
        )

    values = {**plain.hparams, **hyperparameters("q_fedavg", {"q": q})}
    return plain._replace(build=build, hparams=values, defaults=defaults_of(q_fedavg))

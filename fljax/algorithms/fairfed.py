"""FairFed: clients count the more, the nearer their gap between groups of rows is to everybody's.

Ezzeldin et al. 2023, "FairFed: enabling group fairness in federated learning" (arXiv:2110.00857),
Algorithm 1. Each row has a sensitive attribute A, such as sex; F is the gap of the model w between
A = 0 and A = 1, with equal opportunity P(y' = 1 | A = 0, y = 1) - P(y' = 1 | A = 1, y = 1), or with
demographic parity P(y' = 1 | A = 0) - P(y' = 1 | A = 1). In each round:

    clients   F_k, accuracy_k = those of w on all rows,     w_k = w after local steps
    server    D_k = |F - F_k|, or |accuracy - accuracy_k| where a client has no F_k
              omega_k <- omega_k - beta (D_k - mean of D)   at least 0
              w <- w + server_lr sum of omega_k (w_k - w) / sum of omega_k

F and the accuracy without k are those of all rows of the cohort, whose counts are what clients
send. omega_k starts as the client's share of its first cohort's weight. beta = 0 under full
participation is FedAvg.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.client_losses import (
    Message,
    by_domain,
    counted,
    domains_of,
    in_domain,
    reweighted,
)
from fljax.algorithms.fedavg import fedavg, job_weight, zero_of
from fljax.algorithms.optimizer_arguments import defaults_of, hyperparameters
from fljax.core.algorithm import Aggregate, Algorithm, AlgorithmSpec, ClientPass, Contribution
from fljax.core.gradients import LocalTask, Population
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked, shown

PyTree = Any


class FairFedState(NamedTuple):
    """FedAvg's server, and omega [N], NaN of clients that never took part."""

    server: PyTree
    omega: jax.Array


class Counts(NamedTuple):
    """Rows by their A, [..., 2]: all, with y = 1, with y' = 1, with both, with y' = y."""

    rows: jax.Array
    positive: jax.Array
    predicted: jax.Array
    hits: jax.Array
    right: jax.Array


def fairfed(
    beta: float = 1.0,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    sensitive: str | None = None,
    privileged: int = 1,
    gap: str = "equal_opportunity",
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FairFed, for tasks of two classes whose data have groups of rows.

    Args:
      beta: How strongly weights follow the gaps; 0 leaves them as they start.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      sensitive: Name of the groups of rows; None for the first.
      privileged: The number of the group with A = 1; rows of all others have A = 0.
      gap: "equal_opportunity" or "demographic_parity".
      weighting: Where omega starts: "examples" at a client's rows, "uniform" alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError: As `fedavg`.
      ValueError: As `fedavg`, or for data without such groups, or with other than two classes.

    Example:
      >>> algorithms.fairfed(beta=0.5).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 'beta': 0.5}
    """
    given = {"sensitive": sensitive, "privileged": privileged, "gap": gap}
    for name, value in given.items():
        checked(name, value, ALGORITHM[name]._replace(optional=name == "sensitive"))
    options.setdefault("name", "fairfed")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)

    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_fedavg(task, hp)
        clients = domains_of("clients", task.population)
        groups = _checked_name(task.population, sensitive)

        def weights(state: FairFedState, report: Aggregate) -> jax.Array:
            return _omega(state.omega, report, hp["beta"], gap)

        def broadcast(state: FairFedState, aggregates) -> Message:
            omega = weights(state, aggregates["counts"])
            return Message(algorithm.variables(state.server), jnp.nan_to_num(omega))

        def weigh(omega, own, update: Contribution, job):
            del own
            return in_domain(clients, omega, job).astype(update.weight.dtype), {}

        def server_update(state: FairFedState, aggregates, round) -> FairFedState:
            server = algorithm.server_update(state.server, aggregates, round)
            return FairFedState(server, weights(state, aggregates["counts"]))

        def init(variables) -> FairFedState:
            zero = zero_of(variables.params)
            return FairFedState(
                algorithm.init(variables), jnp.full(clients.number, jnp.nan, zero.dtype)
            )

        def send(counts: Counts, job):
            own = job_weight(weighting, job, counts.rows)
            return {"counts": by_domain(clients, (counts, own), counted(own), job)}

        counting = _counting_pass(
            task, lambda state: algorithm.variables(state.server), send, groups, privileged
        )
        return algorithm._replace(
            init=init,
            passes=(counting, reweighted(algorithm.passes[0], broadcast, weigh)),
            server_update=server_update,
            variables=lambda state: algorithm.variables(state.server),
        )

    values = {**plain.hparams, **hyperparameters("fairfed", {"beta": beta})}
    return plain._replace(build=build, hparams=values, defaults=defaults_of(fairfed))


def _counting_pass(
    task: LocalTask, variables, send, name: str | None, privileged: int
) -> ClientPass:
    """Returns the pass in which clients count their rows by group, target and prediction."""

    def start(message, client_state, job) -> Counts:
        del client_state, job
        return Counts(*[jnp.zeros(2, zero_of(message.params).dtype)] * len(Counts._fields))

    def step(message, carry: Counts, batch, job) -> Counts:
        del job
        found = task.measure(*message, batch).sums["accuracy"]
        hit, positive = found[0] > 0, batch["y"] == 1
        predicted = jnp.where(hit, positive, ~positive)
        of_group = batch["mask"] & jnp.stack(
            [batch["groups"][name] != privileged, batch["groups"][name] == privileged]
        )
        marked = Counts(True, positive, predicted, hit & positive, hit)
        return jax.tree.map(
            lambda total, mark: total + (of_group & mark).sum(-1).astype(total.dtype), carry, marked
        )

    return ClientPass(
        broadcast=lambda server, aggregates: variables(server),
        start=start,
        step=step,
        finish=lambda message, carry, job: (send(carry, job), (), {}),
        schedule="epoch",
        num_clusters=domains_of("clients", task.population).number,
        sums_of="client",
    )


def _checked_name(population: Population | None, sensitive: str | None) -> str | None:
    """Returns the name of the groups of rows; refuses data that FairFed is not for."""
    if population is None:
        return sensitive
    groups, classes = population.row_groups, population.num_classes
    if classes != 2:
        raise ValueError(
            f"fairfed compares how often two groups of rows are predicted to be of class 1, of "
            f"two classes, and the data have {classes}. Use q_fedavg, afl or term, which need no "
            "such groups."
        )
    name = next(iter(groups), None) if sensitive is None else sensitive
    if name not in groups:
        raise ValueError(
            f"sensitive = {shown(sensitive)}, and the data have "
            f"{', '.join(groups) or 'no'} groups of rows. Give FederatedDataset(row_groups=...), "
            "or use data that have them, such as adult."
        )
    return name


def _omega(omega: jax.Array, report: Aggregate, beta: jax.Array, gap: str) -> jax.Array:
    """Returns omega [N] after a round's report."""
    known = report.count > 0
    counts, own = jax.tree.map(
        lambda leaf: jnp.where(known.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0), report.mean()
    )
    everybody = jax.tree.map(lambda leaf: leaf.sum(0), counts)
    gaps, overall = _gap(counts, gap), _gap(everybody, gap)
    accuracy, overall_accuracy = _accuracy(counts), _accuracy(everybody)
    distance = jnp.abs(overall - gaps)
    distance = jnp.where(jnp.isnan(distance), jnp.abs(overall_accuracy - accuracy), distance)
    distance = jnp.where(known, distance, 0)
    mean = distance.sum() / jnp.maximum(known.sum(), 1)
    share = own / jnp.where(own.sum() > 0, own.sum(), 1)
    before = jnp.where(jnp.isnan(omega), share, omega)
    return jnp.where(known, jnp.maximum(before - beta * (distance - mean), 0), omega)


def _gap(counts: Counts, gap: str) -> jax.Array:
    """Returns the gap between A = 0 and A = 1; NaN where one has no rows."""
    if gap == "equal_opportunity":
        rates = _ratio(counts.hits, counts.positive)
    else:
        rates = _ratio(counts.predicted, counts.rows)
    return rates[..., 0] - rates[..., 1]


def _accuracy(counts: Counts) -> jax.Array:
    return counts.right.sum(-1) / jnp.maximum(counts.rows.sum(-1), 1)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    return jnp.where(whole > 0, part / jnp.maximum(whole, 1), jnp.nan)

"""Losses of the broadcast model at clients, which fair algorithms ask for before training.

A round has two passes. In the first, each client finds the loss of the broadcast model on all of
its rows, without training; the server reads it by client or by group. In the second, clients train
as FedAvg's do, and how much each counts follows from the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import zero_of
from fljax.core.algorithm import Aggregate, ClientPass, Contribution, Job, Variables, step_key
from fljax.core.gradients import LocalTask, LossSums, Population
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class Message(NamedTuple):
    """The global model, and what the server tells clients beside it."""

    variables: Variables
    told: PyTree


class Domains(NamedTuple):
    """Those who are to fare alike: clients, or groups of clients.

    Attributes:
      number: How many there are.
      name: What one of them is, "client" or "group".
      of: (job) -> int32, the one that a job's client belongs to.
    """

    number: int
    name: str
    of: Callable[[Job], jax.Array]


ONE = Domains(1, "client", lambda job: jnp.zeros_like(job.client))


def check_fair_among(fair_among: str) -> None:
    """Raises ValueError unless it is known what is to fare alike."""
    checked("fair_among", fair_among, ALGORITHM["fair_among"]._replace(optional=False))


def domains_of(fair_among: str, population: Population | None) -> Domains:
    """Returns the domains of a population.

    Args:
      fair_among: "clients", or "groups": the first kind of the data set's groups of clients.
      population: Its sizes; None where they do not matter.

    Raises:
      ValueError: If there are no groups.
    """
    population = population or Population(num_groups=1)
    if fair_among == "clients":
        return Domains(population.num_clients, "client", lambda job: job.client)
    if not population.num_groups:
        raise ValueError(
            "fair_among = 'groups', but the clients of this data set have no groups. Give it some, "
            "as in FederatedDataset(groups={'region': [...]}), or set fair_among = 'clients'."
        )
    return Domains(population.num_groups, "group", lambda job: job.group)


def loss_pass(
    task: LocalTask,
    variables: Callable[[PyTree], Variables],
    finish: Callable[[jax.Array, Job], tuple[dict[str, Contribution], PyTree]],
    domains: Domains = ONE,
) -> ClientPass:
    """Returns the pass in which a client finds its mean loss at the broadcast model.

    Args:
      task: The bound task.
      variables: (server_state) -> the model that is broadcast.
      finish: (mean loss over the client's rows, job) -> ({name: Contribution}, client_state').
      domains: Those of contributions that say theirs.
    """

    def start(message: Variables, client_state, job: Job) -> LossSums:
        del client_state, job
        return LossSums(zero_of(message.params), zero_of(message.params))

    def step(message: Variables, carry: LossSums, batch, job: Job) -> LossSums:
        sums, _ = task.loss(*message, batch, step_key(job), False)
        return LossSums(carry.loss + sums.loss, carry.weight + sums.weight)

    def finish_pass(message: Variables, carry: LossSums, job: Job):
        del message
        sent, state = finish(carry.loss / jnp.maximum(carry.weight, 1), job)
        return sent, state, {}

    return ClientPass(
        broadcast=lambda server, aggregates: variables(server),
        start=start,
        step=step,
        finish=finish_pass,
        schedule="epoch",
        num_clusters=domains.number,
        sums_of=domains.name,
    )


def reweighted(
    local: ClientPass,
    broadcast: Callable[[PyTree, dict[str, Aggregate]], Message],
    weigh: Callable[[PyTree, PyTree, Contribution, Job], tuple[jax.Array, dict[str, Contribution]]],
    domains: Domains = ONE,
) -> ClientPass:
    """Returns FedAvg's pass in which a client counts for as much as a rule says.

    Args:
      local: FedAvg's pass.
      broadcast: (server_state, aggregates so far) -> Message.
      weigh: (what the server told, client state, the client's update under its weight in FedAvg,
        job) -> (its weight, what else it sends).
      domains: Those of what else it sends, where it says its own.
    """

    def start(message: Message, client_state, job: Job):
        return client_state, local.start(message.variables, (), job)

    def step(message: Message, carry, batch, job: Job):
        client_state, here = carry
        return client_state, local.step(message.variables, here, batch, job)

    def finish(message: Message, carry, job: Job):
        client_state, here = carry
        sent, _, stats = local.finish(message.variables, here, job)
        weight, further = weigh(message.told, client_state, sent["update"], job)
        sent = {name: part._replace(weight=weight) for name, part in sent.items()}
        return sent | further, client_state, stats

    return ClientPass(
        broadcast, start, step, finish, num_clusters=domains.number, sums_of=domains.name
    )


def counted(weight: jax.Array) -> jax.Array:
    """Returns 1 for a client that counts in averages; 0 for one of weight 0, whom nobody asks."""
    return (weight > 0).astype(weight.dtype)


def by_domain(domains: Domains, value: PyTree, weight: jax.Array, job: Job) -> Contribution:
    """Returns a contribution to the mean of a client's domain."""
    return Contribution(value, weight, domains.of(job).astype(jnp.int32))


def in_domain(domains: Domains, values: jax.Array, job: Job) -> jax.Array:
    """Returns the value [D] of a client's domain; padding jobs get any."""
    return values[jnp.clip(domains.of(job), 0, domains.number - 1)]


def no_loss(variables: Variables) -> jax.Array:
    """Returns what a client keeps before it has found a loss."""
    return zero_of(variables.params)

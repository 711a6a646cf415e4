"""FedDrift: clients whose data have drifted start models of their own, and models alike are merged.

Jothimurugesan et al. 2023, "Federated learning under distributed concept drift"
(arXiv:2206.00799). Data of clients change from time step to time step, of some rounds each. At the
start of a step, with models h_m and l_c(m) their mean losses on the rows that client c holds now,

    clients   m* = argmin_m l_c(m), the model that c trains in all rounds of the step, unless
              l_c(m*) > (the same of the step before) + delta: then c is isolated, which is to say
              that it trains a new model alone, which others may choose from the next step on
    server    D(i, j) = max(L_ij - L_ii, L_ji - L_jj, 0), L_ij the mean loss of h_i on the rows of
              those who chose h_j; while the least D is below delta, that pair becomes one model,
              their mean by the data that each was given; of two distances to it the larger one
              counts (complete linkage)

FedDrift-Eager isolates all clients that drift in a step together, in one new model, and merges
nothing.

All is decided on the devices, within the round, among a fixed number of models. Where this differs:

  * The paper trains a model on all rows that its clients ever had, and judges D by them; here
    clients hold the rows of the present, which both are about.
  * The paper has as many models as it takes. Here the one that nobody has chosen for longest makes
    place, if nobody has in this step so far; where there is none, a client stays with its best.
  * A new model starts as a copy of the one that fits its client best, as in the authors' code.
    That code compares accuracies, isolates before it merges, and draws which idle model goes.
  * The paper has all clients in each round. Where they are not, a client chooses when it first
    comes in a step and compares with the last step that it came in; models are merged in the first
    round of a step, by the losses of those who are there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.clusters import (
    LossSums,
    Message,
    comparable,
    loss_pass,
    losses_of,
    model_of,
)
from fljax.algorithms.fedavg import fedavg, job_weight, zero_of
from fljax.algorithms.merging import NEVER, FedDriftState, distances, merged
from fljax.algorithms.optimizer_arguments import check_idle, given_of, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Contribution, Job, Variables
from fljax.core.clusterings import membership
from fljax.core.gradients import LocalTask, Population
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class ClientState(NamedTuple):
    """State of a client.

    Attributes:
      loss: The lowest loss that it found when it last chose.
      cluster: int32, its model; -1 before it took part.
      step: int32, the time step in which it chose; -1 before.
      drifted: Whether it waits for a model of its own, between the passes of a round.
    """

    loss: jax.Array
    cluster: jax.Array
    step: jax.Array
    drifted: jax.Array


class Times(NamedTuple):
    """Message before clients choose: int32[K], as of the state; the step it is now."""

    begun: jax.Array
    now: jax.Array


class Changes(NamedTuple):
    """Message before clients train.

    Attributes:
      into: int32[K] the model that each was merged into, or itself.
      isolated: int32[K] the client that starts each in this round, or -1.
      is_new: bool[K] which of them began in this step.
    """

    into: jax.Array
    isolated: jax.Array
    is_new: jax.Array


def feddrift(
    num_clusters: int = 8,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    drift_threshold: float = 0.1,
    step_rounds: float = 10.0,
    eager: bool = False,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedDrift, or FedDrift-Eager.

    `personalize` gives the model that a client trained in the last time step; one that did not come
    in it gets the model of the lowest loss on its rows, without rows the global one, which is that
    with the most weight. Each client receives all models, in either pass of a round. The server is
    told the losses of all models by each client that joins one, and by name who has drifted.

    Args:
      num_clusters: The most models.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      drift_threshold: delta, in units of the loss.
      step_rounds: Rounds of a time step. Data should change where one begins: after so many rounds,
        twice as many, and so on.
      eager: Whether it is FedDrift-Eager.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.feddrift(num_clusters=4, step_rounds=25).hparams["step_rounds"]
      25.0
    """
    checked("num_clusters", num_clusters, ALGORITHM["num_clusters"]._replace(optional=False))
    eager = checked("eager", eager, ALGORITHM["eager"]._replace(optional=False))
    options.setdefault("name", "feddrift")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    numbers = {"drift_threshold": drift_threshold, "step_rounds": step_rounds}
    numbers = hyperparameters("feddrift", numbers)
    if num_clusters == 1:
        given = given_of(feddrift, {**numbers, "eager": eager})
        check_idle(given, "num_clusters = 1", "set num_clusters, such as 8")

    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        return _algorithm(task, build_fedavg(task, hp), num_clusters, weighting, eager, hp)

    return plain._replace(build=build, hparams={**plain.hparams, **numbers})


def _algorithm(
    task: LocalTask, algorithm: Algorithm, num_models: int, weighting: str, eager: bool, hp
) -> Algorithm:
    (local,) = algorithm.passes
    population = (task.population or Population()).num_clients
    each = jnp.arange(num_models)

    def step_of(state: FedDriftState) -> jax.Array:
        return jnp.floor(state.round / hp["step_rounds"]).astype(jnp.int32)

    def models_of(state: FedDriftState) -> Variables:
        return jax.vmap(lambda server: local.broadcast(server, {}))(state.servers)

    def broadcast_to_choose(state: FedDriftState, aggregates) -> Message:
        return Message(models_of(state), Times(state.begun, step_of(state)))

    measure = loss_pass(task, broadcast_to_choose, None)

    def choose(message: Message, carry: tuple[ClientState, LossSums], job: Job):
        before, losses = carry
        begun, now = message.known
        chooses = (before.step != now) | (begun[before.cluster] > now)
        joinable = begun < now
        mean = comparable(losses.losses / jnp.maximum(losses.weight, 1), joinable)
        best = jnp.argmin(mean).astype(jnp.int32)
        drifted = chooses & (before.cluster >= 0)
        drifted &= mean[best] > before.loss + hp["drift_threshold"]
        weight = job_weight(weighting, job, mean)
        joins = ((each == best) & chooses & ~drifted).astype(mean.dtype)
        # of diverged models a large loss, of which sums are finite
        told = jnp.minimum(comparable(losses.losses, joinable), jnp.finfo(mean.dtype).max ** 0.5)
        found = {
            "losses": joins[:, None] * told,
            "rows": joins * losses.weight,
            "data": joins * weight,
            "best": ((each == best) & chooses).astype(mean.dtype),
        }
        who = {"best": best.astype(mean.dtype), "data": weight}
        state = ClientState(mean[best].astype(before.loss.dtype), best, now, drifted)
        kept = before._replace(drifted=drifted)
        return (
            {
                "found": Contribution(found, jnp.ones_like(weight)),
                "isolated": Contribution(who, drifted.astype(mean.dtype), job.client),
            },
            jax.tree.map(lambda new, old: jnp.where(chooses, new, old), state, kept),
            {},
        )

    def changed(state: FedDriftState, aggregates) -> tuple[FedDriftState, Changes]:
        """Returns the state at the start of training, and what to tell clients of it."""
        now, found = step_of(state), aggregates["found"].sum
        is_first = now != state.step
        state = state._replace(
            used=jnp.where(found["best"] > 0, now, state.used),
            data=state.data + found["data"].astype(state.data.dtype),
            step=now,
        )
        into = each
        if not eager and num_models > 1:
            apart = jnp.where(is_first, distances(found["losses"], found["rows"]), jnp.inf)
            state, into = merged(state, apart, hp["drift_threshold"])
        asked = aggregates["isolated"]
        clients = jnp.nonzero(asked.weight > 0, size=num_models, fill_value=population)[0]
        there_is = clients < population
        if eager:
            there_is &= (each == 0) & ~(state.begun == now).any()
        age = jnp.where(state.begun == NEVER, -2, state.used)
        order = jnp.argsort(age)
        there_is &= age[order] < now
        isolated = jnp.full(num_models, -1).at[order].set(jnp.where(there_is, clients, -1))
        isolated = isolated.astype(jnp.int32)
        is_new = isolated >= 0
        of_client = jax.tree.map(lambda leaf: leaf[isolated], asked.mean())
        source = jnp.where(is_new, into[jnp.round(of_client["best"]).astype(jnp.int32)], each)
        servers = jax.lax.cond(
            is_new.any(),
            lambda servers: jax.tree.map(lambda leaf: leaf[source], servers),
            lambda servers: servers,
            state.servers,
        )
        state = state._replace(
            servers=servers,
            weight=jnp.where(is_new, 0, state.weight),
            begun=jnp.where(is_new, now, state.begun),
            used=jnp.where(is_new, now, state.used),
            data=jnp.where(is_new, of_client["data"], state.data).astype(state.data.dtype),
        )
        return state, Changes(into.astype(jnp.int32), isolated, state.begun == now)

    def broadcast_to_train(state: FedDriftState, aggregates) -> Message:
        state, changes = changed(state, aggregates)
        return Message(models_of(state), changes)

    def start(message: Message, own: ClientState, job: Job):
        changes = message.known
        alone = changes.is_new if eager else changes.isolated == job.client
        alone &= own.drifted
        cluster = jnp.where(alone.any(), jnp.argmax(alone), changes.into[own.cluster])
        own = own._replace(cluster=cluster.astype(jnp.int32), drifted=jnp.zeros_like(own.drifted))
        return own, local.start(model_of(message, own.cluster), (), job)

    def step(message: Message, carry, batch, job: Job):
        own, here = carry
        return own, local.step(model_of(message, own.cluster), here, batch, job)

    def finish(message: Message, carry, job: Job):
        own, here = carry
        sent, _, stats = local.finish(model_of(message, own.cluster), here, job)
        sent = {name: part._replace(cluster=own.cluster) for name, part in sent.items()}
        return sent, own, stats | membership(own.cluster, num_models)

    def server_update(state: FedDriftState, aggregates, round) -> FedDriftState:
        state, _ = changed(state, aggregates)
        update = aggregates["update"]
        own = {name: aggregates[name] for name in ("update", "model_state") if name in aggregates}
        servers = jax.vmap(algorithm.server_update, (0, 0, None))(state.servers, own, round)
        weight = jnp.where(update.weight.sum() > 0, update.weight, state.weight)
        return state._replace(servers=servers, weight=weight, round=round + 1)

    def init(variables: Variables) -> FedDriftState:
        server = algorithm.init(variables)
        none = jnp.zeros(num_models, zero_of(variables.params).dtype)
        return FedDriftState(
            servers=jax.tree.map(lambda leaf: jnp.stack([leaf] * num_models), server),
            weight=none,
            begun=jnp.where(each == 0, -1, NEVER).astype(jnp.int32),
            used=jnp.full(num_models, -1, jnp.int32),
            data=none,
            step=jnp.int32(-1),
            round=jnp.int32(0),
        )

    def init_client(variables: Variables) -> ClientState:
        nothing = zero_of(variables.params)
        return ClientState(nothing, jnp.int32(-1), jnp.int32(-1), jnp.bool_(False))

    def largest(state: FedDriftState) -> Variables:
        return model_of(Message(models_of(state), ()), jnp.argmax(state.weight))

    def cluster_of(state: FedDriftState, own: ClientState) -> jax.Array:
        # of a model that was merged or made place nobody's number is left
        is_there = (own.cluster >= 0) & (state.begun[own.cluster] <= own.step)
        return jnp.where(is_there, own.cluster, -1)

    def personalize(state: FedDriftState, own: ClientState, batch, key) -> Variables:
        message = Message(models_of(state), ())
        losses = losses_of(task, message.models, batch, key)
        best = jnp.argmin(comparable(losses, state.begun != NEVER))
        best = jnp.where(batch["mask"].any(), best, jnp.argmax(state.weight))
        cluster = jnp.where(own.step == state.step, cluster_of(state, own), -1)
        return model_of(message, jnp.where(cluster < 0, best, cluster))

    return algorithm._replace(
        init=init,
        passes=(
            measure._replace(
                start=lambda message, own, job: (own, measure.start(message, own, job)),
                step=lambda message, carry, batch, job: (
                    carry[0],
                    measure.step(message, carry[1], batch, job),
                ),
                finish=choose,
                num_clusters=population,
                sums_of="client",
            ),
            local._replace(
                broadcast=broadcast_to_train,
                start=start,
                step=step,
                finish=finish,
                num_clusters=num_models,
            ),
        ),
        server_update=server_update,
        variables=largest,
        init_client=init_client,
        personalize=personalize,
        cluster=cluster_of,
    )

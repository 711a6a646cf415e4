"""Updates of single clients as a server sees them, and how each lies to each row.

A server without secure aggregation holds the update of every client before it adds them up; with
it, the sum alone. Here clients train once more from the models of a round, in the same round
program, with the same keys, on the same batches; the server keeps what each sent. A row's gradient
beside the update of the client that may hold it is what attacks on updates read (Nasr et al. 2019,
arXiv:1812.00910; Li et al. 2022, arXiv:2202.10209, who compare cosines).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.config.experiment import Experiment
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.core.gradients import LocalTask, Population
from fljax.core.task import Task
from fljax.core.transforms import Pipeline
from fljax.data.dataset import FederatedDataset
from fljax.privacy.protection import Protection, protected
from fljax.studies.audit.federations import Snapshot
from fljax.studies.audit.statements import Asked
from fljax.studies.audit.threats import SHARED_OUT
from fljax.studies.groups import Group
from fljax.training.binding import bound
from fljax.training.federation import Federation, build
from fljax.training.local_work import structure_of
from fljax.training.options import split_options
from fljax.training.trials import TrialInputs, initial_trials

PyTree = Any
# Options of a round in which nothing is private.
_UNPROTECTED = dict.fromkeys(("privacy", "clip_norm", "noise_multiplier", "delta"))


class WatchedState(NamedTuple):
    """A server that remembers what clients sent.

    Attributes:
      server: The algorithm's own state.
      updates: Leaves [N, ...], the update of each client in the last round; zeros of the absent.
      weights: float[N] their weights.
    """

    server: PyTree
    updates: PyTree
    weights: jax.Array


class Alignments(NamedTuple):
    """Inner products of the updates of S federations with the gradients of T rows.

    Attributes:
      inner: float64[S, T], inner product of the update that is looked at for a row, and its
        gradient.
      gradients: float64[S, T], squared norm of each row's gradient.
      updates: float64[S, T], squared norm of that update.
    """

    inner: np.ndarray
    gradients: np.ndarray
    updates: np.ndarray


def watched(spec: AlgorithmSpec) -> AlgorithmSpec:
    """Returns the algorithm whose server keeps each client's update, and takes no step.

    It is one of a single pass, a single model, and clients that keep nothing.

    Example:
      >>> watched(fljax.algorithms.fedavg(client_lr=0.1)).name
      'fedavg'
    """

    def build_watched(task: LocalTask, hparams) -> Algorithm:
        algorithm = spec.build(task, hparams)
        (local,) = algorithm.passes
        population = (task.population or Population()).num_clients

        def init(variables: Variables) -> WatchedState:
            updates = jax.tree.map(
                lambda leaf: jnp.zeros((population, *leaf.shape), leaf.dtype), variables.params
            )
            return WatchedState(algorithm.init(variables), updates, jnp.zeros(population))

        def finish(message, carry, job):
            sent, client_state, stats = local.finish(message, carry, job)
            return {"update": sent["update"]._replace(cluster=job.client)}, client_state, stats

        def server_update(state: WatchedState, aggregates, round) -> WatchedState:
            update = aggregates["update"]
            updates = jax.tree.map(
                lambda mean, old: mean.astype(old.dtype), update.mean(), state.updates
            )
            return state._replace(updates=updates, weights=update.weight)

        watching = local._replace(
            broadcast=lambda state, aggregates: local.broadcast(state.server, aggregates),
            finish=finish,
            num_clusters=population,
            sums_of="client",
        )
        return algorithm._replace(
            init=init,
            passes=(watching,),
            server_update=server_update,
            variables=lambda state: algorithm.variables(state.server),
        )

    return spec._replace(build=build_watched)


def _check_watched(spec: AlgorithmSpec, algorithm: Algorithm) -> None:
    problem = None
    if len(algorithm.passes) > 1:
        problem = f"has {len(algorithm.passes)} passes a round"
    elif algorithm.passes[0].num_clusters > 1:
        problem = "says on the devices which sum an update belongs to"
    elif algorithm.init_client is not None:
        problem = "has clients that keep something from round to round"
    elif not algorithm.has_global_model or algorithm.initial_models > 1:
        problem = "has no single global model"
    elif algorithm.combine is not None:
        problem = "combines updates by a rule of its own"
    if problem:
        raise ValueError(
            f"Updates of {spec.name} cannot be watched: it {problem}. Leave the view 'updates' out."
        )


def make_watcher(
    group: Group, plain: Experiment
) -> Callable[[Snapshot], tuple[PyTree, np.ndarray]]:
    """Returns the function that sees what all clients send, of the federations of a snapshot.

    Secure aggregation, and noise that is added to sums, hide nothing from a server that holds the
    single updates, and are left out. What clients do by themselves stays: compression, noise in
    their gradients or in what they send.

    Args:
      group: The federations, see `fljax.studies.audit.shadows.shadow_group`.
      plain: Their experiment before its protection was drawn.

    Returns:
      (snapshot) -> (updates, leaves [S, N, ...], on the devices; float[S, N] their weights, zero of
      clients that sent nothing).

    Raises:
      ValueError: For algorithms whose updates cannot be watched.
    """
    dataset, task, spec, options, _ = group.experiment
    _check_watched(spec, structure_of(task, spec))
    rounds, _ = split_options(options)
    privacy, left_out = _at_clients(rounds.privacy)
    pipeline = plain.options.get("pipeline", Pipeline())
    if privacy is None:
        rounds = dataclasses.replace(rounds, **_UNPROTECTED)
    else:
        rounds = dataclasses.replace(rounds, privacy=privacy)
        pipeline = protected(pipeline, privacy)
    rounds = dataclasses.replace(
        rounds,
        pipeline=pipeline,
        target_epsilon=None,
        secure_aggregation=None,
        clients_per_round=dataset.num_clients,
        cohorts=None,
    )
    partitions = [one.train.partition for one in group.datasets]
    held: list[Federation] = []

    def watch(snapshot: Snapshot) -> tuple[PyTree, np.ndarray]:
        inputs = [_without(group.inputs[number], left_out) for number in snapshot.numbers]
        if not held or len(held[0].trials) < len(inputs):
            with _without_a_step():
                held[:] = [build(dataset, task, watched(spec), rounds, inputs, partitions)]
        (federation,) = held
        # places that are left over see the first model again
        places = np.arange(len(federation.trials))
        places = np.where(places < len(inputs), places, 0)
        if (wanted := [inputs[source] for source in places]) != federation.trials:
            federation.replace(dict(enumerate(wanted)))
        models = jax.tree.map(lambda leaf: leaf[places], snapshot.models)
        first = initial_trials(task, federation.trials, federation.participants)
        federation.state = federation.start(first._replace(variables=models))
        with _without_a_step():
            for plan, facts in federation.plans(snapshot.round, snapshot.round + 1):
                federation.step(plan, facts)
        server = federation.state.server
        seen = jax.tree.map(lambda leaf: leaf[: len(inputs)], server.updates)
        return seen, np.asarray(server.weights)[: len(inputs)]

    return watch


@contextlib.contextmanager
def _without_a_step() -> Iterator[None]:
    """Says nothing of a server that hands its model on as it is, in the same buffers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers were not usable")
        yield


def _at_clients(privacy: Protection | None) -> tuple[Protection | None, tuple[str, ...]]:
    """Returns what clients do of a protection, and which numbers belong to what is left out."""
    if not isinstance(privacy, Protection) or privacy.mechanism is None:
        return None, ()
    mechanism, alone = privacy.mechanism, privacy._replace(secure_aggregation=None, unit=None)
    if mechanism.name in SHARED_OUT:
        raise ValueError(
            f"Updates under {mechanism.name} cannot be watched: its noise is that of sums, and no "
            "server sees anything without it. Leave the views 'updates' and 'sums' out."
        )
    link = mechanism.link and mechanism.link(mechanism.hparams, privacy.setting)
    if link is not None and link.release is not None:
        return None, tuple(mechanism.hparams)
    return alone._replace(fixed_norm=None), ()


def _without(inputs: TrialInputs, names: Sequence[str]) -> TrialInputs:
    kept = {name: value for name, value in inputs.hparams.items() if name not in names}
    return inputs._replace(hparams=kept)


def make_alignments(
    task: Task, dataset: FederatedDataset
) -> Callable[[Variables, PyTree, PyTree, Asked, np.ndarray], Alignments]:
    """Returns the function that lays updates beside the gradients of single rows, compiled once.

    Args:
      task: What models learn.
      dataset: Whose preprocessing rows go through.

    Returns:
      (models, leaves [S, ...]; their constants; updates, leaves [S, N, ...]; rows; int[T] which of
      the N updates each row is laid beside) -> Alignments.
    """

    def gradient_of(local: LocalTask, variables: Variables, example):
        batch = jax.tree.map(lambda leaf: leaf[None], example)

        def loss(params):
            sums, _ = local.loss(params, variables.model_state, batch, jax.random.key(0), False)
            return sums.loss / jnp.maximum(sums.weight, 1)

        return jax.grad(loss)(variables.params)

    def of_a_batch(local, variables, updates, batch, owners):
        of_a_row = functools.partial(gradient_of, local)
        gradients = jax.vmap(of_a_row, (None, 0))(variables, batch)
        pairs = list(zip(jax.tree.leaves(gradients), jax.tree.leaves(updates), strict=True))
        flat = [(g.reshape(len(g), -1), u.reshape(len(u), -1)) for g, u in pairs]
        products = sum(g @ u.T for g, u in flat)
        inner = jnp.take_along_axis(products, owners[:, None], 1)[:, 0]
        return inner, sum((g**2).sum(1) for g, _ in flat)

    @jax.jit
    def of_models(models, frozen, updates, batches, owners):
        local = bound(task, frozen, dataset)

        def of_a_model(pair):
            return jax.lax.map(lambda batch: of_a_batch(local, *pair, *batch), (batches, owners))

        squares = [leaf**2 for leaf in jax.tree.leaves(updates)]
        norms = sum(leaf.reshape(*leaf.shape[:2], -1).sum(2) for leaf in squares)
        return *jax.lax.map(of_a_model, (models, updates)), norms

    def alignments(models, frozen, updates, rows: Asked, owners: np.ndarray) -> Alignments:
        shape = jax.tree.leaves(rows.batches)[0].shape[:2]
        padded = np.zeros(shape, np.int32)
        padded.reshape(-1)[: rows.count] = owners
        laid = of_models(models, frozen, updates, rows.batches, padded)
        inner, gradients, norms = jax.device_get(laid)
        inner, gradients = (
            np.asarray(values.reshape(len(values), -1)[:, : rows.count], np.float64)
            for values in (inner, gradients)
        )
        return Alignments(inner, gradients, np.asarray(norms, np.float64)[:, owners])

    return alignments


def summed(updates: PyTree, weights: np.ndarray) -> PyTree:
    """Returns what secure aggregation shows of updates: their mean by weight, leaves [S, 1, ...].

    Args:
      updates: Leaves [S, N, ...].
      weights: float[S, N].
    """
    shares = weights / np.maximum(weights.sum(1, keepdims=True), np.finfo(float).tiny)
    return jax.tree.map(
        lambda leaf: jnp.einsum("sn,sn...->s...", shares.astype(leaf.dtype), leaf)[:, None],
        updates,
    )

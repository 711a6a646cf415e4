"""Evaluates clients' own models, each on held-out rows of its own client.

    prepare ─► PersonalSet ─► evaluate (device, asynchronous) ─► finish (host)

An algorithm says by `personalize` what a client's model is: kept by the client, or made of the
global one on the client's training rows. The held-out rows of a client lie in batches of their own,
one client behind the other, so that a device makes one model at a time and clients of any size fill
their batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fljax.core.algorithm import Algorithm, Variables
from fljax.core.gradients import LocalTask, bind
from fljax.core.metrics import Metric, client_metrics, client_summary, global_metrics, spread_metric
from fljax.data.dataset import FederatedDataset, Partition, Split
from fljax.engine.devices.execution import AXIS
from fljax.engine.devices.placement import host_readable, put_sharded
from fljax.engine.program.keys import PERSONAL
from fljax.training.client_tables import group_record
from fljax.training.evaluation import (
    EvalInputs,
    EvalOutputs,
    batch_of,
    clients_with_rows,
    measure_batches,
    place_rows,
    sample_clients,
)
from fljax.training.federation import Federation
from fljax.training.judged_rows import held_out_split, validation_split
from fljax.training.new_clients import PassWork, make_states, planned
from fljax.training.row_group_metrics import GroupedRows, grouped_rows, row_group_record

PyTree = Any


class PersonalInputs(NamedTuple):
    """The device part: D devices, S batches of held-out rows, K clients of a device.

    Attributes:
      held_out: Batches [D, S, B] of held-out rows.
      own: [D, K, R] training rows of each client.
      client: int32[D, K] client numbers.
      place: int32[D, S] whose rows a batch holds, among the K clients of its device.
      first: bool[D, S], whether it is the first batch of its client.
      validation: [D, K, V] validation rows of each client; None where nothing is chosen by them.
    """

    held_out: EvalInputs
    own: EvalInputs
    client: jax.Array
    place: jax.Array
    first: jax.Array
    validation: EvalInputs | None = None


class PersonalSet(NamedTuple):
    """Clients whose own models are evaluated.

    Attributes:
      inputs: What the devices read.
      clients: int64[D, K] client numbers; the last one again where devices have fewer than others.
      owners: int64[D, S, B] client of each held-out row, -1 in padding.
      num_clients: Size of the population.
      rows: int64[D, S, B] number of each held-out row among the examples; any in padding.
      grouped: The real ones of them, where metrics are reported by group of rows as well, or None.
      works: The local work of clients that never trained, and take part once before (of each pass);
        None of clients of the population.
    """

    inputs: PersonalInputs
    clients: np.ndarray
    owners: np.ndarray
    num_clients: int
    rows: np.ndarray
    grouped: GroupedRows | None = None
    works: tuple[PassWork, ...] | None = None


def prepare(
    train: Split,
    held_out: Split,
    clients: np.ndarray,
    mesh: Mesh,
    batch_size: int,
    train_data: PyTree = None,
    held_out_data: PyTree = None,
    first: int = 0,
) -> PersonalSet:
    """Lays out the rows of clients on the devices, which share the clients.

    Args:
      train: Training rows, over all clients.
      held_out: Other rows of the same clients.
      clients: int[clients] whose models are evaluated; all have held-out rows.
      mesh: The devices.
      batch_size: Most held-out rows of a batch.
      train_data, held_out_data: Arrays of the examples where they are on the devices already.
      first: Number of client 0 for keys and jobs: new clients come behind the population.
    """
    share = -(-len(clients) // mesh.size)
    chosen = np.full((mesh.size, share), clients[-1], np.int64)
    chosen.reshape(-1)[: len(clients)] = clients
    sizes = held_out.partition.sizes[chosen]
    sizes.reshape(-1)[len(clients) :] = 0
    place, rows, counts = _batches(held_out.partition, chosen, sizes, batch_size)
    begins = np.diff(place, axis=1, prepend=-1) > 0
    owners = np.take_along_axis(chosen, place, 1)[..., None]
    return PersonalSet(
        inputs=PersonalInputs(
            held_out=place_rows(held_out.examples, rows, counts, mesh, held_out_data),
            own=_rows_of(train, chosen, mesh, train_data),
            client=put_sharded((first + chosen).astype(np.int32), mesh),
            place=put_sharded(place.astype(np.int32), mesh),
            first=put_sharded(begins, mesh),
        ),
        clients=chosen,
        owners=np.where(np.arange(rows.shape[-1]) < counts[..., None], owners, -1),
        num_clients=train.partition.num_clients,
        rows=rows,
    )


def _grouped(made: PersonalSet, dataset: FederatedDataset, held_out: Split) -> PersonalSet:
    """Returns the clients with the groups of their held-out rows, where rows have some."""
    if not dataset.row_groups:
        return made
    real = made.owners >= 0
    rows, owners = made.rows[real], made.owners[real]
    groups = grouped_rows(dataset, held_out, owners, made.num_clients, rows)
    return made._replace(grouped=groups)


def _rows_of(split: Split, clients: np.ndarray, mesh: Mesh, data: PyTree = None) -> EvalInputs:
    """Lays out all rows that clients [D, K] own of a split, one batch a client.

    Padding is a client's rows over and over, for models that see it: statistics of a batch are then
    close to those of the rows, where one row again and again would be most of them.
    """
    sizes = split.partition.sizes[clients]
    position = np.arange(max(sizes.max(), 1)) % np.maximum(sizes, 1)[..., None]
    # what stands in for the rows of a client that has none
    somebody = np.where(sizes > 0, clients, np.argmax(split.partition.sizes))
    rows = split.partition.row_at(somebody[..., None], position)
    return place_rows(split.examples, rows, sizes, mesh, data)


def _batches(
    partition: Partition, clients: np.ndarray, sizes: np.ndarray, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts the rows of clients into batches; each holds rows of one client.

    Args:
      partition: Of the rows.
      clients: int[D, K] clients of each device.
      sizes: int[D, K] how many rows they have; one or more of those whose rows come first.
      batch_size: Most rows of a batch.

    Returns:
      (int[D, S] the place of each batch's client among the K, int[D, S, B] its rows, int[D, S] how
      many are real). Empty batches stay with the last client that has some.
    """
    width = int(min(batch_size, sizes.max()))
    batches = -(-sizes // width)
    steps = np.arange(batches.sum(1).max())
    ends = np.cumsum(batches, 1)
    last = (sizes > 0).sum(1) - 1
    place = np.minimum((steps >= ends[..., None]).sum(1), last[:, None])
    number = steps - np.take_along_axis(ends - batches, place, 1)
    size = np.take_along_axis(sizes, place, 1)
    counts = np.clip(size - number * width, 0, width)
    position = np.minimum(number[..., None] * width + np.arange(width), size[..., None] - 1)
    owner = np.take_along_axis(clients, place, 1)
    return place, partition.row_at(owner[..., None], np.maximum(position, 0)), counts


def make_evaluate(
    build: Callable[[PyTree, Mapping[str, jax.Array]], Algorithm],
    bind: Callable[[PyTree], LocalTask],
    mesh: Mesh,
) -> Callable[..., EvalOutputs]:
    """Makes the compiled evaluation of clients' own models.

    Args:
      build: (frozen, hparams) -> the algorithm, which personalizes.
      bind: (frozen) -> LocalTask.
      mesh: The mesh the clients were prepared for.

    Returns:
      A jitted function (server_states, hparams, keys, trial, client_states, round, frozen,
      lr_factors, inputs) -> EvalOutputs: server states, hparams and the keys of seeds have an axis
      over trials, client states are leaves [D x K, ...] of that trial, lr_factors are as in
      `fljax.engine.program.inputs.OwnNumbers`; new clients have the plain learning rate.
    """

    def one_device(server, hparams, states, key, frozen, lr_factors, inputs: PersonalInputs):
        task, algorithm = bind(frozen), build(frozen, hparams)
        clusters = None
        if algorithm.cluster is not None:
            clusters = jax.vmap(lambda state: algorithm.cluster(server, state))(states)
        held_out, own, validation = (
            split
            and split._replace(
                counts=split.counts[0], rows=_first(split.rows), staged=_first(split.staged)
            )
            for split in (inputs.held_out, inputs.own, inputs.validation)
        )
        client, place, first = _first((inputs.client, inputs.place, inputs.first))

        def personalization(client):
            if lr_factors is None:
                return personalization_of(algorithm)
            rate = hparams["client_lr"] * lr_factors.at[client].get(mode="fill", fill_value=1)
            return personalization_of(build(frozen, {**hparams, "client_lr": rate}))

        def all_rows(split, place):
            batch = jax.tree.map(lambda leaf: leaf[place], (split.counts, split.rows, split.staged))
            return batch_of(*batch, split.data)

        def model_of(place):
            state = jax.tree.map(lambda leaf: leaf[place], states)
            own_key = jax.random.fold_in(key, client[place])
            model = personalization(client[place])(server, state, all_rows(own, place), own_key)
            if validation is not None:
                model = algorithm.tune(server, model, all_rows(validation, place))
            # strongly typed, as what a loop carries must be
            return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), model)

        def measured(model, step):
            rows, place, first = step
            # a branch, not a select, since nothing is mapped: a model is made once a client
            model = jax.lax.cond(first, model_of, lambda place: model, place)
            batch = batch_of(*rows, held_out.data)
            if algorithm.predict is None:
                return model, task.measure(model.params, model.model_state, batch)
            return model, task.judge(algorithm.predict(server, model, batch), batch)

        none = jax.tree.map(jnp.zeros_like, jax.eval_shape(model_of, place[0]))
        steps = ((held_out.counts, held_out.rows, held_out.staged), place, first)
        return measure_batches(measured, none, steps)._replace(clusters=clusters)

    each, same = PartitionSpec(AXIS), PartitionSpec()
    rows = EvalInputs(counts=each, rows=each, data=same, staged=each)

    def sharded(*given):
        validation = None if given[-1].validation is None else rows
        of_clients = PersonalInputs(rows, rows, each, each, each, validation)
        return jax.shard_map(
            one_device,
            mesh=mesh,
            in_specs=(same, same, each, *[same] * 3, of_clients),
            out_specs=EvalOutputs(sums=each, counts=same, clusters=each),
            check_vma=False,
        )(*given)

    def evaluate(servers, hparams, keys, trial, states, round, frozen, lr_factors, inputs):
        server, hparams, key = jax.tree.map(lambda leaf: leaf[trial], (servers, hparams, keys))
        key = jax.random.fold_in(jax.random.fold_in(key, round), PERSONAL)
        return sharded(server, hparams, states, key, frozen, lr_factors, inputs)

    return jax.jit(evaluate, out_shardings=host_readable(mesh))


def finish(
    metrics: Sequence[Metric],
    outputs: EvalOutputs,
    evaluated: PersonalSet,
    groups: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Waits for an evaluation of clients' own models.

    Args:
      metrics: Of the task.
      outputs: The evaluation.
      evaluated: The clients.
      groups: {name: [clients] group of each}; those of the population that they belong to.

    Returns:
      ({name: value} of each metric over all their rows, how the first one is spread over clients,
      "groups/NAME/VALUE/METRIC" by group of clients, and what `row_group_record` says by group of
      rows; the metrics of each client, as `fljax.core.metrics.client_metrics`, and "cluster" where
      the algorithm has clusters).
    """
    real = evaluated.owners >= 0
    sums = jax.tree.map(lambda leaf: np.asarray(leaf)[real], outputs.sums)
    counts = jax.tree.map(np.asarray, outputs.counts)
    owners = evaluated.owners[real]
    table = client_metrics(metrics, sums, owners, evaluated.num_clients)
    found = global_metrics(metrics, sums, counts) | client_summary(table, spread_metric(metrics))
    if outputs.clusters is not None:
        cluster = np.full(evaluated.num_clients, -1)
        cluster[evaluated.clients.reshape(-1)] = np.asarray(outputs.clusters)
        table["cluster"] = cluster[table["client"]]
    of_rows = {} if evaluated.grouped is None else evaluated.grouped.names
    groups = {name: values for name, values in (groups or {}).items() if name not in of_rows}
    found |= group_record(metrics, sums, owners, groups)
    if evaluated.grouped is not None:
        found |= row_group_record(metrics, sums, evaluated.grouped)
    return found, table


def _first(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[0], tree)


def personalization_of(algorithm: Algorithm) -> Callable[..., Variables]:
    """Returns what gives a client's model: the global one where the algorithm makes no others."""
    if algorithm.personalize is not None:
        return algorithm.personalize
    return lambda server, own, batch, key: algorithm.variables(server)


def personal_set(
    federation: Federation, dataset: FederatedDataset, asked: int, batch_size: int, seed: int
) -> PersonalSet:
    """Lays out the rows on which clients' own models are judged: those they own of the test set.

    Where they own none of it, those of the validation set.

    Args:
      federation: The federation.
      dataset: The data of the trials that are evaluated.
      asked: Clients to evaluate; -1 takes all, k a seeded sample.
      batch_size: Most rows of a batch.
      seed: Of the sample.

    Raises:
      ValueError: If clients own no such rows.
    """
    held_out = held_out_split(dataset, asked)
    with_rows = clients_with_rows(held_out, asked, "eval_personal", "held-out")
    clients = with_rows[sample_clients(len(with_rows), min(asked, len(with_rows)), seed)]
    data = _placed(federation, dataset, (dataset.train, held_out))
    made = prepare(dataset.train, held_out, clients, federation.mesh, batch_size, *data)
    made = _grouped(made, dataset, held_out)
    if federation.algorithm.tune is None:
        return made
    validation = validation_split(dataset, federation.spec.name)
    (data,) = _placed(federation, dataset, (validation,))
    rows = _rows_of(validation, made.clients, federation.mesh, data)
    return made._replace(inputs=made.inputs._replace(validation=rows))


def new_client_set(
    federation: Federation, dataset: FederatedDataset, asked: int, batch_size: int, seed: int
) -> PersonalSet | None:
    """Lays out the rows of clients that never trained, those to adapt to and those to be judged on.

    Args:
      federation, dataset, asked, batch_size, seed: As for `personal_set`.

    Returns:
      The clients; None where the data hold out none that have such rows.
    """
    train, held_out = dataset.held_out_train, dataset.held_out
    if train is None or not held_out.partition.num_rows:
        return None
    with_rows = np.flatnonzero(held_out.partition.sizes > 0)
    clients = with_rows[sample_clients(len(with_rows), min(asked, len(with_rows)), seed)]
    own, judged = _placed(federation, dataset, (train, held_out))
    first = dataset.num_clients
    found = prepare(train, held_out, clients, federation.mesh, batch_size, own, judged, first)
    found = _grouped(found, dataset, held_out)
    if federation.algorithm.init_client is None:
        return found._replace(works=())
    sizes = train.partition.sizes[found.clients]
    schedules = [each.schedule for each in federation.algorithm.passes]
    works = planned(sizes, first + found.clients, schedules, federation.options, seed)
    return found._replace(works=put_sharded(works, federation.mesh))


def _placed(federation: Federation, dataset: FederatedDataset, splits: Sequence[Split]) -> list:
    """Returns the training data on the devices for each split that shares the examples."""
    shared = [split.examples is dataset.train.examples for split in splits]
    return [federation.inputs.data if is_shared else None for is_shared in shared]


def personal_program(
    federation: Federation, dataset: FederatedDataset
) -> Callable[..., EvalOutputs]:
    """Returns the compiled evaluation of clients' own models, for any data of this preprocessing.

    Returns:
      (federation, clients: PersonalSet, round, trial) -> their evaluation after that round.
    """
    evaluate = make_evaluate(
        lambda frozen, hparams: federation.build_algorithm(frozen, hparams, 0),
        lambda frozen: bind(federation.task, frozen, dataset.preprocess),
        federation.mesh,
    )

    states_of_new = make_states(federation.build_algorithm, federation.mesh, federation.inputs.own)

    def dispatch(federation: Federation, own: PersonalSet, round: int, trial: int) -> EvalOutputs:
        given, store = federation.inputs, federation.store
        where = (federation.state.server, given.hparams, given.keys, trial)
        if own.works:
            rows, clients = own.inputs.own, own.inputs.client
            default = store.default.algorithm
            states = states_of_new(*where, default, round, given.frozen, rows, clients, own.works)
        else:
            states = store.rows_of(own.clients.reshape(-1), trial).algorithm
        factors = given.own.lr_factors
        return evaluate(*where, states, round, given.frozen, factors, own.inputs)

    return dispatch

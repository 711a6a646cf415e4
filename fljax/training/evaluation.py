"""Evaluates one model on many examples in one compiled pass, without a loop over clients.

    prepare ─► EvalSet ─► evaluate (device, asynchronous) ─► EvalOutputs ─► finish (host)

The rows of all clients form one list, cut into equal batches and spread over the devices. The
devices return sums for every example, and the host assembles them into metrics of the whole set and
of each client. Every number is thereby exact and the same on any number of devices.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fljax.core import random
from fljax.core.algorithm import Variables
from fljax.core.gradients import LocalTask
from fljax.core.metrics import Metric, Sum, client_metrics, global_metrics
from fljax.data.dataset import Examples, Split
from fljax.data.examples import row_bytes
from fljax.engine.devices.execution import AXIS, memory_of
from fljax.engine.devices.placement import host_readable, own_devices, put_own, put_sharded

PyTree = Any

# Larger batches gain a tenth for small models, while convolutions as matrix products hold
# kernel-size copies of every row.
BATCH_SIZE = 128


class EvalInputs(NamedTuple):
    """The device part of an evaluation set: D devices, S steps, batches of B rows.

    Attributes:
      counts: int32[D, S] real rows of each batch.
      rows: int32[D, S, B] row numbers in `data`, or None where `staged` holds the rows themselves.
      data: {name: [N, ...]} examples on every device, shared with training, or None.
      staged: {name: [D, S, B, ...]} each device's own rows, or None.
    """

    counts: jax.Array
    rows: jax.Array | None
    data: dict[str, jax.Array] | None
    staged: dict[str, jax.Array] | None


class EvalSet(NamedTuple):
    """Rows to evaluate.

    Attributes:
      inputs: What the devices read.
      num_rows: Number of real rows.
      owners: int64[num_rows] client of each row; None where the split belongs to no clients.
      num_clients: Size of the population that `owners` refers to; 0 without owners.
    """

    inputs: EvalInputs
    num_rows: int
    owners: np.ndarray | None
    num_clients: int


class EvalOutputs(NamedTuple):
    """The outputs of an evaluation on the devices.

    Attributes:
      sums: {name: Sum of arrays [D, S, B, ...]} as the task measures them, in the order of the
        rows; padding comes last.
      counts: The task's counts over all rows, exact up to 2^31 - 1 each; None where it has none.
      clusters: int32[D x K] cluster of each client whose own model is judged; None where an
        algorithm has no clusters.
    """

    sums: dict[str, Sum]
    counts: PyTree = None
    clusters: jax.Array | None = None


def prepare(
    split: Split,
    mesh: Mesh,
    batch_size: int = BATCH_SIZE,
    *,
    data: Mapping[str, jax.Array] | None = None,
    clients: Sequence[int] | np.ndarray | None = None,
) -> EvalSet:
    """Lays out the rows of a split on the devices.

    Args:
      split: Examples, and who owns them.
      mesh: Devices that share the rows.
      batch_size: Most rows in a batch. The actual size divides the rows evenly.
      data: The arrays of `split.examples` where they are on the devices already (the training
        data); then only row numbers are added. Otherwise each device receives its share of the
        rows and nothing else.
      clients: Client numbers to evaluate; None takes the whole split.

    Raises:
      ValueError: If there is nothing to evaluate, a client does not exist, or memory is too small.
    """
    rows, owners = _rows_of(split, clients)
    if not len(rows):
        raise ValueError(
            "there are no rows to evaluate: "
            + ("the split is empty." if clients is None else "the chosen clients have none.")
        )
    layout, counts = _layout(rows, mesh.size, batch_size)
    inputs = place_rows(split.examples, layout, counts, mesh, data)
    num_clients = 0 if owners is None else split.partition.num_clients
    return EvalSet(inputs, len(rows), owners, num_clients)


def place_rows(
    examples: Examples,
    rows: np.ndarray,
    counts: np.ndarray,
    mesh: Mesh,
    data: Mapping[str, Any] | None,
) -> EvalInputs:
    """Places batches of rows on the devices.

    Args:
      examples: Whose rows they are.
      rows: int[D, S, B] row numbers; padding may be any.
      counts: int[D, S] real rows of each batch.
      mesh: The devices.
      data: The arrays of the examples where they are on the devices already.

    Raises:
      ValueError: If memory is too small.
    """
    staged = None
    if data is None:
        _check_memory(examples, rows.size, mesh)
        staged = put_own(examples.take(rows[own_devices(mesh)]), mesh)
    return EvalInputs(
        counts=put_sharded(counts.astype(np.int32), mesh),
        rows=None if data is None else put_sharded(rows.astype(np.int32), mesh),
        data=None if data is None else dict(data),
        staged=staged,
    )


def sample_clients(num_clients: int, count: int, seed: int) -> np.ndarray:
    """Draws different clients to evaluate, the same ones throughout a run.

    Args:
      num_clients: Size of the population.
      count: Number of clients; -1 takes all.
      seed: Seed of the draw.

    Returns:
      int64 client numbers in ascending order.
    """
    if not -1 <= count <= num_clients:
        raise ValueError(
            f"cannot evaluate {count} of {num_clients} clients. Choose -1 for all, or a number up "
            f"to {num_clients}."
        )
    if count in (-1, num_clients):
        return np.arange(num_clients)
    generator = random.generator(seed, "evaluation/clients")
    return np.sort(generator.choice(num_clients, count, replace=False))


def clients_with_rows(split: Split, asked: int, option: str, rows: str) -> np.ndarray:
    """Returns the clients to choose from; warns where more are asked for."""
    with_rows = np.flatnonzero(split.partition.sizes > 0)
    if asked > len(with_rows):
        warnings.warn(
            f"{option} = {asked}, but {len(with_rows)} of {split.partition.num_clients} clients "
            f"have {rows} rows. All {len(with_rows)} are taken.",
            stacklevel=3,
        )
    return with_rows


def make_evaluate(
    bind: Callable[[PyTree], LocalTask], mesh: Mesh
) -> Callable[[Variables, PyTree, EvalInputs], EvalOutputs]:
    """Makes the compiled evaluation.

    Args:
      bind: (frozen) -> LocalTask, such as `lambda frozen: gradients.bind(task, frozen)`.
      mesh: The mesh the evaluation sets were prepared for.

    Returns:
      A jitted function (variables, frozen, EvalSet.inputs) -> EvalOutputs. A call returns at once;
      `finish` waits for the result. Each shape of the inputs compiles once.
    """

    def one_device(variables: Variables, frozen, inputs: EvalInputs):
        counts, rows, staged = jax.tree.map(
            lambda leaf: leaf[0], (inputs.counts, inputs.rows, inputs.staged)
        )
        task = bind(frozen)

        def measured(carry, step):
            batch = batch_of(*step, inputs.data)
            return carry, task.measure(variables.params, variables.model_state, batch)

        return measure_batches(measured, (), (counts, rows, staged))

    split, same = PartitionSpec(AXIS), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            one_device,
            mesh=mesh,
            in_specs=(same, same, EvalInputs(counts=split, rows=split, data=same, staged=split)),
            out_specs=EvalOutputs(sums=split, counts=same),
            check_vma=False,
        ),
        out_shardings=host_readable(mesh),
    )


def batch_of(count: jax.Array, rows: jax.Array | None, staged: PyTree, data: PyTree) -> dict:
    """Returns a batch of rows, gathered from `data` where they are not `staged` themselves."""
    batch = jax.tree.map(lambda values: values[rows], data) if staged is None else staged
    size = len(jax.tree.leaves(batch)[0])
    return {**batch, "mask": jnp.arange(size) < count}


def measure_batches(measured: Callable, carry: PyTree, steps: PyTree) -> EvalOutputs:
    """Measures the batches of one device, inside `shard_map`.

    Args:
      measured: (carry, step) -> (carry', Measured).
      carry: What goes from step to step.
      steps: Leaves [S, ...].
    """

    def body(state, step):
        carry, total = state
        carry, (sums, counts) = measured(carry, step)
        total = jax.tree.map(jnp.add, total, counts)
        return (carry, total), {name: Sum(*pair) for name, pair in sums.items()}

    first = jax.tree.map(lambda leaf: leaf[0], steps)
    _, (_, counts) = jax.eval_shape(measured, carry, first)
    none = jax.tree.map(jnp.zeros_like, counts)
    (_, total), sums = jax.lax.scan(body, (carry, none), steps)
    sums = jax.tree.map(lambda leaf: leaf[None], sums)
    return EvalOutputs(sums, jax.lax.psum(total, AXIS))


def finish(metrics: Sequence[Metric], outputs: EvalOutputs, eval_set: EvalSet) -> dict[str, float]:
    """Waits for an evaluation and computes metrics of the whole set, {name: value}."""
    counts = jax.tree.map(np.asarray, outputs.counts)
    return global_metrics(metrics, sums_by_row(outputs, eval_set), counts)


def finish_clients(
    metrics: Sequence[Metric], outputs: EvalOutputs, eval_set: EvalSet
) -> dict[str, np.ndarray]:
    """Waits for an evaluation and computes metrics of each client.

    Returns:
      As `fljax.core.metrics.client_metrics`: {"client", "examples", "weight", "loss", ...}, arrays
      over the clients that have rows.

    Raises:
      ValueError: If the rows belong to no clients.
    """
    if eval_set.owners is None:
        raise ValueError(
            "the evaluated split belongs to no clients, so there are no metrics per client. "
            "Evaluate a split that has a partition."
        )
    sums = sums_by_row(outputs, eval_set)
    return client_metrics(metrics, sums, eval_set.owners, eval_set.num_clients)


def sums_by_row(outputs: EvalOutputs, eval_set: EvalSet) -> dict[str, Sum]:
    """Waits for an evaluation and returns its sums, {name: Sum of [num_rows, ...]}, row by row."""

    def by_row(leaf):
        leaf = np.asarray(leaf)
        return leaf.reshape(-1, *leaf.shape[3:])[: eval_set.num_rows]

    return jax.tree.map(by_row, outputs.sums)


def _rows_of(split: Split, clients) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the rows to evaluate and their owners (None without a partition)."""
    partition = split.partition
    if partition is None:
        if clients is not None:
            raise ValueError(
                "this split has no partition, so it cannot be evaluated for chosen clients."
            )
        return split.rows(), None
    if clients is None:
        return partition.all_rows(), partition.owners()
    clients = np.unique(clients).astype(np.int64)
    wrong = clients[(clients < 0) | (clients >= partition.num_clients)]
    if len(wrong):
        raise ValueError(
            f"client {wrong[0]} cannot be evaluated: the population has clients 0 to "
            f"{partition.num_clients - 1}."
        )
    chosen = partition.subset(clients)
    return chosen.all_rows(), clients[chosen.owners()]


def _layout(rows: np.ndarray, devices: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts rows into equal batches; returns (rows [D, S, B], counts int32[D, S]).

    The fewest steps with batches up to `batch_size`, then the smallest batch that needs no more
    steps: less padding. Padding repeats the last row.
    """
    steps = -(-len(rows) // (devices * batch_size))
    batch = -(-len(rows) // (devices * steps))
    starts = np.arange(devices * steps) * batch
    counts = np.clip(len(rows) - starts, 0, batch).astype(np.int32)
    padded = rows[np.minimum(np.arange(devices * steps * batch), len(rows) - 1)]
    return padded.reshape(devices, steps, batch), counts.reshape(devices, steps)


def _check_memory(examples: Examples, num_rows: int, mesh: Mesh) -> None:
    """Refuses rows that would fill more than half of the memory."""
    # the CPU devices of a process share one memory
    shared = len(mesh.local_devices) if mesh.local_devices[0].platform == "cpu" else 1
    each = row_bytes(examples.spec)
    held = each * num_rows * shared // mesh.size
    memory = memory_of(mesh)
    if held > memory // 2:
        raise ValueError(
            f"evaluating {num_rows:,} rows of {each:,} bytes needs {held / 1e9:.2f} GB a "
            f"device, more than half of its {memory / 1e9:.2f} GB. Evaluate fewer clients "
            "(eval_clients, eval_personal)."
        )

"""Says what local work options ask of clients, and what it needs of data, model and memory."""

from __future__ import annotations

import numpy as np

from fljax.core.algorithm import Algorithm, AlgorithmSpec
from fljax.core.gradients import bind
from fljax.core.settings import OPTIONS
from fljax.core.task import Task
from fljax.engine.devices.distributed import allgather
from fljax.engine.devices.execution import host_memory_bytes
from fljax.engine.plan.batching import LocalWork, steps_per_job
from fljax.engine.plan.poisson_batches import capacity
from fljax.training.options import RoundOptions


def local_work(sizes: np.ndarray, options: RoundOptions) -> LocalWork:
    """Returns the local work of clients with these sizes; refuses contradictions."""
    if (options.local_epochs is None) == (options.local_steps is None):
        raise ValueError(
            f"local_epochs = {options.local_epochs} and local_steps = {options.local_steps}: "
            "give exactly one of them and set the other to None."
        )
    name = "local_epochs" if options.local_steps is None else "local_steps"
    amount = getattr(options, name)
    if np.min(amount) < 1:
        raise ValueError(f"{name} = {amount}, but clients need at least one local epoch or step.")
    if options.remainder != "partial" and not np.all(options.batch_size):
        raise ValueError(
            f"remainder = {options.remainder!r} needs a batch_size; with 0 (all rows at once) "
            "there is no remainder."
        )
    if options.batches == "poisson":
        _check_drawn(options)
    planned = options.steps_per_round
    if planned is not None and len(planned) != options.num_rounds:
        raise ValueError(
            f"steps_per_round has {len(planned)} entries for num_rounds = {options.num_rounds}."
        )

    def by_partition(value):
        """Clients' own numbers, once for each of the partitions that the sizes are of."""
        several = isinstance(value, np.ndarray)
        return np.tile(value, len(sizes) // len(value)) if several else value

    batch = by_partition(options.batch_size)
    if options.remainder == "partial":
        # more than there are rows are none, and would make all batches wider
        most = np.maximum(sizes if isinstance(batch, np.ndarray) else sizes.max(), 1)
        batch = np.where(batch, np.minimum(batch, most), most)
    work = LocalWork(
        by_partition(options.local_epochs),
        by_partition(options.local_steps),
        batch if np.ndim(batch) else int(batch),
        options.remainder,
        options.shuffle,
        options.batches,
        capacity(sizes, batch) if options.batches == "poisson" else None,
    )
    if not (steps_per_job(sizes, work) > 0).any():
        raise ValueError(
            f"No client has a batch to train on: the largest has {sizes.max()} rows, batch_size is "
            f"{work.width}, remainder is {work.remainder!r}."
        )
    return work


def _check_drawn(options: RoundOptions) -> None:
    """Refuses what means nothing to batches that are drawn."""
    for name in ("remainder", "shuffle"):
        value, default = getattr(options, name), OPTIONS[name].default
        if value != default:
            raise ValueError(
                f"{name} = {value!r} has no effect with batches = 'poisson', where each row is "
                f"drawn for each batch by itself. Leave {name} out."
            )


def structure_of(task: Task, spec: AlgorithmSpec) -> Algorithm:
    """Returns an algorithm for what no number decides on: its passes, how many models it has."""
    return spec.build(bind(task, {}), {**spec.hparams, "num_clients": 1})


def schedules_of(task: Task, spec: AlgorithmSpec, batches: str = "shuffled") -> list[str | int]:
    """Returns the schedule of each pass of an algorithm, which no number decides on.

    Raises:
      ValueError: If batches are to be drawn, and no pass takes any.
    """
    schedules = [each.schedule for each in structure_of(task, spec).passes]
    if batches == "poisson" and "local" not in schedules:
        raise ValueError(
            f"batches = 'poisson' has no effect with {spec.name}, which reads every row once. "
            "Leave it out, or take an algorithm with local steps, such as fedavg with "
            "local_steps = 1."
        )
    return schedules


def check_batches(task: Task, sizes: np.ndarray, work: LocalWork) -> None:
    """Refuses partial batches for models that cannot mask them."""
    if not task.needs_full_batches:
        return
    if work.batches == "poisson":
        raise ValueError(
            "The model keeps batch statistics and its __call__ takes no `mask`, so the padding of "
            "Poisson batches, whose sizes differ, would enter them. Give __call__ a `mask` "
            "argument and hand it to BatchNorm, or set batches to 'shuffled'."
        )
    if np.any(work.batch_size != work.width):
        raise ValueError(
            "The model keeps batch statistics and its __call__ takes no `mask`, so the padding of "
            "batches smaller than the largest would enter them. Give __call__ a `mask` argument "
            "and hand it to BatchNorm, or give all clients one batch_size."
        )
    if work.remainder == "partial" and (sizes % work.batch_size).any():
        raise ValueError(
            "The model keeps batch statistics and its __call__ takes no `mask`, so the padding of "
            "a partial last batch would enter them. Give __call__ a `mask` argument and hand it to "
            "BatchNorm, or set remainder to 'drop' or 'wrap' (an algorithm that reads every row "
            "once, such as fedsgd, has partial batches all the same)."
        )


def check_plan_size(steps: np.ndarray, work: LocalWork, max_jobs: int) -> None:
    """Refuses local work whose plan would not fit into memory, or into the counters of steps.

    Args:
      steps: int64[N] local steps of each client.
      work: The local work.
      max_jobs: Largest number of jobs in a round.
    """
    longest = np.sort(steps)[::-1][:max_jobs]
    needed = int(longest.sum()) * work.width * np.dtype(np.int64).itemsize
    host = min(allgather(host_memory_bytes()))
    if needed > host or longest[0] > np.iinfo(np.int32).max:
        amount = (
            f"local_epochs = {work.epochs}" if work.steps is None else f"local_steps = {work.steps}"
        )
        raise ValueError(
            f"{amount} with batches of {work.width} rows give a client up to {longest[0]:,} "
            f"steps a round, and the plan of a round would take {needed / 1e9:,.1f} GB of the "
            f"machine's {host / 1e9:,.1f} GB. Lower them, or clients_per_round."
        )

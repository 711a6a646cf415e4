"""Local batches of many clients at once: which rows, in what order.

Every job's local work becomes a run of steps, each a batch of at most B positions inside the
client's data. All jobs are handled in one vectorized computation; the order of a client's rows
depends on (seed, round, client, occurrence, epoch) alone. Batches that are drawn row by row:
`poisson_batches.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.engine.plan.counting import ranges
from fljax.engine.plan.poisson_batches import draw, rate_of

# Entries of a sort: 1,000 take 11 µs on a CPU with AVX-512, 26,000 take 0.8 ms.
_SORTED_PART = 512


class LocalWork(NamedTuple):
    """The local work of a client in one round.

    Attributes:
      epochs: Passes over the client's rows, or None where `steps` counts; int64[N] where clients
        have their own.
      steps: Batches, or None where `epochs` counts; int64[N] likewise.
      batch_size: Rows in a batch; int64[N] likewise.
      remainder: What happens to an epoch's last, incomplete batch: "partial" trains on it as it is;
        "drop" leaves it out; "wrap" fills it with the first rows of the next epoch's order, so that
        batches run across epochs as FedJAX's do.
      shuffle: Whether each epoch has a new random order; otherwise the stored one.
      batches: "shuffled", as above; or "poisson": a batch has `batch_size` rows on average, each of
        the client's rows by itself with probability batch_size / rows, and `remainder` and
        `shuffle` say nothing.
      capacity: Rows that a Poisson batch has room for; None where batches are not drawn.
    """

    epochs: int | np.ndarray | None
    steps: int | np.ndarray | None
    batch_size: int | np.ndarray
    remainder: str = "partial"
    shuffle: bool = True
    batches: str = "shuffled"
    capacity: int | None = None

    @property
    def width(self) -> int:
        """Rows of the largest batch, to which all others are padded."""
        return self.capacity or int(np.max(self.batch_size))

    def of(self, clients: np.ndarray) -> LocalWork:
        """Returns the work of some clients, in their order."""

        def own(value):
            return value[clients] if isinstance(value, np.ndarray) else value

        return self._replace(
            epochs=own(self.epochs), steps=own(self.steps), batch_size=own(self.batch_size)
        )


EVERY_ROW_ONCE = LocalWork(epochs=1, steps=None, batch_size=0, remainder="partial", shuffle=False)


def works_of(work: LocalWork, schedules: Sequence[str | int]) -> tuple[LocalWork, ...]:
    """Returns the local work of each pass.

    Args:
      work: The configured local work.
      schedules: Schedule of each pass, as in `fljax.core.algorithm.ClientPass`.

    Raises:
      ValueError: For a schedule that there is not.
    """
    return tuple(_work_of(work, schedule) for schedule in schedules)


def _work_of(work: LocalWork, schedule: str | int) -> LocalWork:
    match schedule:
        case "local":
            return work
        case "epoch":
            return EVERY_ROW_ONCE._replace(batch_size=work.batch_size)
        case int() if schedule > 0 and schedule is not True:
            return work._replace(epochs=schedule, steps=None)
    raise ValueError(
        f"A pass has schedule = {schedule!r}; write 'local' for the configured local work, 'epoch' "
        "to read every row once, or a number of local epochs, such as 2."
    )


def takes_part(sizes: np.ndarray, works: Sequence[LocalWork]) -> np.ndarray:
    """Returns bool like `sizes`: whether clients of so many rows have a batch in every pass."""
    return np.all([steps_per_job(sizes, work) > 0 for work in works], axis=0)


def steps_per_job(sizes: np.ndarray, work: LocalWork) -> np.ndarray:
    """Returns int64 local steps for clients with `sizes` rows; 0 where there is no batch.

    Numbers of their own, where the work has such, are those of the same clients.
    """
    sizes = np.asarray(sizes, np.int64)
    batch = work.batch_size
    if work.remainder == "drop":
        per_epoch = sizes // batch
    else:
        per_epoch = -(-sizes // batch)
    if work.steps is not None:
        return np.where(per_epoch > 0, work.steps, 0)
    if work.remainder == "wrap":
        return -(-sizes * work.epochs // batch)
    return per_epoch * work.epochs


class Batches(NamedTuple):
    """The steps of all jobs, one job after another.

    Attributes:
      positions: int64[S, B] positions inside the client's rows; padding repeats the first.
      counts: int32[S] real positions of each step.
      job: int64[S] job of each step.
      step: int64[S] number of the step within its job.
    """

    positions: np.ndarray
    counts: np.ndarray
    job: np.ndarray
    step: np.ndarray


def make_batches(
    sizes: np.ndarray,
    steps: np.ndarray,
    work: LocalWork,
    *,
    seeds: np.ndarray,
    rounds: np.ndarray,
    clients: np.ndarray,
    occurrence: np.ndarray,
    width: int | None = None,
) -> Batches:
    """Lays out every local step of every job.

    Args:
      sizes: int64[J] rows of each job's client, all positive.
      steps: int64[J] local steps of each job.
      work: The local work of these jobs; its epochs and steps are already in `steps`.
      seeds, rounds, clients, occurrence: int[J], which key the random order.
      width: B; None is that of these jobs.
    """
    batch = work.batch_size
    job, step = np.arange(len(sizes)).repeat(steps), ranges(steps)
    if work.batches == "poisson":
        words = random.bits(0, "poisson batches", seeds, rounds, clients, occurrence)[job]
        rates = rate_of(sizes, batch)[job]
        words = random.fold_in(words, step)
        positions, counts = draw(words, sizes[job], rates, work.capacity)
        return Batches(positions, counts, job, step)
    size, own_batch = sizes[job], work.of(job).batch_size
    if work.remainder == "wrap":
        epoch, start = 0, step * own_batch
        counts = np.full(len(job), own_batch, np.int32)
        epochs = -(-steps * batch // sizes)
    else:
        per_epoch = sizes // batch if work.remainder == "drop" else -(-sizes // batch)
        epoch, start = np.divmod(step, per_epoch[job])
        start *= own_batch
        counts = np.minimum(size - start, own_batch).astype(np.int32)
        epochs = -(-steps // per_epoch)
    within = np.arange(work.width if width is None else width)
    # padding reads the batch's first row; the mask keeps it out of every sum
    position = within * (within < counts[:, None])
    if work.shuffle:
        order, offset = _shuffled_orders(sizes, epochs, seeds, rounds, clients, occurrence)
        position += (offset[job] + epoch * size + start)[:, None]
        position = order.take(position)
    else:
        position += start[:, None]
        if work.remainder == "wrap":
            position %= size[:, None]
    return Batches(position, counts, job, step)


def _shuffled_orders(sizes, epochs, seeds, rounds, clients, occurrence):
    """Returns (order, offset): job j's epoch e is order[offset[j] + e * sizes[j]:][:sizes[j]]."""
    # a run is one epoch of one job
    length = sizes.repeat(epochs)
    position = ranges(length)
    words = random.bits(0, "shuffle", seeds, rounds, clients, occurrence)
    words = random.fold_in(words.repeat(epochs), ranges(epochs))
    words = random.fold_in(words.repeat(length), position)
    # one sort for all: the run in the high bits keeps each epoch's rows together
    run_bits = max((len(length) - 1).bit_length(), 1)
    run = np.arange(len(length), dtype=np.uint64) << np.uint64(64 - run_bits)
    words >>= np.uint64(run_bits)
    words |= run.repeat(length)
    lengths = sizes * epochs
    order = _sorted_positions(words, position, int(sizes.max()), length.cumsum())
    return order, lengths.cumsum() - lengths


def _sorted_positions(
    keys: np.ndarray, position: np.ndarray, size: int, ends: np.ndarray
) -> np.ndarray:
    """Returns position[np.argsort(keys)], for positions below `size`.

    Sorting is faster than sorting indices; so the positions take the place of the keys' lowest
    bits, unless those are needed to tell two keys apart. And short arrays are sorted faster than
    long ones, so it goes by parts of whole runs.

    Args:
      keys, position: [N], run after run; all keys of a run are below those of the next one.
      size: Bound of positions.
      ends: int64[R], ascending, where runs end.
    """
    mask = np.uint64((1 << size.bit_length()) - 1)
    short = keys & ~mask
    short |= position.view(np.uint64)
    parts = ends[np.searchsorted(ends, np.arange(_SORTED_PART, len(keys), _SORTED_PART))]
    for begin, end in itertools.pairwise([0, *parts, len(keys)]):
        short[begin:end].sort()
    order = (short & mask).view(np.int64)
    if ((short[1:] ^ short[:-1]) <= mask).any():
        return position[keys.argsort()]
    return order

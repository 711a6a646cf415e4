"""Lets data drift: what a client holds depends on the round, as of a stream.

    label_swap(0, 1), sudden(50)               two classes change places after 50 rounds
    rotations(4), sudden([50, 100, 150])       images turn further each time
    label_rotations(2), gradual(50, over=20)   labels change row by row, in 20 rounds
    rotations(2), recurrent(25)                there and back again, every 25 rounds
    label_priors(2, alpha=0.3), sudden(50)     other classes become common
    window(0.2, over=100)                      a fifth of the rows at a time, from first to last

A client has as many rows in every round (`heterogeneity.motion`), so a drifting run compiles
nothing more than a run without. Concepts are copies of the rows, which memory must hold; label
mixtures are parts of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fljax.core import parts, random
from fljax.core.values import COUNT, FACTOR, NON_NEGATIVE, Field, checked, shown, whole_numbers
from fljax.data.dataset import FederatedDataset, Split, check_has_no_root
from fljax.data.examples import ArrayExamples
from fljax.data.heterogeneity.concept_shift import CONCEPTS, LABELS, made_concepts
from fljax.data.heterogeneity.domains import Kind, in_each_domain, told
from fljax.data.heterogeneity.feature_skew import FEATURES
from fljax.data.heterogeneity.label_priors import Priors, divided, held_rows, label_priors
from fljax.data.heterogeneity.motion import Motion
from fljax.data.heterogeneity.skew_names import SKEWS, checked_skew, combined
from fljax.data.heterogeneity.skews import Skew
from fljax.data.ownership import Partition, offsets_of
from fljax.data.partitions.partition_arguments import class_labels, partition_setting

KEY = "concept_drift"
_ROUNDS = Field(None, int, COUNT)
_MORE = Field(0, int, NON_NEGATIVE)


class Schedule(NamedTuple):
    """The rounds in which windows move.

    Attributes:
      path: (number of concepts, number of rows int64[N] of each client's window, of all its rows)
        -> (rounds int64[M], begins int64[N, M]), the knots of `heterogeneity.motion.Motion`.
      period: (number of concepts) -> rounds after which all begins anew, 0 for never.
      share: Of a client's rows, those that it holds at once; None for the rows of one concept.
      glides: Whether a window may hold rows of two concepts.
      spread: Most rounds by which a client comes later than others.

    Example:
      >>> data.sudden(50).path(2, np.array([7]), np.array([14]))
      (array([ 0, 49, 50]), array([[0, 0, 7]]))
    """

    path: Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    period: Callable[[int], int]
    share: float | None
    glides: bool
    spread: int


def sudden(at: int | Sequence[int], *, spread: int = 0) -> Schedule:
    """Changes from a concept to the next one from one round to another.

    Args:
      at: Rounds after which a new concept begins, one fewer than there are concepts.
      spread: Clients change up to so many rounds later, each drawn by itself.

    Example:
      >>> data.sudden([10, 20]).spread
      0
    """
    return _one_way(_changes("at", at), 0, spread)


def gradual(at: int | Sequence[int], *, over: int = 10, spread: int = 0) -> Schedule:
    """Changes from a concept to the next one row by row, in a random order of the rows.

    Args:
      at: Rounds after which a change begins, one fewer than there are concepts.
      over: Rounds that a change takes.
      spread: Clients change up to so many rounds later, each drawn by itself.

    Example:
      >>> data.gradual(10, over=4).path(2, np.array([8]), np.array([16]))
      (array([ 0, 10, 14]), array([[0, 0, 8]]))
    """
    return _one_way(_changes("at", at), checked("over", over, _ROUNDS), spread)


def recurrent(every: int, *, over: int = 0, spread: int = 0) -> Schedule:
    """Goes through the concepts again and again.

    Args:
      every: Rounds from one change to the next.
      over: Rounds that a change takes, row by row; 0 changes from one round to another.
      spread: Clients change up to so many rounds later, each drawn by itself.

    Example:
      >>> data.recurrent(10).period(3)
      30
    """
    every, over = checked("every", every, _ROUNDS), checked("over", over, _MORE)
    if over > every:
        raise ValueError(f"over = {over} exceeds every = {every}: changes would overlap")

    def path(concepts, size, total):
        return _steps(every * np.arange(1, concepts + 1) - max(over, 1), over, size)

    spread = checked("spread", spread, _MORE)
    return Schedule(path, lambda concepts: concepts * every, None, bool(over), spread)


def window(share: float = 0.2, *, over: int = 100, spread: int = 0) -> Schedule:
    """Moves evenly from the first of a client's rows to the last, as they lie: oldest first.

    Args:
      share: Of a client's rows, those that it holds at once, at least one.
      over: Rounds until the last rows are held, which then stay.
      spread: Clients begin to move up to so many rounds later, each drawn by itself.

    Example:
      >>> data.window(0.5, over=10).path(1, np.array([3]), np.array([6]))
      (array([ 0, 10]), array([[0, 3]]))
    """
    share, over = checked("share", share, Field(0.2, float, FACTOR)), checked("over", over, _ROUNDS)

    def path(concepts, size, total):
        return np.array([0, over]), np.stack([np.zeros_like(size), total - size], axis=1)

    return Schedule(path, lambda concepts: 0, share, True, checked("spread", spread, _MORE))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "sudden": sudden,
    "gradual": gradual,
    "recurrent": recurrent,
    "window": window,
}
DRIFTS: dict[str, Callable] = {
    **SCHEDULES,
    "label_priors": label_priors,
    **CONCEPTS,
    **SKEWS,
}


def with_concept_drift(
    dataset: FederatedDataset, concept_drift: str, seed: int = 0
) -> FederatedDataset:
    """Returns the dataset with rows of clients that change from round to round.

    Rows that clients validate, test or are judged on change with those that they train on, so that
    an evaluation after a round is one on what was current in it. A test set that nobody owns is
    repeated, once in each concept: "concept_drift" is then a group of rows, and records have
    `eval/groups/concept_drift/...`. A moving window and `label_priors` leave such a set as it is.

    Args:
      dataset: Whose examples are arrays in memory, where concepts change them; each concept is a
        further copy of them.
      concept_drift: Calls of `CONCEPTS` or of `SKEWS`, of which each combination is a concept, or
        `label_priors`, and then one of `SCHEDULES`; or "window(...)" alone. Functions of one's own
        that return a `Skew` are taken to change features.
      seed: Chooses the order of rows in a change, and by how much a client is late.

    Raises:
      ValueError: If the text names no drift, or concepts and changes do not fit each other.

    Example:
      >>> stream = data.from_arrays(np.eye(6), [0, 1, 0, 1, 0, 1], client_ids=[0] * 6)
      >>> drifting = data.with_concept_drift(stream, 'window(0.5, over=3)')
      >>> [drifting.at(round).train.rows().tolist() for round in (0, 1, 3)]
      [[0, 1, 2], [1, 2, 3], [3, 4, 5]]
    """
    seed = partition_setting("seed", seed)
    if dataset.moves:
        raise ValueError(f"the data of {dataset.name!r} drift already")
    check_has_no_root(dataset, "let drift")
    judged = next((split for split in (dataset.test, dataset.held_out, dataset.val) if split), None)
    if dataset.row_groups and judged is not None and judged.partition is not None:
        raise ValueError(
            f"concept_drift would move the rows that {dataset.name!r} is judged on, and its groups "
            f"of rows ({', '.join(dataset.row_groups)}) are read once: leave row_groups out, or "
            "judge on a test set that nobody owns"
        )
    concepts, kind, schedule = _read(concept_drift, dataset)
    roles = ("train", "val", "test", "held_out", "held_out_train")
    splits = {role: split for role in roles if (split := getattr(dataset, role)) is not None}
    tells = kind is not None and any(split.partition is None for split in splits.values())
    made: dict[int, ArrayExamples] = {}
    moved = {}
    for role, split in splits.items():
        examples, rows = split.examples, split.examples.num_examples
        if kind is not None:
            if id(examples) not in made:
                copies, of_row = in_each_domain(examples, concepts, seed, role, kind)
                made[id(examples)] = told(copies.arrays, of_row, tells, kind)
            examples = made[id(examples)]
        partition = split.partition
        if partition is not None:
            who = "held out" if role.startswith("held_out") else "clients"
            delays = _delays(schedule.spread, partition.num_clients, seed, f"concept drift/{who}")
            if isinstance(concepts, Priors):
                every = _mixed(split, concepts, dataset.num_classes, seed, who)
                held = held_rows(concepts, partition.sizes)
                partition = _windows(schedule, concepts.count, every, held, delays)
            else:
                count = 1 if concepts is None else len(concepts.names)
                partition = _moving(partition, schedule, count, rows, delays, seed)
        moved[role] = Split(examples, partition)
    names = {} if not tells else {kind.group: tuple(concepts.names)}
    subjects = dataset.subjects
    if subjects is not None and kind is not None:
        subjects = np.tile(subjects, len(concepts.names))
    return dataclasses.replace(
        dataset, row_groups={**dataset.row_groups, **names}, subjects=subjects, **moved
    )


def _moving(
    partition: Partition, schedule: Schedule, concepts: int, rows: int, delays, seed: int
) -> Partition:
    """Returns a partition whose windows move over the rows of each client.

    Args:
      partition: Of rows of the first concept.
      schedule: When they move.
      concepts: How often the examples hold each row, once in each concept.
      rows: Of the examples, in one concept.
      delays: int64[N] rounds by which a client is late.
      seed: Chooses the order of rows where a window glides from concept to concept.
    """
    index, owners, sizes = partition.all_rows(), partition.owners(), partition.sizes
    if concepts > 1 and schedule.glides:
        index = index[np.lexsort((random.bits(seed, "concept drift/order", index), owners))]
    every = np.concatenate([index + rows * concept for concept in range(concepts)])
    every = every[np.argsort(np.tile(owners, concepts), kind="stable")]
    return _windows(schedule, concepts, every, sizes, delays)


def _mixed(split: Split, priors: Priors, num_classes: int, seed: int, who: str) -> np.ndarray:
    """Returns the rows of a split's clients, each client's mixture by mixture."""
    index, arrays = split.partition.all_rows(), split.examples.arrays
    labels = split.examples.take(index)["y"] if arrays is None else arrays["y"][index]
    sizes = split.partition.sizes
    return divided(priors, index, class_labels(labels), sizes, num_classes, seed, who)


def _windows(
    schedule: Schedule, concepts: int, every: np.ndarray, sizes: np.ndarray, delays: np.ndarray
) -> Partition:
    """Returns a partition whose windows move over rows that lie concept by concept.

    Args:
      schedule: When they move.
      concepts: How many of them there are.
      every: int[rows], client by client, the concepts of each one behind the other.
      sizes: int64[N] rows of a client in a concept.
      delays: int64[N] rounds by which a client is late.
    """
    total, held = sizes * concepts, sizes
    if schedule.share is not None:
        held = np.ceil(schedule.share * sizes - 1e-9).astype(np.int64)
    knots, begins = schedule.path(concepts, held, total)
    motion = Motion(
        offsets=offsets_of(total),
        index=every,
        knots=np.broadcast_to(np.asarray(knots, np.int64), begins.shape),
        begins=np.asarray(begins, np.int64),
        delays=delays,
        periods=np.full(len(sizes), schedule.period(concepts), np.int64),
    )
    offsets = offsets_of(held)
    owners = np.repeat(np.arange(len(held)), held)
    first = motion.row_at(owners, np.arange(offsets[-1]) - offsets[owners], 0)
    return Partition(offsets, first, motion)


def _read(
    text: str, dataset: FederatedDataset
) -> tuple[Skew | Priors | None, Kind | None, Schedule]:
    """Returns (concepts, what they change, when), of a text."""
    *calls, last = parts.read(KEY, text, DRIFTS)
    known = [call for call in calls if call.name in SCHEDULES]
    schedule = parts.make(last) if last.name in SCHEDULES or last.is_own else None
    if known or not isinstance(schedule, Schedule):
        raise ValueError(
            f"{last.where}: first say what drifts, such as label_swap(0, 1) or rotations(4), and "
            f"then once when, by one of {', '.join(SCHEDULES)}: 'rotations(2), sudden(50)'"
        )
    if not calls:
        if schedule.share is None:
            raise ValueError(
                f"{last.where}: {last.name} says when, and not what drifts: 'rotations(2), "
                f"{last.name}(50)', or name window, which moves over clients' rows as they lie"
            )
        return None, None, schedule
    if schedule.share is not None:
        raise ValueError(
            f"{last.where}: window moves over the rows as they lie, and concepts change them at "
            "rounds: choose one of them"
        )
    if any(call.function is label_priors for call in calls):
        return _priors(calls, last, schedule, dataset), None, schedule
    kinds = {LABELS if call.name in CONCEPTS else FEATURES for call in calls}
    if len(kinds) > 1:
        raise ValueError(
            f"{last.where}: labels and features cannot drift at once; let one of them differ "
            "between clients, by concept_shift or feature_skew"
        )
    (kind,) = kinds
    if kind is LABELS and dataset.kind != "classification":
        raise ValueError(
            f"{last.where}: labels are classes, and {dataset.name!r} is of kind {dataset.kind!r}"
        )
    concepts = combined(
        [
            made_concepts(call, dataset.num_classes)
            if kind is LABELS
            else checked_skew(call, parts.make(call))
            for call in calls
        ]
    )
    if len(concepts.names) < 2:
        raise ValueError(f"{last.where}: there is one concept, and nothing to change to")
    _check_changes(last.where, schedule, len(concepts.names))
    return concepts, kind._replace(key=KEY, group=KEY, stream="concept drift"), schedule


def _priors(calls, last: parts.Call, schedule: Schedule, dataset: FederatedDataset) -> Priors:
    """Returns the mixtures of labels that a text names."""
    if len(calls) > 1:
        raise ValueError(
            f"{last.where}: label_priors changes which rows a client holds, and the others what "
            "rows are: let those differ between clients, by concept_shift or feature_skew"
        )
    if dataset.kind != "classification":
        raise ValueError(
            f"{last.where}: labels are classes, and {dataset.name!r} is of kind {dataset.kind!r}"
        )
    priors = parts.make(calls[0])
    if priors.count < 2:
        raise ValueError(f"{last.where}: there is one mixture, and nothing to change to")
    _check_changes(last.where, schedule, priors.count)
    return priors


def _check_changes(where: str, schedule: Schedule, concepts: int) -> None:
    """Refuses a schedule of other concepts than there are."""
    try:
        schedule.path(concepts, np.ones(1, np.int64), np.full(1, concepts))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _one_way(at: np.ndarray, over: int, spread: int) -> Schedule:
    if over and np.any(np.diff(at) < over):
        raise ValueError(f"over = {over}, but changes at {shown(at.tolist())} come sooner")

    def path(concepts, size, total):
        if len(at) != concepts - 1:
            raise ValueError(
                f"at = {shown(at.tolist())} has {len(at)} changes, and {concepts} concepts need "
                f"{concepts - 1}"
            )
        return _steps(at if over else at - 1, over, size)

    return Schedule(path, lambda concepts: 0, None, bool(over), checked("spread", spread, _MORE))


def _steps(starts: np.ndarray, over: int, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the knots of changes that start after these rounds and take so many.

    Args:
      starts: int64[changes] last rounds of a concept.
      over: Rounds of a change, 0 for one.
      size: int64[N] rows of a concept.
    """
    knots = np.stack([starts, starts + max(over, 1)], axis=1).reshape(-1)
    concept = np.repeat(np.arange(len(starts) + 1), 2)[1:-1]
    return np.concatenate([[0], knots]), size[:, None] * np.concatenate([[0], concept])


def _changes(name: str, at: int | Sequence[int]) -> np.ndarray:
    """Returns int64[changes] ascending rounds."""
    rounds = whole_numbers(name, [at] if isinstance(at, int) else at)
    if not rounds.size or rounds[0] < 1 or np.any(np.diff(rounds) < 1):
        raise ValueError(f"{name} = {shown(at)} must be rounds from 1 on, one later than the other")
    return rounds


def _delays(spread: int, num_clients: int, seed: int, stream: str) -> np.ndarray:
    return random.generator(seed, stream).integers(0, spread + 1, num_clients)

"""Lets labels mean unlike things to clients, by concept: the same rows have other classes.

label_permutations(3)   classes in another order, as in clustered federated learning
label_rotations(4)      class c is c + k in concept k, as in tests of drift
label_swap(0, 1)        two classes change places
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fljax.core import parts, random
from fljax.core.values import COUNT, NON_NEGATIVE, SEED, Field, Interval, checked
from fljax.data.dataset import FederatedDataset
from fljax.data.heterogeneity.domains import Kind, with_domains
from fljax.data.heterogeneity.skew_names import checked_skew, combined
from fljax.data.heterogeneity.skews import Skew

LABELS = Kind("concept_shift", "y", "labels", "concept", "concept shift")


def label_permutations(count: int = 2, *, num_classes: int, seed: int = 0) -> Skew:
    """Puts the classes into another order in each concept; concept 0 keeps theirs.

    As in clustered federated learning (Sattler et al., arXiv:1910.01991).

    Args:
      count: Concepts.
      num_classes: K; a configuration gives that of the data.
      seed: Draws the orders.

    Example:
      >>> concepts = data.label_permutations(2, num_classes=4, seed=1)
      >>> sorted(concepts.apply(np.arange(4), 1, None).tolist())
      [0, 1, 2, 3]
    """
    count = checked("count", count, Field(2, int, COUNT))
    seed = checked("seed", seed, Field(0, int, SEED))
    orders = [np.arange(num_classes)] + [
        random.generator(seed, "label permutation", concept).permutation(num_classes)
        for concept in range(1, count)
    ]
    return _relabelled([f"permutation_{concept}" for concept in range(count)], orders)


def label_rotations(count: int = 2, *, num_classes: int) -> Skew:
    """Makes class c of class c + k, modulo the number of classes, in concept k.

    Args:
      count: Concepts.
      num_classes: K; a configuration gives that of the data.

    Example:
      >>> data.label_rotations(2, num_classes=3).apply(np.arange(3), 1, None).tolist()
      [1, 2, 0]
    """
    count = checked("count", count, Field(2, int, Interval(1, num_classes)))
    orders = [np.roll(np.arange(num_classes), -concept) for concept in range(count)]
    return _relabelled([f"labels_plus_{concept}" for concept in range(count)], orders)


def label_swap(first: int, second: int, *, num_classes: int) -> Skew:
    """Lets two classes change places, in the second of two concepts.

    Args:
      first, second: Their numbers.
      num_classes: K; a configuration gives that of the data.

    Example:
      >>> data.label_swap(0, 2, num_classes=3).apply(np.arange(3), 1, None).tolist()
      [2, 1, 0]
    """
    for name, value in (("first", first), ("second", second)):
        checked(name, value, Field(0, int, NON_NEGATIVE))
        if value >= num_classes:
            raise ValueError(f"{name} = {value}, but the classes are 0 to {num_classes - 1}")
    order = np.arange(num_classes)
    order[[first, second]] = second, first
    return _relabelled(["plain", f"swapped_{first}_{second}"], [np.arange(num_classes), order])


CONCEPTS: dict[str, Callable[..., Skew]] = {
    "label_permutations": label_permutations,
    "label_rotations": label_rotations,
    "label_swap": label_swap,
}


def with_concept_shift(
    dataset: FederatedDataset, concept_shift: str | Skew, seed: int = 0
) -> FederatedDataset:
    """Returns the dataset with labels changed by the concept of their client.

    Clients, those that are held out as well, are dealt evenly to the concepts; the group "concept"
    says which is whose, and records report on each, `eval/groups/concept/...`. A test set that
    nobody owns is repeated, once in each concept, and "concept" is a group of rows as well.

    Args:
      dataset: Of kind "classification", whose labels are an array in memory; they are copied.
      concept_shift: Calls of `CONCEPTS` or of functions of one's own that return a `Skew` of
        labels: several have a concept for each combination. Or a `Skew`.
      seed: Chooses the clients of a concept.

    Raises:
      ValueError: If the text names no concepts, or the targets are no classes.

    Example:
      >>> dataset = data.from_arrays(np.eye(4), [0, 1, 0, 1], num_clients=2)
      >>> shifted = data.with_concept_shift(dataset, 'label_swap(0, 1)')
      >>> sorted(shifted.groups['concept'].tolist())
      ['plain', 'swapped_0_1']
    """
    if dataset.kind != "classification":
        raise ValueError(
            f"concept_shift changes classes, and {dataset.name!r} is of kind {dataset.kind!r}"
        )
    concepts = concept_shift
    if not isinstance(concepts, Skew):
        calls = parts.read("concept_shift", concept_shift, CONCEPTS)
        concepts = combined([made_concepts(call, dataset.num_classes) for call in calls])
    return with_domains(dataset, concepts, seed, LABELS)


def made_concepts(call: parts.Call, num_classes: int | None) -> Skew:
    """Returns the concepts that a call makes of so many classes."""
    return checked_skew(call, parts.make(call, offered={"num_classes": num_classes}))


def _relabelled(names, orders) -> Skew:
    return Skew(names, lambda y, concept, rng: orders[concept][y].astype(y.dtype))

"""Changes a part of the examples by domain, a domain for each client.

All rows of a client are of its domain, those that it trains on and those that it is tested on.
Rows are changed once, when they are loaded: bytes stay bytes, and a round costs nothing more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.data.dataset import FederatedDataset, Split, check_stays
from fljax.data.examples import ArrayExamples, Examples
from fljax.data.heterogeneity.skews import Skew
from fljax.data.partitions.partition_arguments import partition_setting

_HELD_OUT = ("held_out", "held_out_train")
# Rows that are held as floats at once.
_CHUNK = 4096


class Kind(NamedTuple):
    """The kind of difference between domains.

    Attributes:
      key: The key of a configuration that asks for it.
      part: The part of examples that changes, "x" or "y".
      noun: What people call the part.
      group: The group of clients that says whose domain is which.
      stream: Of random numbers.
    """

    key: str
    part: str
    noun: str
    group: str
    stream: str


def with_domains(dataset: FederatedDataset, skew: Skew, seed: int, kind: Kind) -> FederatedDataset:
    """Returns the dataset with a part of its examples changed by the domain of their client.

    Clients, those that are held out as well, are dealt evenly to the domains. A test set that
    nobody owns is repeated, once in each domain, and the group is one of rows as well.

    Args:
      dataset: Whose examples are arrays in memory; the part that changes is copied.
      skew: The domains.
      seed: Chooses the clients of a domain, and what a domain draws.
      kind: What differs between them.

    Raises:
      ValueError: If there is such a group already, or the part is not what the skew needs.
    """
    seed = partition_setting("seed", seed)
    check_stays(dataset, f"changed by {kind.key}")
    if kind.group in {*dataset.groups, *dataset.row_groups}:
        raise ValueError(f"{dataset.name!r} has groups {kind.group!r} already: rename them")
    names = np.array(skew.names)
    domains = _dealt(dataset.num_clients, len(names), seed, f"{kind.stream}/domains of clients")
    owned, unowned = {}, {}
    for role in ("train", "val", "test"):
        if (split := getattr(dataset, role)) is not None:
            (unowned if split.partition is None else owned)[role] = split
    tells = "test" in unowned
    split_of = _changed_splits(owned, domains, skew, seed, kind, tells)
    for role, split in unowned.items():
        examples, of_row = in_each_domain(split.examples, skew, seed, role, kind)
        split_of[role] = Split(told(examples.arrays, of_row, tells, kind))
    held_out_groups = dict(dataset.held_out_groups)
    if dataset.held_out is not None:
        clients = dataset.held_out.partition.num_clients
        stream = f"{kind.stream}/domains of held_out"
        held_out_domains = _dealt(clients, len(names), seed, stream)
        held_out = {role: split for role in _HELD_OUT if (split := getattr(dataset, role))}
        split_of |= _changed_splits(held_out, held_out_domains, skew, seed, kind, tells)
        held_out_groups[kind.group] = names[held_out_domains]
    return dataclasses.replace(
        dataset,
        groups={**dataset.groups, kind.group: names[domains]},
        held_out_groups=held_out_groups,
        row_groups={**dataset.row_groups, **({kind.group: tuple(skew.names)} if tells else {})},
        **split_of,
    )


def in_each_domain(
    examples: Examples, skew: Skew, seed: int, role: str, kind: Kind
) -> tuple[ArrayExamples, np.ndarray]:
    """Returns (the examples repeated in each domain, one after another, the domain of each row)."""
    part = part_of(examples, skew, kind)
    copies = []
    for domain in range(len(skew.names)):
        rng = random.generator(seed, f"{kind.stream}/{role}", domain)
        copies += [
            _applied(skew, part[start : start + _CHUNK], domain, rng, kind)
            for start in range(0, len(part), _CHUNK)
        ]
    rows = np.tile(np.arange(len(part)), len(skew.names))
    arrays = {**examples.take(rows), kind.part: np.concatenate(copies)}
    return ArrayExamples(arrays), np.repeat(np.arange(len(skew.names)), len(part))


def part_of(examples: Examples, skew: Skew, kind: Kind) -> np.ndarray:
    """Returns the part of examples that changes, an array in memory; refuses anything else."""
    if kind.part == "x" and skew.moves and _is_of_pixels(examples):
        raise ValueError(
            f"{kind.key} moves pixels of x, and y has a target for each pixel, which would stay "
            "where it is: use skews that leave pixels in their places (gaussian_noise, blur, "
            "colour, scanners), or move x and y beforehand"
        )
    part = None if examples.arrays is None else examples.arrays[kind.part]
    if not isinstance(part, np.ndarray) or isinstance(part, np.memmap):
        what = "generated when they are read" if part is None else f"{type(part).__name__}"
        raise ValueError(
            f"{kind.key} changes {kind.noun} once, in an array in memory, and these are {what}: "
            f"give {kind.part} as such an array"
            + (", or skew in `preprocess`" if kind.part == "x" else "")
        )
    return part


def _is_of_pixels(examples: Examples) -> bool:
    """Returns whether y has the height and width of the images x."""
    x, y = (getattr(examples.spec[part], "shape", ()) for part in ("x", "y"))
    return len(x) >= 2 and y[:2] == x[:2]


def _dealt(num_clients: int, num_domains: int, seed: int, stream: str) -> np.ndarray:
    """Returns int[clients] the domain of each; sizes of domains differ by one client at most."""
    return random.generator(seed, stream).permutation(num_clients) % num_domains


def _changed_splits(
    splits: Mapping[str, Split], domains: np.ndarray, skew: Skew, seed: int, kind: Kind, tells: bool
) -> dict[str, Split]:
    """Returns splits over the same clients, each row in its client's domain.

    Args:
      splits: {role: split that clients own}; those that share examples share the new ones.
      domains: int[N] of the clients.
      skew, seed, kind: As given.
      tells: Whether each row says its domain.
    """
    made: dict[int, ArrayExamples] = {}
    for role, split in splits.items():
        key = id(split.examples)
        if key not in made:
            of_row = np.full(split.examples.num_examples, -1)
            for other in splits.values():
                if other.examples is split.examples:
                    of_row[other.rows()] = domains[other.partition.owners()]
            made[key] = _changed(split.examples, of_row, skew, seed, role, kind, tells)
    return {
        role: Split(made[id(split.examples)], split.partition) for role, split in splits.items()
    }


def _changed(examples: Examples, of_row, skew: Skew, seed: int, role: str, kind: Kind, tells: bool):
    """Returns the examples with each row in its domain; rows of domain -1 stay as they are."""
    part = part_of(examples, skew, kind).copy()
    for domain in range(len(skew.names)):
        rng = random.generator(seed, f"{kind.stream}/{role}", domain)
        rows = np.flatnonzero(of_row == domain)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            part[chunk] = _applied(skew, part[chunk], domain, rng, kind)
    return told({**examples.arrays, kind.part: part}, of_row, tells, kind)


def told(arrays: Mapping, of_row: np.ndarray, tells: bool, kind: Kind) -> ArrayExamples:
    """Returns examples that say their domains, where they are to; rows of nobody say the first."""
    if tells:
        groups = {**arrays.get("groups", {}), kind.group: of_row.clip(0).astype(np.int16)}
        arrays = {**arrays, "groups": groups}
    return ArrayExamples(arrays)


def _applied(skew: Skew, part: np.ndarray, domain: int, rng, kind: Kind) -> np.ndarray:
    made = np.asarray(skew.apply(part, domain, rng))
    if made.shape != part.shape or made.dtype != part.dtype:
        raise ValueError(
            f"the domain {skew.names[domain]!r} makes {made.dtype}{list(made.shape)} of "
            f"{kind.noun} {part.dtype}{list(part.shape)}: a skew keeps shape and type"
        )
    return made

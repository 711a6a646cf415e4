"""Puts other rows in place of those that hostile clients own, before anybody trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fljax.core import random
from fljax.core.values import shown
from fljax.data.dataset import ROLES, FederatedDataset, Split, check_moves_not
from fljax.data.examples import ArrayExamples, shapes

OwnRows = Callable[[Any, Any, np.random.Generator], tuple[Any, Any]]


def poisoned(
    dataset: FederatedDataset,
    attackers: Sequence[bool] | np.ndarray,
    own_rows: OwnRows,
    seed: int = 0,
) -> FederatedDataset:
    """Returns the dataset whose hostile clients train on rows of their own making.

    Other clients, and validation, test and held-out rows, keep what they have.

    Args:
      dataset: Held in arrays; those that rows are changed of are copied.
      attackers: bool[N], who is hostile.
      own_rows: (x, y, rng) -> (x', y'), in NumPy: what an attacker makes of its training rows; as
        many, of the same shapes and types. Such as `fljax.robustness.attack.Attack.own_rows`.
      seed: Makes the generator of each client.

    Raises:
      ValueError: If rows are generated when they are read, drift, belong to honest clients too or
        to the server (`with_root`), or come back in another form.

    Example:
      >>> dataset = data.from_arrays(np.eye(4), [0, 1, 1, 0], client_ids=[0, 0, 1, 1])
      >>> flipped = data.poisoned(dataset, [False, True], lambda x, y, rng: (x, 1 - y))
      >>> flipped.train.examples.arrays["y"].tolist()
      [0, 1, 0, 1]
    """
    attackers = _checked(dataset, attackers)
    partition, old = dataset.train.partition, dataset.train.examples
    rows, owners = partition.all_rows(), partition.owners()
    changed = np.unique(rows[attackers[owners]])
    if np.isin(rows[~attackers[owners]], changed).any():
        raise ValueError(
            f"hostile clients of {dataset.name!r} share training rows with honest ones, who would "
            "train on poisoned rows too. Give each row one owner, or poison batches instead"
        )
    arrays = dict(old.arrays)
    for client in np.flatnonzero(attackers & (partition.sizes > 0)):
        own = partition.rows(client)
        made = _made(own_rows, old.take(own), random.generator(seed, "poisoned rows", client))
        for name, values in made.items():
            if arrays[name] is old.arrays[name]:
                arrays[name] = jax.tree.map(np.array, arrays[name])
            leaves = zip(jax.tree.leaves(arrays[name]), jax.tree.leaves(values), strict=True)
            for all_rows, of_client in leaves:
                all_rows[own] = of_client
    new = ArrayExamples(arrays)
    splits = {role: split for role in ROLES if (split := getattr(dataset, role)) is not None}
    return dataclasses.replace(
        dataset,
        **{
            role: Split(new, split.partition)
            for role, split in splits.items()
            if split.examples is old
            and (role == "train" or not np.isin(split.rows(), changed).any())
        },
    )


def _checked(dataset: FederatedDataset, attackers: Any) -> np.ndarray:
    """Returns bool[N]; refuses what names no clients, and data whose rows cannot be replaced."""
    check_moves_not(dataset, "poisoned")
    if dataset.train.examples.arrays is None:
        raise ValueError(
            f"the rows of {dataset.name!r} are generated when they are read, and cannot be "
            "poisoned before training: poison batches instead, such as by label_flip"
        )
    attackers = np.asarray(attackers)
    if attackers.dtype != bool or attackers.shape != (dataset.num_clients,):
        raise ValueError(
            f"attackers = {shown(attackers)} must be bool[{dataset.num_clients}], one answer for "
            "each client"
        )
    if dataset.root is not None and attackers[dataset.root]:
        raise ValueError(
            f"attackers names client {dataset.root} of {dataset.name!r}, the server's own, whose "
            "rows are clean: leave it out"
        )
    return attackers


def _made(own_rows: OwnRows, rows: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Returns {name: values} of what an attacker changes in its rows."""
    x, y = own_rows(rows["x"], rows["y"], rng)
    made = {"x": x, "y": y}
    given = ({name: rows[name] for name in made}, made)
    was, found = (ArrayExamples(arrays) for arrays in given)
    if (was.spec, was.num_examples) != (found.spec, found.num_examples):
        raise ValueError(
            f"own_rows returns {found.num_examples} rows of {shapes(found.spec)} for "
            f"{was.num_examples} of {shapes(was.spec)}: let it return as many of the same kind"
        )
    return {name: values for name, values in made.items() if values is not rows[name]}

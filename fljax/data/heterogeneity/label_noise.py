"""Gives training rows wrong labels, unlike shares of them to unlike clients; test rows keep theirs.

symmetric(0.2)                    a fifth of each client's rows, any other class
symmetric(0.0, most=0.4)          shares between 0 and 0.4, uniform over clients
symmetric(beta=(2, 5))            shares drawn from a Beta distribution
pairwise(0.3)                     class c becomes class c + 1
asymmetric({9: 1, 2: 0}, 0.4)     some classes become certain other ones
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fljax.core import parts, random
from fljax.core.values import FACTOR, Field, Interval, checked, shown, wrong
from fljax.data.dataset import FederatedDataset, Split, check_stays
from fljax.data.examples import ArrayExamples, Examples
from fljax.data.ownership import Partition
from fljax.data.partitions.partition_arguments import partition_setting

_SHARE = Field(0.2, float, Interval(0, 1))


class NoiseKind(NamedTuple):
    """The kind of mistake in labels.

    Attributes:
      shares: (number of clients, NumPy generator) -> float64[N], the share of each client's rows.
      wrong: (labels int[rows], number of classes, uniforms float64[rows]) -> int[rows] the wrong
        label of each row, or the right one where a row of this class never goes wrong.

    Example:
      >>> kind = data.pairwise(0.5)
      >>> kind.wrong(np.array([0, 1, 2]), 3, None).tolist()
      [1, 2, 0]
    """

    shares: Callable[[int, np.random.Generator], np.ndarray]
    wrong: Callable[[np.ndarray, int, np.ndarray], np.ndarray]


class NoisyLabels(NamedTuple):
    """Which rows have wrong labels, and what was right.

    Attributes:
      rows: int64[M] rows of the training examples, ascending.
      labels: int[M] their right labels.
      shares: float64[N] share of the clients' training rows that were to go wrong.

    Example:
      >>> dataset = data.from_arrays(np.eye(8), [0, 1] * 4, num_clients=2)
      >>> data.with_label_noise(dataset, 'pairwise(0.5)').noisy_labels.shares.tolist()
      [0.5, 0.5]
    """

    rows: np.ndarray
    labels: np.ndarray
    shares: np.ndarray


def symmetric(
    share: float = 0.2,
    *,
    most: float | None = None,
    beta: Sequence[float] | None = None,
    clients: float = 1.0,
) -> NoiseKind:
    """Gives a share of each client's rows any of the other classes, all equally likely.

    Args:
      share: Of a client's rows.
      most: Shares are drawn uniformly from `share` to this; None: all clients have the same.
      beta: (a, b) of the Beta distribution from which shares are drawn instead.
      clients: Share of the clients that have such rows at all, as rho of FedCorr
        (arXiv:2204.04677).

    Example:
      >>> data.symmetric(0.1, most=0.1).shares(2, np.random.default_rng(0)).tolist()
      [0.1, 0.1]
    """

    def any_other(labels, num_classes, uniforms):
        return (labels + 1 + (uniforms * (num_classes - 1)).astype(np.int64)) % num_classes

    return NoiseKind(_shares(share, most, beta, clients), any_other)


def pairwise(
    share: float = 0.2,
    *,
    most: float | None = None,
    beta: Sequence[float] | None = None,
    clients: float = 1.0,
) -> NoiseKind:
    """Gives a share of each client's rows the class behind their own; the last one becomes 0.

    Args:
      share, most, beta, clients: As of `symmetric`.

    Example:
      >>> data.pairwise(0.5).wrong(np.array([0, 1, 2]), 3, None).tolist()
      [1, 2, 0]
    """
    shares = _shares(share, most, beta, clients)
    return NoiseKind(shares, lambda labels, num_classes, uniforms: (labels + 1) % num_classes)


def asymmetric(
    mapping: Mapping[int, int],
    share: float = 0.2,
    *,
    most: float | None = None,
    beta: Sequence[float] | None = None,
    clients: float = 1.0,
) -> NoiseKind:
    """Gives a share of a client's rows of some classes certain other classes, such as cat for dog.

    Args:
      mapping: {class: what becomes of it}; rows of other classes are counted and stay as they are.
      share, most, beta, clients: As of `symmetric`; the share is that of the rows of these classes.

    Example:
      >>> data.asymmetric({0: 2}, 0.5).wrong(np.array([0, 1, 2]), 3, None).tolist()
      [2, 1, 2]
    """
    what = "{class: another class}, both whole numbers"
    if not isinstance(mapping, Mapping) or not mapping:
        raise wrong("mapping", mapping, what)
    for pair in mapping.items():
        if any(isinstance(c, bool) or not isinstance(c, int) or c < 0 for c in pair):
            raise wrong("mapping", mapping, what)

    def mapped(labels, num_classes, uniforms):
        if (largest := max(*mapping, *mapping.values())) >= num_classes:
            raise ValueError(
                f"mapping = {shown(dict(mapping))} names class {largest}, and the classes are 0 to "
                f"{num_classes - 1}"
            )
        table = np.arange(num_classes)
        table[list(mapping)] = list(mapping.values())
        return table[labels]

    return NoiseKind(_shares(share, most, beta, clients), mapped)


NOISES: dict[str, Callable[..., NoiseKind]] = {
    "symmetric": symmetric,
    "pairwise": pairwise,
    "asymmetric": asymmetric,
}


def with_label_noise(
    dataset: FederatedDataset, label_noise: str | NoiseKind, seed: int = 0
) -> FederatedDataset:
    """Returns the dataset with wrong labels among the rows that clients train on.

    Of n rows that can go wrong, the whole number nearest to share x n does. Test rows keep their
    labels, and so do held-out clients', but for rows that adapt a model to them; validation rows
    that are split off afterwards are as wrong as the training rows. What was changed is in
    `noisy_labels`.

    Args:
      dataset: Of kind "classification", without validation rows; labels alone are copied.
      label_noise: A call of `NOISES`, or of a function of one's own that returns a `NoiseKind`.
      seed: Chooses clients' shares, rows and wrong labels.

    Raises:
      ValueError: If the text names no noise, or the targets are no classes of rows.

    Example:
      >>> dataset = data.from_arrays(np.eye(10), [0, 1] * 5, num_clients=2)
      >>> noisy = data.with_label_noise(dataset, 'symmetric(0.4)')
      >>> len(noisy.noisy_labels.rows), (noisy.train.examples.arrays["y"] != [0, 1] * 5).sum()
      (4, np.int64(4))
    """
    kind = label_noise if isinstance(label_noise, NoiseKind) else _named(label_noise)
    seed = partition_setting("seed", seed)
    check_stays(dataset, "given wrong labels")
    if dataset.noisy_labels is not None:
        raise ValueError(f"{dataset.name!r} has wrong labels already")
    if dataset.val is not None:
        raise ValueError(
            f"{dataset.name!r} has a val split already: labels go wrong first, and validation rows "
            "are chosen among them afterwards"
        )
    labels = _labels(dataset)
    rng = random.generator(seed, "label noise/shares")
    shares = _checked_shares(kind.shares(dataset.num_clients, rng), dataset.num_clients)
    y = labels.copy()
    _make_wrong(y, dataset.train.partition, kind, shares, dataset.num_classes, seed)
    adapting = dataset.held_out_train
    if adapting is not None and adapting.examples is dataset.train.examples:
        rng = random.generator(seed, "label noise/held-out shares")
        own = _checked_shares(kind.shares(adapting.partition.num_clients, rng), None)
        _make_wrong(y, adapting.partition, kind, own, dataset.num_classes, seed)
    changed = np.flatnonzero(y != labels)
    noisy = ArrayExamples({**dataset.train.examples.arrays, "y": y})
    return dataclasses.replace(
        dataset,
        noisy_labels=NoisyLabels(changed, labels[changed], shares),
        **_with_examples(dataset, dataset.train.examples, noisy),
    )


def wrong_label_shares(dataset: FederatedDataset) -> np.ndarray:
    """Returns float64[N], the share of each client's training rows that have wrong labels.

    Args:
      dataset: From `with_label_noise`, or without wrong labels.

    Example:
      >>> dataset = data.from_arrays(np.eye(8), [0, 1] * 4, num_clients=2)
      >>> data.wrong_label_shares(data.with_label_noise(dataset, 'pairwise(0.5)')).tolist()
      [0.5, 0.5]
    """
    partition = dataset.train.partition
    if dataset.noisy_labels is None:
        return np.zeros(partition.num_clients)
    wrong = np.isin(partition.all_rows(), dataset.noisy_labels.rows)
    counts = np.bincount(partition.owners(), wrong, partition.num_clients)
    return counts / np.maximum(partition.sizes, 1)


def _named(text: str) -> NoiseKind:
    call = parts.read_one("label_noise", text, NOISES)
    kind = parts.make(call)
    if not isinstance(kind, NoiseKind):
        raise parts.FailedCall(
            f"{call.where}: {call.name} returned {shown(kind)} ({type(kind).__name__}), and label "
            "noise is a fljax.data.NoiseKind(shares, wrong)."
        )
    return kind


def _labels(dataset: FederatedDataset) -> np.ndarray:
    arrays = dataset.train.examples.arrays
    if dataset.kind != "classification" or arrays is None or dataset.num_classes < 2:
        raise ValueError(
            "label_noise changes classes of rows that are held in arrays, and "
            f"{dataset.name!r} is of kind {dataset.kind!r} with "
            f"{dataset.num_classes or 'no'} classes"
            + (", generated when they are read" if arrays is None else "")
        )
    return np.asarray(arrays["y"])


def _make_wrong(
    y: np.ndarray, partition: Partition, kind: NoiseKind, shares, num_classes: int, seed: int
) -> None:
    """Writes wrong labels to a share of each client's rows; those that cannot go wrong stay."""
    rows, owner = partition.all_rows(), partition.owners()
    uniforms = random.uniform(seed, "label noise/labels", rows)
    made = kind.wrong(y[rows].astype(np.int64), num_classes, uniforms)
    can = np.flatnonzero(made != y[rows])
    order = np.lexsort((random.bits(seed, "label noise/rows", rows[can]), owner[can]))
    sizes = np.bincount(owner[can], minlength=partition.num_clients)
    rank = np.arange(len(can)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = can[order[rank < np.repeat(np.rint(shares * sizes), sizes)]]
    y[rows[chosen]] = made[chosen]


def _with_examples(dataset: FederatedDataset, old: Examples, new: Examples) -> dict[str, Split]:
    """Returns the splits of a dataset that hold these examples, with others in their place."""
    splits = {
        role: getattr(dataset, role) for role in ("train", "test", "held_out", "held_out_train")
    }
    return {
        role: dataclasses.replace(split, examples=new)
        for role, split in splits.items()
        if split is not None and split.examples is old
    }


def _shares(share, most, beta, clients) -> Callable[[int, np.random.Generator], np.ndarray]:
    """Returns what draws the clients' shares."""
    share = checked("share", share, _SHARE)
    most = checked("most", most, _SHARE._replace(optional=True))
    clients = checked("clients", clients, Field(1.0, float, FACTOR))
    if most is not None and most < share:
        raise ValueError(f"most = {most} is below share = {share}: give the larger one as most")
    if beta is not None:
        if most is not None:
            raise ValueError(f"most = {most} and beta = {beta} both draw shares: leave one out")
        what = "(a, b), two numbers above 0"
        if not isinstance(beta, Sequence) or isinstance(beta, str) or len(beta) != 2:
            raise wrong("beta", beta, what)
        if any(not isinstance(number, int | float) or not number > 0 for number in beta):
            raise wrong("beta", beta, what)

    def draw(num_clients, rng):
        if beta is not None:
            shares = rng.beta(*beta, num_clients)
        else:
            shares = rng.uniform(share, share if most is None else most, num_clients)
        spared = rng.permutation(num_clients)[round(clients * num_clients) :]
        shares[spared] = 0
        return shares

    return draw


def _checked_shares(shares: np.ndarray, num_clients: int | None) -> np.ndarray:
    shares = np.asarray(shares, np.float64)
    right = num_clients is None or shares.shape == (num_clients,)
    if not right or not np.all((shares >= 0) & (shares <= 1)):
        raise ValueError(
            f"the shares of label noise are {shown(shares)}, and must be one number from 0 to 1 "
            "for each client"
        )
    return shares

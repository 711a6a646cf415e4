"""Partitions by more than one label mixture: of coarse and fine labels, and of unequal sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fljax.core import random
from fljax.core.values import whole_numbers
from fljax.data.ownership import Partition
from fljax.data.partitions.mixtures import (
    Draw,
    Mixtures,
    by_classes,
    by_mixtures,
    checked_alpha,
    log_gamma_draws,
    one_after_another,
)
from fljax.data.partitions.partition_arguments import class_labels, partition_setting, row_count
from fljax.data.partitions.repair import repaired_partition

# The coarse label of each of the 100 fine ones of CIFAR-100 (Krizhevsky, 2009).
_CIFAR100 = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)


def pachinko(
    labels: np.ndarray,
    num_clients: int,
    *,
    coarse: Sequence[int] | str = "cifar100",
    alpha: float = 0.1,
    beta: float = 10.0,
    seed: int = 0,
    min_partition_size: int = 1,
    rows_per_client: int | None = None,
) -> Partition:
    """Draws coarse labels by one Dirichlet mixture of each client, and fine labels by another.

    Pachinko allocation (Li and McCallum, 2006) as TensorFlow Federated makes clients of CIFAR-100,
    500 of 100 rows: Reddi et al., arXiv:2003.00295, appendix F. Client after client draws a mixture
    of coarse labels from Dir(alpha, ..., alpha), and for each of these a mixture of its fine labels
    from Dir(beta, ..., beta); a row is a coarse label, then one of its fine labels, then one of its
    rows that nobody has yet. A fine label without rows leaves its share to those of the same coarse
    label, and a coarse label without any to the other ones.

    Args:
      labels: int[rows], the fine labels.
      num_clients: N.
      coarse: int[K], the coarse label of fine label k; or "cifar100", those of CIFAR-100.
      alpha: Concentration over coarse labels; 0.1 in TensorFlow Federated.
      beta: Concentration over the fine labels of a coarse one; 10 there.
      seed: Chooses the partition.
      min_partition_size: The fewest rows a client may have; sizes differ by at most one anyway.
      rows_per_client: How many rows each client draws; None for all rows / N.

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If a label has no coarse one, there are too few rows for the clients, or an
        argument is out of range.

    Example:
      >>> labels = np.arange(16) % 4
      >>> partition = data.pachinko(labels, 2, coarse=[0, 0, 1, 1], alpha=0.01)
      >>> data.label_counts(labels, partition, 4).tolist()
      [[4, 4, 0, 0], [0, 0, 4, 4]]
    """
    draw = _by_coarse_labels(_checked_coarse(coarse, class_labels(labels)), alpha, beta)
    given = labels, num_clients, seed, min_partition_size, rows_per_client
    return by_mixtures(*given, draw, one_after_another, "pachinko")


def quantity_label(
    labels: np.ndarray,
    num_clients: int,
    *,
    alpha: float = 0.5,
    sigma: float = 1.0,
    seed: int = 0,
    min_partition_size: int = 1,
) -> Partition:
    """Skews sizes and labels at once: log-normal sizes, and a Dirichlet label mixture each.

    Sizes are those of `quantity`; then one client after another, in a random order, draws so many
    rows by a mixture of its own, as in `dirichlet_hsu`.

    Args:
      labels: int[rows].
      num_clients: N.
      alpha: Concentration of the mixtures, shared among the classes as in `dirichlet_hsu`.
      sigma: Standard deviation of the logarithm of the sizes; 0 gives equal sizes.
      seed: Chooses the partition.
      min_partition_size: The fewest rows a client may have; the largest give them.

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If there are too few rows for the clients, or an argument is out of range.

    Example:
      >>> labels = np.arange(12) % 3
      >>> int(data.quantity_label(labels, 3, alpha=0.5, sigma=1.0).sizes.sum())
      12
    """
    sigma = partition_setting("sigma", sigma)

    def of_unequal_sizes(order, num_rows):
        rng = random.generator(seed, "partition/quantity_label/sizes")
        log_size = sigma * rng.standard_normal(order.size)
        edges = np.cumsum(np.exp(log_size - log_size.max()))
        ends = np.floor(edges / edges[-1] * num_rows).astype(np.int64)
        return np.repeat(order, np.diff(ends, prepend=0))

    given = labels, num_clients, seed, min_partition_size, None
    drawn = by_mixtures(*given, by_classes(alpha), of_unequal_sizes, "quantity_label")
    if drawn.sizes.min() >= min_partition_size:
        return drawn
    owner = np.empty(row_count(labels), np.int64)
    owner[drawn.all_rows()] = drawn.owners()
    return repaired_partition(owner, class_labels(labels), num_clients, min_partition_size, seed)


def _checked_coarse(coarse: Sequence[int] | str, labels: np.ndarray) -> np.ndarray:
    """Returns int64[K] the coarse label of each fine one."""
    if isinstance(coarse, str):
        if coarse != "cifar100":
            raise ValueError(
                f"coarse = {coarse!r} names no coarse labels: give one number for each fine label, "
                "or 'cifar100'"
            )
        coarse = _CIFAR100
    numbers = whole_numbers("coarse", coarse)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(numbers):
        raise ValueError(
            f"labels go from {labels.min()} to {labels.max()}, and coarse has the coarse labels of "
            f"0 to {len(numbers) - 1}: give one number for each fine label"
        )
    return numbers


def _by_coarse_labels(coarse: np.ndarray, alpha: float, beta: float) -> Draw:
    """Draws the mixtures of coarse labels, and of the fine labels of each."""
    alpha, beta = checked_alpha(alpha), checked_alpha(beta, "beta")

    def draw(counts, num_clients, rng, classes):
        kinds, parent = np.unique(coarse[classes], return_inverse=True)
        log_coarse = log_gamma_draws(rng, alpha, (num_clients, len(kinds)))
        log_fine = log_gamma_draws(rng, beta, (num_clients, len(classes)))
        return hierarchical(log_coarse, log_fine, parent)

    return draw


def hierarchical(log_coarse: np.ndarray, log_fine: np.ndarray, parent: np.ndarray) -> Mixtures:
    """Returns mixtures in which a class that has closed leaves its share to its siblings first.

    Args:
      log_coarse: float64[N, coarse] unnormalized log-probabilities of coarse labels.
      log_fine: float64[N, K] the same of fine labels.
      parent: int[K] the coarse label of each fine one.
    """

    def first(open_classes, clients):
        fine = np.where(open_classes, log_fine[clients], -np.inf)
        # in logarithms: the share of a class among the open ones of its coarse label
        of_kind = np.full((len(clients), log_coarse.shape[1]), -np.inf)
        for kind in np.unique(parent[open_classes]):
            of_kind[:, kind] = np.logaddexp.reduce(fine[:, parent == kind], axis=1)
        with np.errstate(invalid="ignore"):
            share = fine - of_kind[:, parent]
        return np.where(open_classes, log_coarse[clients][:, parent] + share, -np.inf)

    def instead(open_classes, clients, closed):
        siblings = open_classes & (parent == parent[closed])
        return first(siblings if siblings.any() else open_classes, clients)

    return Mixtures(first, instead)

"""Measures a partition: sizes and label skew of its clients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.core.values import wrong
from fljax.data.dataset import FederatedDataset, Partition, Split
from fljax.data.tables import as_array


class PartitionStatistics(NamedTuple):
    """Summary of a partition.

    Attributes:
      num_clients: N.
      num_rows: Rows of all clients.
      num_empty: Clients without rows.
      size_min: Fewest rows of a client.
      size_median: Median rows of a client.
      size_mean: Mean rows of a client.
      size_max: Most rows of a client.
      label_divergence: Mean Jensen-Shannon divergence, in bits, of a client's label distribution
        from that of all rows, over clients with rows; 0 is IID, 1 the most there is. None of
        targets without classes.
      effective_classes: Mean over clients with rows of exp(entropy) of the label distribution:
        the number of equally frequent classes that would be as mixed. None without classes.

    Example:
      >>> labels = np.arange(12) % 3
      >>> partition = data.iid(labels, 3)
      >>> statistics = data.partition_statistics(partition, data.label_counts(labels, partition, 3))
      >>> statistics.num_rows, statistics.size_max
      (12, 4)
    """

    num_clients: int
    num_rows: int
    num_empty: int
    size_min: int
    size_median: float
    size_mean: float
    size_max: int
    label_divergence: float | None
    effective_classes: float | None

    def __str__(self) -> str:
        sizes = (
            f"clients            {self.num_clients} ({self.num_empty} without rows)\n"
            f"rows               {self.num_rows}\n"
            f"rows per client    min {self.size_min}, median {self.size_median:g}, "
            f"mean {self.size_mean:.1f}, max {self.size_max}\n"
        )
        if self.label_divergence is None:
            return sizes + "labels             none: the targets have no classes"
        return sizes + (
            f"label divergence   {self.label_divergence:.4f} bits (Jensen-Shannon, 0 is IID)\n"
            f"effective classes  {self.effective_classes:.2f} per client"
        )


def label_counts(labels: np.ndarray, partition: Partition, num_classes: int) -> np.ndarray:
    """Counts the labels of each client.

    Args:
      labels: int[rows, ...] of all rows; several labels a row, such as tokens, are all counted.
      partition: Over N clients.
      num_classes: K; labels are in [0, K).

    Returns:
      int64[N, K].

    Example:
      >>> partition = data.iid(6, 2)
      >>> data.label_counts(np.arange(6) % 2, partition, 2).sum(0).tolist()
      [3, 3]
    """
    owned = np.asarray(labels[partition.all_rows()])
    owners = partition.owners().reshape((-1,) + (1,) * (owned.ndim - 1))
    cells = (owners * num_classes + owned).ravel()
    counts = np.bincount(cells, minlength=partition.num_clients * num_classes)
    return counts.reshape(partition.num_clients, num_classes)


def split_label_counts(dataset: FederatedDataset, split: Split | None = None) -> np.ndarray:
    """Counts the labels of each client of a dataset; padding, token 0, is not counted.

    Args:
      dataset: Of either kind.
      split: One of its splits with a partition; default the training data.

    Returns:
      int64[N, K].

    Example:
      >>> dataset = data.from_arrays(np.zeros((4, 2)), [0, 0, 1, 1], client_ids=[0, 0, 1, 1])
      >>> data.split_label_counts(dataset).tolist()
      [[2, 0], [0, 2]]
    """
    if dataset.num_classes is None:
        raise ValueError(
            f"{dataset.name!r} has targets without classes, so there are no labels to count. "
            "partition_statistics(partition) and plot_partition(partition) show sizes alone."
        )
    split = split or dataset.train
    examples = split.examples
    if examples.arrays is None:
        rows = split.partition.all_rows()
        labels, partition = examples.take(rows)["y"], Partition(split.partition.offsets)
    else:
        labels, partition = examples.arrays["y"], split.partition
    counts = label_counts(labels, partition, dataset.num_classes)
    if dataset.kind == "next_token":
        counts[:, 0] = 0
    return counts


def partition_statistics(
    partition: Partition, counts: np.ndarray | None = None
) -> PartitionStatistics:
    """Summarizes a partition.

    Args:
      partition: Over N clients, at least one.
      counts: int[N, K] labels of each client, as from `label_counts`; None of targets without
        classes.

    Example:
      >>> labels = np.arange(12) % 3
      >>> partition = data.iid(labels, 3)
      >>> data.partition_statistics(partition, data.label_counts(labels, partition, 3)).size_mean
      4.0
    """
    counts = checked_counts(partition, counts)
    sizes = partition.sizes
    has_labels = counts is not None
    return PartitionStatistics(
        num_clients=partition.num_clients,
        num_rows=partition.num_rows,
        num_empty=int((sizes == 0).sum()),
        size_min=int(sizes.min()),
        size_median=float(np.median(sizes)),
        size_mean=float(sizes.mean()),
        size_max=int(sizes.max()),
        label_divergence=float(np.mean(label_divergence(counts))) if has_labels else None,
        effective_classes=(
            float(np.mean(np.exp(_entropy(_distributions(counts))))) if has_labels else None
        ),
    )


def checked_counts(partition: Partition, counts: np.ndarray | None) -> np.ndarray | None:
    """Returns counts as an array; raises ValueError unless they count labels of the partition."""
    if not isinstance(partition, Partition):
        raise wrong("partition", partition, "a Partition")
    if counts is None:
        return None
    counts = as_array(counts, "counts")
    if counts.ndim != 2 or len(counts) != partition.num_clients or counts.dtype.kind not in "iuf":
        what = f"numbers [{partition.num_clients}, K], the labels of each client"
        raise wrong("counts", counts, what)
    return counts


def label_divergence(counts: np.ndarray) -> np.ndarray:
    """Returns each client's Jensen-Shannon divergence from the whole, in bits.

    JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2 (Lin, 1991).

    Args:
      counts: int[N, K] labels of each client.

    Returns:
      float64[clients with labels], each in [0, 1].
    """
    each = _distributions(counts)
    whole = _distributions(counts.sum(axis=0, keepdims=True))
    nats = _entropy((each + whole) / 2) - (_entropy(each) + _entropy(whole)) / 2
    return np.clip(nats / np.log(2.0), 0.0, 1.0)


def _distributions(counts: np.ndarray) -> np.ndarray:
    """Returns the normalized rows of a count matrix that are not empty."""
    counts = counts[counts.sum(axis=1) > 0]
    return counts / counts.sum(axis=1, keepdims=True)


def _entropy(p: np.ndarray) -> np.ndarray:
    """Returns the entropy of each row, in nats."""
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0), axis=-1)

"""Draws several partitions of one data set side by side: sizes above, labels below."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fljax.core.values import checked_path
from fljax.data.dataset import Partition
from fljax.data.partitions.statistics import checked_counts, partition_statistics
from fljax.data.pictures.figures import new_figure, saved
from fljax.data.pictures.plots import draw_shares, draw_sizes

_MOST = 6


def plot_partitions(
    partitions: Mapping[str, tuple[Partition, np.ndarray | None]],
    *,
    title: str = "",
    path: str | os.PathLike | None = None,
):
    """Draws partitions side by side, a column each; label shares are of one scale.

    Args:
      partitions: {name: (partition, int[N, K] labels of each client, or None of targets without
        classes)}, six at most.
      title: Of the figure.
      path: Where to save it as well, if anywhere.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ImportError: If matplotlib is not installed.
      ValueError: For no partition, or too many.

    Example:
      >>> labels = np.arange(12) % 3
      >>> made = {n: data.make_partition(n, labels, 3) for n in ("iid", "shards")}
      >>> both = {n: (p, data.label_counts(labels, p, 3)) for n, p in made.items()}
      >>> data.plot_partitions(both, path='partitions.png')  # doctest: +SKIP
    """
    path = None if path is None else checked_path("path", path)
    if not 0 < len(partitions) <= _MOST:
        raise ValueError(f"{len(partitions)} partitions were given: draw 1 to {_MOST} at a time")
    counts = {name: checked_counts(*pair) for name, pair in partitions.items()}
    labels = [each for each in counts.values() if each is not None]
    shares = [each / np.maximum(each.sum(1, keepdims=True), 1) for each in labels]
    has_labels, highest = bool(shares), max((each.max() for each in shares), default=0)
    figure = new_figure(2 + 4.2 * len(partitions), 7.6 if has_labels else 4.2)
    rows: Any = figure.subplots(1 + has_labels, len(partitions), squeeze=False)
    for place, (name, (partition, _)) in enumerate(partitions.items()):
        draw_sizes(rows[0, place], partition.sizes)
        found = partition_statistics(partition, counts[name])
        said = f"{name}\n{found.num_clients:,} clients"
        if found.label_divergence is not None:
            said += f", divergence {found.label_divergence:.3f} bits"
        rows[0, place].set_title(said, fontsize=10, pad=22)
        if counts[name] is not None:
            draw_shares(figure, rows[1, place], counts[name], highest)
    figure.suptitle(title, fontsize=11)
    return saved(figure, path)

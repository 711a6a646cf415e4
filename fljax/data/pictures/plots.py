"""Draws a partition: how large the clients are, and which labels they hold."""

from __future__ import annotations

import os

import numpy as np

from fljax.core.values import Field, checked, checked_path
from fljax.data.dataset import Partition
from fljax.data.partitions.statistics import checked_counts, partition_statistics
from fljax.data.pictures.figures import new_figure, saved

_MAX_BARS = 40
_MAX_COLUMNS = 2000
_MAX_LEGEND = 20


def plot_partition(
    partition: Partition,
    counts: np.ndarray | None = None,
    *,
    title: str = "",
    path: str | os.PathLike | None = None,
):
    """Draws a histogram of the sizes, and the labels of every client.

    Up to 40 clients are stacked bars of label counts, one a client; more are a heat map of label
    shares, one column a client, ordered by their commonest label (of more than 2,000 clients an
    evenly spaced selection in that order).

    Args:
      partition: Over N clients.
      counts: int[N, K] labels of each client, as from `label_counts`; None of targets without
        classes, of which sizes alone are drawn.
      title: Of the figure.
      path: Where to save it as well, if anywhere.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ImportError: If matplotlib is not installed.

    Example:
      >>> partition = data.iid(6, 2)
      >>> counts = data.label_counts(np.arange(6) % 2, partition, 2)
      >>> data.plot_partition(partition, counts, path='partition.png')  # doctest: +SKIP
    """
    counts = checked_counts(partition, counts)
    title = checked("title", title, Field("", str))
    path = None if path is None else checked_path("path", path)
    stats = partition_statistics(partition, counts)
    caption = f"{title}\n" * bool(title) + f"{stats.num_clients:,} clients, {stats.num_rows:,} rows"
    if counts is None:
        figure = new_figure(6, 4.8)
        draw_sizes(figure.subplots(), partition.sizes)
    else:
        figure = new_figure(12, 4.8)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
        draw_sizes(left, partition.sizes)
        _draw_labels(figure, right, counts)
        caption += f"; label divergence {stats.label_divergence:.3f} bits, "
        caption += f"{stats.effective_classes:.1f} effective classes"
    figure.suptitle(caption, fontsize=11)
    return saved(figure, path)


def draw_sizes(axes, sizes: np.ndarray) -> None:
    """Draws how many clients have how many rows, on a logarithmic axis if sizes vary widely."""
    filled = sizes[sizes > 0]
    num_bins = int(np.clip(np.sqrt(sizes.size) + 2, 5, 30))
    note = ""
    if filled.size and filled.max() > 20 * filled.min():
        # Edges between integers, so that no bin is empty only because no integer falls into it.
        edges = np.unique(np.geomspace(filled.min(), filled.max() + 1, num_bins + 1).round()) - 0.5
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if filled.size < sizes.size:
            note = f" ({sizes.size - filled.size:,} without rows not drawn)"
    else:
        step = max(1, -(-(sizes.max() - sizes.min() + 1) // num_bins))
        edges = np.arange(sizes.min(), sizes.max() + step + 1, step) - 0.5
        axes.set_xlim(max(edges[0] - 2 * step, -0.5), edges[-1] + 2 * step)
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.hist(sizes, bins=edges, color="#4878a8", edgecolor="white", linewidth=0.5)
    axes.axvline(np.median(sizes), color="#c44e52", label=f"median {np.median(sizes):,.4g}")
    axes.axvline(np.mean(sizes), color="#dd8452", ls="--", label=f"mean {np.mean(sizes):,.4g}")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel=f"rows of a client{note}", ylabel="clients")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_labels(figure, axes, counts: np.ndarray) -> None:
    """Draws the labels of a few clients as bars, and those of many as a heat map."""
    if len(counts) <= _MAX_BARS and counts.shape[1] <= _MAX_LEGEND:
        _draw_bars(axes, counts)
    else:
        draw_shares(figure, axes, counts)


def _draw_bars(axes, counts: np.ndarray) -> None:
    """Draws one stacked bar of label counts for each client."""
    from matplotlib import colormaps

    num_clients, num_classes = counts.shape
    colors = colormaps["tab10" if num_classes <= 10 else "tab20"]
    bottom = np.zeros(num_clients, np.int64)
    for k in range(num_classes):
        axes.bar(
            np.arange(num_clients), counts[:, k], 0.85, bottom=bottom, color=colors(k), label=k
        )
        bottom += counts[:, k]
    axes.set(xlabel="client", ylabel="rows", xlim=(-0.6, num_clients - 0.4))
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=20)
    axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        names[::-1],
        title="label",
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=8,
    )


def draw_shares(figure, axes, counts: np.ndarray, highest: float | None = None) -> None:
    """Draws the label shares of all clients as a heat map, up to the highest share of any."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    order = np.lexsort((-shares.max(axis=1), shares.argmax(axis=1), totals[:, 0] == 0))
    drawn = len(order)
    if drawn > _MAX_COLUMNS:
        order = order[np.linspace(0, drawn - 1, _MAX_COLUMNS).astype(np.int64)]
    image = axes.imshow(
        shares[order].T,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap="Blues",
        vmin=0.0,
        vmax=highest,
    )
    if counts.shape[1] <= _MAX_LEGEND:
        axes.set_yticks(np.arange(counts.shape[1]))
    selection = f", {_MAX_COLUMNS:,} of {drawn:,}" if drawn > _MAX_COLUMNS else ""
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel=f"client, ordered by commonest label{selection}", ylabel="label")
    figure.colorbar(image, ax=axes, label="share of the client's labels", pad=0.02)

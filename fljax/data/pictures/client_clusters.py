"""Clusters clients by what is known of them before or beside training: labels, or updates."""

from __future__ import annotations

import os

import numpy as np
import scipy

from fljax.core.values import COUNT, Field, checked, checked_path, shown
from fljax.data.pictures.figures import new_figure, saved

DISTANCES = ("jensenshannon", "cosine", "euclidean")


def cluster_clients(
    features: np.ndarray, num_clusters: int, *, distance: str = "jensenshannon"
) -> np.ndarray:
    """Joins clients that are alike, from single ones to as many clusters as wanted.

    Two clusters are as far apart as their clients are on the average (average linkage), so that the
    result depends on no draw.

    Args:
      features: [N, F] numbers of each client, such as `label_counts`, or its update, flattened.
      num_clusters: How many; fewer come out where fewer clients are unlike.
      distance: "jensenshannon" between distributions, such as labels; "cosine" between directions,
        such as updates; "euclidean".

    Returns:
      int64[N], clusters numbered in the order of their first clients; -1 for a client of which
      nothing is known (all zeros, such as one without rows).

    Raises:
      ValueError: For another distance, or features that are no finite table.

    Example:
      >>> counts = np.array([[9, 1], [0, 8], [5, 0], [0, 0], [1, 7]])
      >>> data.cluster_clients(counts, 2)
      array([ 0,  1,  0, -1,  1])
    """
    num_clusters = checked("num_clusters", num_clusters, Field(2, int, COUNT))
    features, known = _table(features, distance)
    clusters = np.full(len(features), -1, np.int64)
    if known.sum() < 2:
        clusters[known] = 0
        return clusters
    apart = scipy.spatial.distance.pdist(features[known], distance)
    # equal clients may be apart by less than rounding
    joined = scipy.cluster.hierarchy.linkage(np.maximum(np.nan_to_num(apart), 0), "average")
    found = scipy.cluster.hierarchy.fcluster(joined, num_clusters, "maxclust")
    _, first, number = np.unique(found, return_index=True, return_inverse=True)
    clusters[known] = np.argsort(np.argsort(first))[number]
    return clusters


def plot_client_clusters(
    features: np.ndarray,
    clusters: np.ndarray,
    *,
    distance: str = "jensenshannon",
    title: str = "",
    path: str | os.PathLike | None = None,
):
    """Draws how far clients are apart, cluster by cluster.

    Args:
      features: [N, F] as `cluster_clients` takes them.
      clusters: int[N], as it returns them; clients of -1 are not drawn.
      distance: As there.
      title: Of the figure.
      path: Where to save it as well, if anywhere.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ImportError: If matplotlib is not installed.
      ValueError: As `cluster_clients`.

    Example:
      >>> counts = np.array([[9, 1], [0, 8], [5, 0]])
      >>> clusters = data.cluster_clients(counts, 2)
      >>> data.plot_client_clusters(counts, clusters, path='clusters.png')  # doctest: +SKIP
    """
    title = checked("title", title, Field("", str))
    path = None if path is None else checked_path("path", path)
    features, _ = _table(features, distance)
    clusters = np.asarray(clusters)
    order = np.argsort(clusters, kind="stable")
    order = order[clusters[order] >= 0]
    apart = scipy.spatial.distance.pdist(features[order], distance)
    figure = new_figure(6.4, 5.4)
    axes = figure.subplots()
    image = axes.imshow(
        scipy.spatial.distance.squareform(np.nan_to_num(apart)), cmap="Blues_r", vmin=0.0
    )
    for edge in np.flatnonzero(np.diff(clusters[order])) + 0.5:
        axes.axhline(edge, color="#c44e52", linewidth=0.8)
        axes.axvline(edge, color="#c44e52", linewidth=0.8)
    axes.set(xlabel="client, cluster by cluster", ylabel="client")
    figure.colorbar(image, ax=axes, label=f"distance ({distance})")
    figure.suptitle(title, fontsize=11)
    return saved(figure, path)


def _table(features: np.ndarray, distance: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (features in float64, bool[N] the clients of which something is known)."""
    checked("distance", distance, Field("cosine", str, DISTANCES))
    table = np.asarray(features, np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(
            f"features = {shown(features)} must be a table [clients, numbers] of finite numbers, "
            "such as data.split_label_counts(dataset)."
        )
    if distance == "jensenshannon" and (table < 0).any():
        raise ValueError(
            "features hold negative numbers, which are no distribution. Use distance='cosine' or "
            "'euclidean'."
        )
    return table, table.any(1)

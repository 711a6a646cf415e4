"""Federated data: sources, partitions, statistics."""

from fljax.data.arrays import from_arrays
from fljax.data.checks import check, checked
from fljax.data.client_clusters import cluster_clients, plot_client_clusters
from fljax.data.contact_sheet import example_lines, is_of_images, plot_examples
from fljax.data.dataset import (
    ArrayExamples,
    Examples,
    FederatedDataset,
    LazyExamples,
    Partition,
    Split,
)
from fljax.data.dirichlet import dirichlet, dirichlet_hsu, dirichlet_per_client
from fljax.data.feature_skew import (
    SKEWS,
    Skew,
    blur,
    gaussian_noise,
    rotations,
    with_feature_skew,
)
from fljax.data.files import resolve_data_dir
from fljax.data.held_out import with_held_out
from fljax.data.image_scaling import image_scaling
from fljax.data.own_rows import with_own_test
from fljax.data.partition import classes_per_client, iid, natural, quantity, shards
from fljax.data.partition_names import PARTITIONERS, make_partition
from fljax.data.pfllib import pfllib_dirichlet, pfllib_pathological
from fljax.data.plots import plot_partition
from fljax.data.readers.objects import from_biosilo, from_huggingface, from_torch
from fljax.data.side_by_side import plot_partitions
from fljax.data.sources import SOURCES, digits, load
from fljax.data.sources.adult import adult
from fljax.data.sources.heart import heart_disease
from fljax.data.sources.images import cifar10, fashion_mnist, mnist, mnist_writers
from fljax.data.sources.shakespeare import shakespeare
from fljax.data.sources.synthetic import synthetic
from fljax.data.statistics import (
    PartitionStatistics,
    label_counts,
    partition_statistics,
    split_label_counts,
)

__all__ = [
    "PARTITIONERS",
    "SKEWS",
    "SOURCES",
    "ArrayExamples",
    "Examples",
    "FederatedDataset",
    "LazyExamples",
    "Partition",
    "PartitionStatistics",
    "Skew",
    "Split",
    "adult",
    "blur",
    "check",
    "checked",
    "cifar10",
    "classes_per_client",
    "cluster_clients",
    "digits",
    "dirichlet",
    "dirichlet_hsu",
    "dirichlet_per_client",
    "example_lines",
    "fashion_mnist",
    "from_arrays",
    "from_biosilo",
    "from_huggingface",
    "from_torch",
    "gaussian_noise",
    "heart_disease",
    "iid",
    "image_scaling",
    "is_of_images",
    "label_counts",
    "load",
    "make_partition",
    "mnist",
    "mnist_writers",
    "natural",
    "partition_statistics",
    "pfllib_dirichlet",
    "pfllib_pathological",
    "plot_client_clusters",
    "plot_examples",
    "plot_partition",
    "plot_partitions",
    "quantity",
    "resolve_data_dir",
    "rotations",
    "shakespeare",
    "shards",
    "split_label_counts",
    "synthetic",
    "with_feature_skew",
    "with_held_out",
    "with_own_test",
]

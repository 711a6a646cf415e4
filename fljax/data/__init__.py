"""Federated data: sources, partitions, statistics."""

from fljax.core.data_files import resolve_data_dir
from fljax.data.arrays import from_arrays
from fljax.data.checks import check, checked
from fljax.data.dataset import (
    ArrayExamples,
    Examples,
    FederatedDataset,
    LazyExamples,
    Partition,
    Split,
)
from fljax.data.heterogeneity.concept_drift import (
    DRIFTS,
    SCHEDULES,
    Schedule,
    gradual,
    recurrent,
    sudden,
    window,
    with_concept_drift,
)
from fljax.data.heterogeneity.concept_shift import (
    CONCEPTS,
    label_permutations,
    label_rotations,
    label_swap,
    with_concept_shift,
)
from fljax.data.heterogeneity.drift_report import drift_lines, telling_rounds
from fljax.data.heterogeneity.feature_skew import with_feature_skew
from fljax.data.heterogeneity.label_noise import (
    NOISES,
    NoiseKind,
    NoisyLabels,
    asymmetric,
    pairwise,
    symmetric,
    with_label_noise,
    wrong_label_shares,
)
from fljax.data.heterogeneity.label_priors import label_priors
from fljax.data.heterogeneity.scanners import scanners
from fljax.data.heterogeneity.skew_names import SKEWS
from fljax.data.heterogeneity.skews import (
    Skew,
    blur,
    colour,
    gaussian_noise,
    pixel_permutation,
    rotations,
)
from fljax.data.image_scaling import image_scaling
from fljax.data.interactions import from_interactions
from fljax.data.partitions.dirichlet import dirichlet, dirichlet_hsu, dirichlet_per_client
from fljax.data.partitions.pachinko import pachinko, quantity_label
from fljax.data.partitions.partition import classes_per_client, iid, natural, quantity, shards
from fljax.data.partitions.partition_names import PARTITIONERS, make_partition
from fljax.data.partitions.pfllib import pfllib_dirichlet, pfllib_pathological
from fljax.data.partitions.statistics import (
    PartitionStatistics,
    label_counts,
    partition_statistics,
    split_label_counts,
)
from fljax.data.pictures.client_clusters import cluster_clients, plot_client_clusters
from fljax.data.pictures.contact_sheet import example_lines, is_of_images, plot_examples
from fljax.data.pictures.plots import plot_partition
from fljax.data.pictures.side_by_side import plot_partitions
from fljax.data.poisoning import poisoned
from fljax.data.readers.download import download
from fljax.data.readers.objects import from_biosilo, from_huggingface, from_torch
from fljax.data.sources import SOURCES, digits, load
from fljax.data.sources.activity import uci_har
from fljax.data.sources.adult import adult
from fljax.data.sources.cifar100 import cifar100
from fljax.data.sources.emnist import emnist
from fljax.data.sources.heart import heart_disease
from fljax.data.sources.images import cifar10, fashion_mnist, mnist, mnist_writers
from fljax.data.sources.interactions import interactions
from fljax.data.sources.libsvm import a9a, mushrooms, w8a
from fljax.data.sources.medical import brain_mri, pneumonia_xray
from fljax.data.sources.shakespeare import shakespeare
from fljax.data.sources.stackoverflow import stackoverflow_lr, stackoverflow_nwp
from fljax.data.sources.synthetic import synthetic
from fljax.data.splits.held_out import with_fold, with_held_out
from fljax.data.splits.own_rows import with_own_test
from fljax.data.splits.root import with_root, without_root

__all__ = [
    "CONCEPTS",
    "DRIFTS",
    "NOISES",
    "PARTITIONERS",
    "SCHEDULES",
    "SKEWS",
    "SOURCES",
    "ArrayExamples",
    "Examples",
    "FederatedDataset",
    "LazyExamples",
    "NoiseKind",
    "NoisyLabels",
    "Partition",
    "PartitionStatistics",
    "Schedule",
    "Skew",
    "Split",
    "a9a",
    "adult",
    "asymmetric",
    "blur",
    "brain_mri",
    "check",
    "checked",
    "cifar10",
    "cifar100",
    "classes_per_client",
    "cluster_clients",
    "colour",
    "digits",
    "dirichlet",
    "dirichlet_hsu",
    "dirichlet_per_client",
    "download",
    "drift_lines",
    "emnist",
    "example_lines",
    "fashion_mnist",
    "from_arrays",
    "from_biosilo",
    "from_huggingface",
    "from_interactions",
    "from_torch",
    "gaussian_noise",
    "gradual",
    "heart_disease",
    "iid",
    "image_scaling",
    "interactions",
    "is_of_images",
    "label_counts",
    "label_permutations",
    "label_priors",
    "label_rotations",
    "label_swap",
    "load",
    "make_partition",
    "mnist",
    "mnist_writers",
    "mushrooms",
    "natural",
    "pachinko",
    "pairwise",
    "partition_statistics",
    "pfllib_dirichlet",
    "pfllib_pathological",
    "pixel_permutation",
    "plot_client_clusters",
    "plot_examples",
    "plot_partition",
    "plot_partitions",
    "pneumonia_xray",
    "poisoned",
    "quantity",
    "quantity_label",
    "recurrent",
    "resolve_data_dir",
    "rotations",
    "scanners",
    "shakespeare",
    "shards",
    "split_label_counts",
    "stackoverflow_lr",
    "stackoverflow_nwp",
    "sudden",
    "symmetric",
    "synthetic",
    "telling_rounds",
    "uci_har",
    "w8a",
    "window",
    "with_concept_drift",
    "with_concept_shift",
    "with_feature_skew",
    "with_fold",
    "with_held_out",
    "with_label_noise",
    "with_own_test",
    "with_root",
    "without_root",
    "wrong_label_shares",
]

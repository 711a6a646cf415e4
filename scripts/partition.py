"""Prints how unlike the clients of a partition are, and draws it.

Example:
  python scripts/partition.py --dataset=fashion_mnist --partition=dirichlet --num_clients=100 \
      --alpha=0.3 --out=partition.png
"""

from fljax.core.own_modules import beside

from fljax import commands  # isort: skip, it answers for what the others do

from pathlib import Path

import numpy as np
from absl import flags

from fljax import data
from fljax.core.clusterings import adjusted_rand_index
from fljax.core.settings import DATA

_DATASET = flags.DEFINE_string(
    "dataset", "digits", f"{', '.join(data.SOURCES)}, or 'module:function' of your own."
)
_PARTITION = flags.DEFINE_string("partition", None, DATA["partition"].meaning)
_NUM_CLIENTS = flags.DEFINE_integer("num_clients", None, "Number of clients.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Chooses the partition.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Data directory; default $FLJAX_DATA_DIR.")
_CODE_DIR = flags.DEFINE_string("code_dir", None, "Folder of your module; default the current one.")
_CLUSTERS = flags.DEFINE_integer(
    "clusters", None, "Joins clients whose labels are alike to so many clusters.", lower_bound=1
)
_OUT = flags.DEFINE_string("out", None, "Where to save the figure; none is drawn without it.")

_OPTIONS = (
    *("alpha", "shards_per_client", "classes_per_client", "sigma", "min_partition_size"),
    *("rows_per_client", "own_test_fraction", "feature_skew", "held_out_fraction"),
)
_DEFINE = {float: flags.DEFINE_float, int: flags.DEFINE_integer, str: flags.DEFINE_string}
for _name in _OPTIONS:
    _define = _DEFINE[DATA[_name].kind]
    _define(_name, None, DATA[_name].meaning)


def main(argv):
    options = {name: flags.FLAGS[name].value for name in _OPTIONS}
    with beside(_CODE_DIR.value):
        dataset = data.load(
            _DATASET.value,
            partition=_PARTITION.value,
            num_clients=_NUM_CLIENTS.value,
            seed=_SEED.value,
            data_dir=_DATA_DIR.value,
            **{name: value for name, value in options.items() if value is not None},
        )
    partition = dataset.train.partition
    counts = None if dataset.num_classes is None else data.split_label_counts(dataset)
    commands.show(dataset.describe())
    commands.show(data.partition_statistics(partition, counts))
    for name, values in dataset.groups.items():
        found = zip(*np.unique(values, return_counts=True), strict=True)
        each = ", ".join(f"{value} {count}" for value, count in found)
        commands.show(f"{name:<18} {each} (clients)")
    if _CLUSTERS.value:
        _show_clusters(dataset, counts)
    if _OUT.value:
        title = dataset.name + (f", {_PARTITION.value} partition" if _PARTITION.value else "")
        data.plot_partition(partition, counts, title=title, path=_OUT.value)
        commands.show(f"figure             {_OUT.value}")


def _show_clusters(dataset, counts):
    """Shows the clusters by labels, and how far they agree with the groups of the data."""
    if counts is None:
        raise ValueError("--clusters goes by labels, and the targets have no classes.")
    found = data.cluster_clients(counts, _CLUSTERS.value)
    sizes = ", ".join(str(size) for size in np.bincount(found[found >= 0]))
    commands.show(f"clusters           {sizes} clients, by their labels")
    for name, groups in dataset.groups.items():
        agreement = adjusted_rand_index(found, groups)
        commands.show(f"                   adjusted Rand index with {name}: {agreement:.3f}")
    if _OUT.value:
        out = Path(_OUT.value)
        path = out.with_name(f"{out.stem}_clusters{out.suffix}")
        data.plot_client_clusters(counts, found, title=dataset.name, path=path)
        commands.show(f"figure             {path}")


if __name__ == "__main__":
    commands.run(main)

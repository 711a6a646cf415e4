r"""Prints how unlike the clients of a partition are, and draws it; looks at the data themselves.

    fljax partition --dataset=fashion_mnist --partition=dirichlet --num_clients=100 \
        --alpha=0.3 --out=partition.png
    fljax partition --dataset=mnist --num_clients=50 --partition='dirichlet(alpha=0.1)' \
        --partition=shards --partition=iid --examples=6 --check --html=mnist.html
    fljax partition --dataset="csv(path='visits.csv', client='user', label='outcome')"
    fljax partition quickstart --partition=iid --out=partition.png
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from fljax import commands, data
from fljax.config import resolve
from fljax.config.command_line import config_given, define_config
from fljax.config.experiment import make_dataset
from fljax.core.clusterings import adjusted_rand_index
from fljax.core.files import naming
from fljax.core.own_modules import beside
from fljax.core.settings import DATA
from fljax.recording import page

_FLAGS = flags.FLAGS

_OF_PARTITION = ("alpha", "shards_per_client", "classes_per_client", "sigma", "min_partition_size")
_OPTIONS = (
    *_OF_PARTITION,
    *("rows_per_client", "own_test_fraction", "feature_skew", "concept_shift", "label_noise"),
    *("held_out_fraction", "held_out_folds", "held_out_fold", "concept_drift", "data_checks"),
    "root_rows",
)
_DEFINE: dict[type, Any] = {
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    str: flags.DEFINE_string,
}


def define() -> None:
    """Defines the flags of partitions."""
    define_config()
    flags.DEFINE_string(
        "dataset",
        None,
        f"{', '.join(data.SOURCES)}, or 'module:function' of your own; default that of --config, "
        "or digits. Options stand in brackets: "
        "csv(path='visits.csv', client='user', label='outcome').",
    )
    flags.DEFINE_multi_string(
        "partition", [], DATA["partition"].meaning + " Several are drawn side by side."
    )
    flags.DEFINE_integer("num_clients", None, "Number of clients.", lower_bound=1)
    flags.DEFINE_integer("seed", None, "Chooses the partition; default 0, or of --config.")
    flags.DEFINE_string("data_dir", None, "Data directory; default $FLJAX_DATA_DIR.")
    flags.DEFINE_string("code_dir", None, "Folder of your module; default the current one.")
    flags.DEFINE_integer(
        "clusters", None, "Joins clients whose labels are alike to so many clusters.", lower_bound=1
    )
    flags.DEFINE_integer(
        "examples", None, "Shows examples of so many clients: a picture, or lines.", lower_bound=1
    )
    flags.DEFINE_bool("check", False, "Looks for faults in the data, client by client.")
    flags.DEFINE_string("out", None, "Where to save the figures; none is drawn without it.")
    flags.DEFINE_string("html", None, "Where to save one page of all that is found.")
    for name in _OPTIONS:
        _DEFINE[DATA[name].kind](name, None, DATA[name].meaning)


def main(argv: list[str]) -> None:
    """Describes the partitions, and draws what flags ask for."""
    with tempfile.TemporaryDirectory() as folder:
        kept = None if _FLAGS.out is None else Path(_FLAGS.out)
        out = Path(folder) / "partition.png" if kept is None and _FLAGS.html else kept
        datasets = {name or "natural": _load(name) for name in _FLAGS.partition or [None]}
        named = _FLAGS.dataset or next(iter(datasets.values())).name
        blocks = [page.Heading(f"{named}: its clients", 1)]
        for name, dataset in datasets.items():
            blocks += _described(name, dataset, len(datasets) > 1)
        first = next(iter(datasets.values()))
        blocks += _drawn(datasets, out)
        if first.moves:
            blocks += _drift(first, out)
        if _FLAGS.clusters:
            blocks += _clusters(first, out)
        if _FLAGS.examples:
            blocks += _examples(first, out)
        if _FLAGS.check:
            blocks += _verbatim("Checks", str(data.check(first)))
        if kept is not None:
            for block in blocks:
                if isinstance(block, page.Picture):
                    commands.show(f"figure             {block.path}")
        if _FLAGS.html:
            with naming(Path(_FLAGS.html)):
                Path(_FLAGS.html).write_text(page.as_html(blocks), encoding="utf-8")
            commands.show(f"page               {_FLAGS.html}")


def _load(partition):
    """Loads the data; of a configuration its own, but for what flags say."""
    said = {name: _FLAGS[name].value for name in ("num_clients", "data_dir", *_OPTIONS)}
    said |= {"partition": partition, "seed": _FLAGS.seed}
    said = {name: value for name, value in said.items() if value is not None}
    if _FLAGS.config is None:
        with beside(_FLAGS.code_dir):
            return data.load(_FLAGS.dataset or "digits", **said)
    config = config_given().copy_and_resolve_references()
    if partition is not None:  # the options of another one
        config.update({name: DATA[name].default for name in _OF_PARTITION})
    said = {{"seed": "data_seed"}.get(name, name): value for name, value in said.items()}
    of_modules = {"dataset": _FLAGS.dataset, "code_dir": _FLAGS.code_dir}
    config.update(said | {name: value for name, value in of_modules.items() if value is not None})
    config = resolve(config)
    with beside(config.code_dir):
        return make_dataset(config)


def _described(name, dataset, several):
    """Shows splits, sizes and skew; returns them as blocks of a page."""
    lines = [dataset.describe(), str(data.partition_statistics(*_counted(dataset)))]
    for group, values in data.without_root(dataset).groups.items():
        found = zip(*np.unique(values, return_counts=True), strict=True)
        each = ", ".join(f"{value} {count}" for value, count in found)
        lines.append(f"{group:<18} {each} (clients)")
    return _verbatim(f"Partition {name}" if several else "Clients", "\n".join(lines), several)


def _drawn(datasets, out):
    """Draws the partitions; returns blocks of a page."""
    if out is None:
        return []
    if len(datasets) == 1:
        ((name, dataset),) = datasets.items()
        title = dataset.name + (f", {name} partition" if _FLAGS.partition else "")
        data.plot_partition(*_counted(dataset), title=title, path=out)
    else:
        pairs = {name: _counted(dataset) for name, dataset in datasets.items()}
        data.plot_partitions(pairs, title=next(iter(datasets.values())).name, path=out)
    return [page.Picture(out, "Sizes and labels of the clients")]


def _drift(dataset, out):
    """Shows what clients hold in a few rounds; returns blocks of a page."""
    rounds = data.telling_rounds(dataset)
    blocks = _verbatim("Drift", data.drift_lines(dataset, rounds), headed=True)
    if out is not None:
        path = out.with_name(f"{out.stem}_drift{out.suffix}")
        held = {f"round {round}": _counted(dataset.at(round)) for round in rounds.tolist()}
        data.plot_partitions(held, title=f"{dataset.name}, drifting", path=path)
        blocks.append(page.Picture(path, "What clients hold in a few rounds"))
    return blocks


def _examples(dataset, out):
    """Shows examples of a few clients; returns blocks of a page."""
    lines = data.example_lines(dataset, clients=_FLAGS.examples)
    if not data.is_of_images(dataset):
        return _verbatim("Examples", lines)
    if out is None:
        raise ValueError("--examples of images are a picture: say where with --out or --html.")
    path = out.with_name(f"{out.stem}_examples{out.suffix}")
    data.plot_examples(dataset, clients=_FLAGS.examples, path=path)
    return [page.Heading("Examples"), page.Picture(path, "Examples of a few clients")]


def _verbatim(heading, text, headed=False):
    """Shows lines, below their heading where that is wanted; returns blocks of a page."""
    commands.show(f"{heading}\n{text}\n" if headed else text)
    return [page.Heading(heading), page.Verbatim(text)]


def _counted(dataset):
    """Returns the training partition, and its clients' labels where there are classes."""
    has_classes, dataset = dataset.num_classes is not None, data.without_root(dataset)
    return dataset.train.partition, data.split_label_counts(dataset) if has_classes else None


def _clusters(dataset, out):
    """Shows the clusters by labels, and how far they agree with the groups of the data."""
    _, counts = _counted(dataset)
    if counts is None:
        raise ValueError("--clusters goes by labels, and the targets have no classes.")
    found = data.cluster_clients(counts, _FLAGS.clusters)
    sizes = ", ".join(str(size) for size in np.bincount(found[found >= 0]))
    lines = [f"clusters           {sizes} clients, by their labels"]
    for name, groups in dataset.groups.items():
        agreement = adjusted_rand_index(found, groups)
        lines.append(f"                   adjusted Rand index with {name}: {agreement:.3f}")
    blocks = _verbatim("Clusters", "\n".join(lines))
    if out is not None:
        path = out.with_name(f"{out.stem}_clusters{out.suffix}")
        data.plot_client_clusters(counts, found, title=dataset.name, path=path)
        blocks.append(page.Picture(path, "Clients by cluster"))
    return blocks

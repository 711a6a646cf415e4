"""Describes and draws partitions, as the flags of `fljax partition` ask."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from absl import flags

from fljax import commands, data
from fljax.commands.partition import OF_PARTITION, OPTIONS
from fljax.config import resolve
from fljax.config.command_line import config_given
from fljax.config.experiment import make_dataset
from fljax.core.clusterings import adjusted_rand_index
from fljax.core.files import naming
from fljax.core.own_modules import beside
from fljax.core.settings import DATA
from fljax.recording import page

_FLAGS = flags.FLAGS


def show() -> None:
    """Shows and draws what the flags ask for."""
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
    said = {name: _FLAGS[name].value for name in ("num_clients", "data_dir", *OPTIONS)}
    said |= {"partition": partition, "seed": _FLAGS.seed}
    said = {name: value for name, value in said.items() if value is not None}
    if _FLAGS.config is None:
        with beside(_FLAGS.code_dir):
            return data.load(_FLAGS.dataset or "digits", **said)
    config = config_given().copy_and_resolve_references()
    if partition is not None:  # the options of another one
        config.update({name: DATA[name].default for name in OF_PARTITION})
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

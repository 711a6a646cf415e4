"""Shows which labels clients hold: the data of the run's configuration, loaded again."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax import data
from fljax.config import resolve
from fljax.config.experiment import make_dataset
from fljax.config.prediction import as_configured
from fljax.core.own_modules import beside
from fljax.core.settings import DATA
from fljax.core.values import brief
from fljax.recording.page import Block, Heading, Text, Verbatim
from fljax.reports.charts import Chart, steps
from fljax.reports.layout import Charts
from fljax.reports.subjects import Subject
from fljax.studies.space import identity

# Partitions that a page shows, and clients and classes that a map of labels has room for.
_MOST_PARTITIONS, _MOST_CLIENTS, _MOST_CLASSES = 3, 120, 40
_WIDTH, _LEFT, _TOP, _BOTTOM, _CELL = 1120, 60, 6, 24, 13
_MOST_LETTERS = 8
# Cohorts are checked against the number of clients.
_NEEDED = {*DATA, "clients_per_round"}


def partition_blocks(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns the part of a page about the partition: sizes, and the labels of clients.

    Data that cannot be loaded here, or were given in Python, are said to be so.
    """
    different: dict[str, list[Subject]] = {}
    for subject in subjects:
        settings = {name: subject.run.config.get(name) for name in DATA}
        different.setdefault(identity(settings), []).append(subject)
    blocks: list[Block | Charts] = [Heading("Partition")]
    for group in list(different.values())[:_MOST_PARTITIONS]:
        if len(different) > 1:
            blocks.append(Heading(", ".join(subject.label for subject in group), 3))
        blocks += _of_config(group[0].run.config)
    if len(different) > _MOST_PARTITIONS:
        blocks.append(
            Text(f"{len(different) - _MOST_PARTITIONS} further partitions are not shown.")
        )
    return blocks


def _of_config(config: Mapping[str, Any]) -> list[Block | Charts]:
    if any(name not in config for name in ("partition", "dataset_options", "data_seed")):
        return [Text("The data of this run were given in Python: its files do not hold them.")]
    try:
        asked = as_configured(config)
        known = resolve({name: asked[name] for name in asked.keys() & _NEEDED})
        with beside(known.code_dir):
            dataset = data.without_root(make_dataset(known))
    except Exception as error:  # modules of the user's are among what is called
        return [Text(f"The data of this run could not be loaded here ({brief(error)}).")]
    partition = dataset.train.partition
    counts = None if dataset.num_classes is None else data.split_label_counts(dataset)
    statistics = data.partition_statistics(partition, counts)
    names = None if dataset.class_names is None else list(map(str, dataset.class_names))
    figures = [] if counts is None else [label_map(counts, names)]
    return [
        Text(f"`{config['partition'] or 'natural'}`, as the configuration draws it."),
        Verbatim(str(statistics)),
        Charts([_sizes(partition.sizes)], figures),
    ]


def _sizes(sizes: np.ndarray) -> Chart:
    edges = np.histogram_bin_edges(sizes, int(np.clip(np.sqrt(sizes.size) + 2, 5, 30)))
    line = steps("clients", edges, np.histogram(sizes, edges)[0])
    return Chart("Sizes of clients", "Rows of a client", "Clients", [line], from_zero=True)


def label_map(counts: np.ndarray, names: Sequence[str] | None = None) -> str:
    """Returns a figure of HTML: a column a client, a row a label, filled by its share.

    Of many clients, some are shown, evenly spaced in the order of their commonest label; of many
    labels, the commonest ones.

    Args:
      counts: int[N, K] labels of each client.
      names: [K] of the labels; None numbers them.

    Example:
      >>> label_map(np.array([[3, 0], [1, 1]])).count("<rect")
      3
    """
    counts = np.asarray(counts, np.float64)
    totals = counts.sum(1, keepdims=True)
    held = counts / np.maximum(totals, 1)
    order = np.lexsort((-held.max(1), held.argmax(1), totals[:, 0] == 0))
    if len(order) > _MOST_CLIENTS:
        order = order[np.linspace(0, len(order) - 1, _MOST_CLIENTS).astype(int)]
    common = np.sort(np.argsort(-counts.sum(0), kind="stable")[:_MOST_CLASSES])
    width = (_WIDTH - _LEFT - 10) / len(order)
    height = _TOP + _CELL * len(common) + _BOTTOM
    parts = []
    for row, label in enumerate(common):
        y = _TOP + _CELL * row
        text = str(label) if names is None else names[label]
        text = text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"
        parts.append(
            f'<text class="y small" x="{_LEFT - 6}" y="{y + 10}">{html.escape(text)}</text>'
        )
        parts += [
            f'<rect x="{_LEFT + place * width:.1f}" y="{y}" width="{width:.1f}" '
            f'height="{_CELL - 1}" fill-opacity="{held[client, label]:.2f}"/>'
            for place, client in enumerate(order)
            if held[client, label] >= 0.005
        ]
    some = f", {len(order)} of {len(counts):,} clients" if len(order) < len(counts) else ""
    few = f", the {len(common)} commonest" if len(common) < counts.shape[1] else ""
    title = f"Labels of clients{some}{few}: stronger colours are larger shares"
    return (
        f'<figure class="wide map"><figcaption>{title}</figcaption><div class="scroll">'
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}">{"".join(parts)}'
        f'<text class="name" x="{_WIDTH / 2:g}" y="{height - 6}">Clients, by commonest label</text>'
        "</svg></div></figure>"
    )

"""Shows examples of a few clients: images as a contact sheet, texts and numbers as lines."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fljax.core import random
from fljax.core.digits import counted
from fljax.core.values import checked_path
from fljax.data.dataset import FederatedDataset
from fljax.data.pictures.figures import new_figure, saved

_LONGEST = 100
_PADDING = 0


def chosen_clients(dataset: FederatedDataset, clients: int) -> np.ndarray:
    """Returns the numbers of some clients with rows, from the largest to the smallest.

    Example:
      >>> dataset = data.from_arrays(np.eye(6), [0, 1] * 3, client_ids=list("aaabbc"))
      >>> chosen_clients(dataset, 2).tolist()
      [0, 2]
    """
    sizes = dataset.train.partition.sizes[: dataset.members]
    filled = np.flatnonzero(sizes)
    order = filled[np.argsort(-sizes[filled], kind="stable")]
    return order[np.linspace(0, len(order) - 1, min(clients, len(order))).round().astype(np.int64)]


def example_rows(dataset: FederatedDataset, client: int, examples: int, seed: int) -> np.ndarray:
    """Returns the numbers of some of a client's training rows, drawn by the seed."""
    rows = dataset.train.partition.rows(client)
    order = np.argsort(random.bits(seed, "contact sheet", rows), kind="stable")
    return rows[np.sort(order[:examples])]


def is_of_images(dataset: FederatedDataset) -> bool:
    """Returns whether x is one image: [H, W], [H, W, 1] or [H, W, 3] numbers.

    Example:
      >>> data.is_of_images(data.synthetic(num_clients=3))
      False
    """
    spec = dataset.train.examples.spec["x"]
    shape = getattr(spec, "shape", ())
    is_grid = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    return dataset.kind != "next_token" and is_grid and min(shape[:2]) > 1


def plot_examples(
    dataset: FederatedDataset,
    *,
    clients: int = 6,
    examples: int = 10,
    seed: int = 0,
    path: str | os.PathLike | None = None,
):
    """Draws training images of a few clients, a row each, with their labels.

    Args:
      dataset: Whose x are images.
      clients: How many, evenly spaced from the largest to the smallest.
      examples: Of each, drawn by the seed.
      seed: Draws them.
      path: Where to save the figure as well, if anywhere.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ImportError: If matplotlib is not installed.
      ValueError: Where x are no images.

    Example:
      >>> data.plot_examples(data.mnist(num_clients=10), path='sheet.png')  # doctest: +SKIP
    """
    path = None if path is None else checked_path("path", path)
    if not is_of_images(dataset):
        raise ValueError(
            f"x of {dataset.name!r} are no images [H, W], [H, W, 1] or [H, W, 3]: "
            "example_lines(dataset) shows them as texts"
        )
    shown = chosen_clients(dataset, clients)
    figure = new_figure(1.6 + 0.95 * examples, 0.4 + 1.15 * len(shown))
    grid = figure.subplots(len(shown), examples, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, client in zip(grid, shown, strict=True):
        rows = example_rows(dataset, client, examples, seed)
        taken = dataset.train.examples.take(rows)
        for axes, image, target in zip(line, taken["x"], _targets(dataset, taken["y"])):  # noqa: B905
            grey = image.ndim == 2 or image.shape[-1] == 1
            low, high = (0, 255) if image.dtype == np.uint8 else (image.min(), image.max())
            pixels = (image.astype(np.float64) - low) / max(high - low, 1e-12)
            pixels = pixels.reshape(pixels.shape[:2]) if grey else pixels
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
            axes.set_title(target, fontsize=7, pad=2)
        size = counted(int(dataset.train.partition.sizes[client]), "row")
        line[0].text(
            -0.15, 0.5, f"{_name(dataset, client)}\n{size}", fontsize=8,
            transform=line[0].transAxes, ha="right", va="center",
        )  # fmt: skip
    return saved(figure, path)


def example_lines(
    dataset: FederatedDataset, *, clients: int = 3, examples: int = 3, seed: int = 0
) -> str:
    """Returns training examples of a few clients as lines: texts as texts, else numbers.

    Token ids are texts where the data name them (`class_names`).

    Args:
      dataset: Of any kind.
      clients: How many, evenly spaced from the largest to the smallest.
      examples: Of each, drawn by the seed.
      seed: Draws them.

    Example:
      >>> dataset = data.from_arrays([[0.5, 1.0], [2.0, 3.0]], ["no", "yes"], client_ids=[7, 8])
      >>> print(data.example_lines(dataset))
      client 7 (1 row)
        no: 0.5 1
      client 8 (1 row)
        yes: 2 3
    """
    lines = []
    for client in chosen_clients(dataset, clients):
        size = dataset.train.partition.sizes[client]
        lines.append(f"client {_name(dataset, client)} ({counted(int(size), 'row')})")
        taken = dataset.train.examples.take(example_rows(dataset, client, examples, seed))
        for row, target in enumerate(_targets(dataset, taken["y"])):
            lines.append(f"  {target}{_said(dataset, taken['x'], row)}")
    return "\n".join(lines)


def _name(dataset: FederatedDataset, client: int) -> str:
    ids = dataset.client_ids
    return str(client if ids is None else ids[client])


def _targets(dataset: FederatedDataset, y: Any) -> list[str]:
    """Returns how each target is called; nothing of sequences and of several arrays."""
    size = len(y) if isinstance(y, np.ndarray) else len(next(iter(_leaves(y))))
    if not isinstance(y, np.ndarray) or y.ndim != 1:
        return [""] * size
    names = dataset.class_names
    return [f"{value:.4g}" if names is None else names[value] for value in y]


def _leaves(tree: Any) -> list[np.ndarray]:
    import jax

    return jax.tree.leaves(tree)


def _said(dataset: FederatedDataset, x: Any, row: int) -> str:
    """Returns an example as a text, cut after 100 characters."""
    if dataset.kind == "next_token" and isinstance(x, np.ndarray):
        names = dataset.class_names
        tokens = x[row][x[row] != _PADDING]
        joint = "" if names and max(map(len, names)) == 1 else " "
        text = joint.join(str(t) if names is None else names[t] for t in tokens)
    else:
        numbers = np.concatenate([np.ravel(leaf[row]) for leaf in _leaves(x)])[:_LONGEST]
        text = ": " + " ".join(f"{value:.4g}" for value in numbers)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."

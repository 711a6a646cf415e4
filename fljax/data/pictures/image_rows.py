"""Draws rows of images one above the other, such as originals and what was made of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core.values import checked_path
from fljax.data.pictures.figures import new_figure, saved

_MOST = 20


def plot_image_rows(
    rows: Mapping[str, Any],
    captions: Mapping[str, Sequence[str]] | None = None,
    *,
    low: float = 0.0,
    high: float = 1.0,
    title: str = "",
    path: str | os.PathLike | None = None,
):
    """Draws images in rows that are compared by column: originals above, reconstructions below.

    Args:
      rows: {name: [N, H, W], [N, H, W, 1] or [N, H, W, 3]}, from top to bottom, all of the same N,
        20 at most. Images that are not finite are drawn as far as they are.
      captions: {name: N texts}, what stands above each image of a row, such as its PSNR.
      low: The value drawn as black; what is lower is drawn as this.
      high: That drawn as white.
      title: Of the figure.
      path: Where to save it as well, if anywhere.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ImportError: If matplotlib is not installed.
      ValueError: For no rows, for rows of different length, and for what are no images.

    Example:
      >>> images = np.zeros((3, 8, 8))
      >>> figure = plot_image_rows({"original": images, "found": images + 0.5})
      >>> len(figure.axes)
      6
    """
    path = None if path is None else checked_path("path", path)
    stacks = {name: np.asarray(images, np.float64) for name, images in rows.items()}
    lengths = {len(images) for images in stacks.values() if images.ndim}
    if len(lengths) != 1 or not 0 < max(lengths) <= _MOST:
        raise ValueError(
            f"Rows of {sorted(lengths)} images were given: draw 1 to {_MOST} images in each row, "
            "as many in one as in the other."
        )
    for name, images in stacks.items():
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
            raise ValueError(
                f"{name!r} has the shape {images.shape}: images are [N, H, W], [N, H, W, 1] or "
                "[N, H, W, 3]."
            )
    if not low < high:
        raise ValueError(f"low = {low:g} must be below high = {high:g}.")
    count = max(lengths)
    figure = new_figure(1.2 + 0.95 * count, 0.5 + 1.2 * len(stacks))
    grid = figure.subplots(len(stacks), count, squeeze=False)
    for line, (name, images) in zip(grid, stacks.items(), strict=True):
        texts = (captions or {}).get(name, [""] * count)
        shown = np.clip((images - low) / (high - low), 0, 1)
        shown = shown[..., 0] if images.ndim == 4 and images.shape[3] == 1 else shown
        for axes, image, text in zip(line, shown, texts, strict=True):
            axes.set_axis_off()
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            axes.set_title(text, fontsize=7, pad=2)
        line[0].text(
            -0.15, 0.5, name, fontsize=8, transform=line[0].transAxes, ha="right", va="center"
        )
    figure.suptitle(title, fontsize=10)
    return saved(figure, path)

"""Reads folders of image files: one for each class, or for each client and in it each class."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fljax.core import optional
from fljax.core.archives import refused
from fljax.core.values import wrong
from fljax.data.dataset import FederatedDataset
from fljax.data.readers.blocks import SPLITS, Opened, Reading, skipping
from fljax.data.readers.cache import cached
from fljax.data.readers.gathering import Piece, gathered
from fljax.data.readers.records import dataset_of, files_of

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_MODES = {1: "L", 3: "RGB"}
_BATCH = 64


def image_folder(
    *,
    path: str,
    test_path: str | None = None,
    size: int | Sequence[int] | None = None,
    channels: int | None = None,
    data_dir=None,
    cache_dir=None,
    verify: bool = False,
    **clients,
) -> FederatedDataset:
    """Images in folders, `class/*.png` or `client/class/*.png`: x is uint8[rows, columns, colours].

    A folder whose folders are `train` and `test` (and `val`) holds these splits. Classes are
    numbered by name. Pixels are scaled to [0, 1] inside the compiled program.

    Args:
      path: The folder.
      test_path: That of the test images, where `path` holds training images alone.
      size: Rows and columns, or one number for both, to which images are scaled; default: as they
        are, and then all must be alike.
      channels: 1 makes images grey, 3 coloured; default: as the first image is.
      data_dir, cache_dir, verify: As in `tff`.
      **clients: partition, num_clients, seed, val_fraction and the partition's options, as in
        `from_arrays`; without folders of clients the default partition is "iid".

    Raises:
      FileNotFoundError: If a folder is not there, or holds no images.
      ImportError: If pillow is not installed.
      ValueError: If a file is no image, or its size is not that of the others.

    Example:
      >>> dataset = data.load('image_folder', path='photos', size=64)  # doctest: +SKIP
    """
    roots = _splits(files_of(data_dir, path=path, test_path=test_path))
    name = pathlib.Path(path).name
    load = image_loader(None, size, channels)
    files = {split: _files(root) for split, root in roots.items()}
    depths = {len(file.parts) for some in files.values() for file in some}
    if depths not in ({2}, {3}):
        raise ValueError(
            f"{path} must hold its images as class/*.png, or all of them as client/class/*.png"
        )
    options = {
        "roots": {split: os.path.abspath(root) for split, root in roots.items()},
        "size": size,
        "channels": channels,
    }

    def opened() -> Opened:
        rows = sum(map(len, files.values()))
        facts = {"kind": "classification"}
        return Opened(skipping(lambda: gathered(_pieces(roots, files, load))), facts, rows)

    cache = cached(Reading("image_folder", [*roots.values()], options, opened), cache_dir, verify)
    return dataset_of(cache, name, {"natural": depths == {3}, **clients})


def image_loader(
    folder: pathlib.Path | None, size: int | Sequence[int] | None, channels: int | None = None
) -> Callable[[str | pathlib.Path], np.ndarray]:
    """Returns a function from the name of an image file to uint8[height, width, channels].

    Args:
      folder: Where the files are; None for whole paths.
      size: Rows and columns, or one number for both; None: as they are, and then all alike.
      channels: 1 or 3; None: as the first image is.

    Raises:
      ValueError: For another size or number of channels.
    """
    rows_columns = None if size is None else _size(size)
    if channels is not None and channels not in _MODES:
        raise wrong("channels", channels, "1 (grey) or 3 (red, green, blue), or None")
    first: dict[str, Any] = {}

    def load(name: str | pathlib.Path) -> np.ndarray:
        path = pathlib.Path(name) if folder is None else folder / name
        image = _read(path, rows_columns, channels)
        if first.setdefault("shape", image.shape) != image.shape:
            raise refused(
                path,
                f"is {_shown(image.shape)}, but {first['path']} is {_shown(first['shape'])}: make "
                "them alike with size=..., or channels=1 or 3",
            )
        first.setdefault("path", path)
        return image

    return load


def _read(path: pathlib.Path, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    with optional.needed("PIL"):
        from PIL import Image, UnidentifiedImageError
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise refused(path, f"has pixels of more than 8 bits ({image.mode}): convert it")
            is_grey = image.mode in ("1", "L", "LA")
            image = image.convert(_MODES[channels or (1 if is_grey else 3)])
            if size is not None:
                image = image.resize(size[::-1], Image.Resampling.BILINEAR)
            pixels = np.asarray(image, np.uint8)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise refused(path, f"is no image, or broken ({error}): get it again") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _size(size: int | Sequence[int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else size
    if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(n, int) for n in pair):
        raise wrong("size", size, "rows and columns, such as 64 or [64, 48]")
    if min(pair) < 1:
        raise wrong("size", size, "at least 1")
    rows, columns = pair
    return rows, columns


def _shown(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height} x {width} with {channels} channel{'s' * (channels > 1)}"


def _splits(roots: dict[str, pathlib.Path]) -> dict[str, pathlib.Path]:
    inside = roots["train"]
    if "test" in roots or not (inside / "train").is_dir():
        return roots
    return {split: inside / split for split in SPLITS if (inside / split).is_dir()}


def _files(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns the image files below a folder, sorted, relative to it."""
    found = [
        pathlib.Path(folder, name).relative_to(root)
        for folder, _, names in os.walk(root)
        for name in names
        if name.lower().endswith(_SUFFIXES)
    ]
    if not found:
        raise FileNotFoundError(f"{root} holds no images ({', '.join(_SUFFIXES)})")
    return sorted(found)


def _pieces(roots, files, load) -> Iterator[Piece]:
    """Yields the images of each folder some at a time."""
    for split, some in files.items():
        for folder, names in itertools.groupby(some, key=lambda file: file.parent):
            client = folder.parent.name if len(folder.parts) == 2 else ""
            while batch := list(itertools.islice(names, _BATCH)):
                x = np.stack([load(roots[split] / name) for name in batch])
                y = np.full(len(batch), folder.name)
                yield Piece(split, client, {"x": x, "y": y}, str(roots[split] / folder))

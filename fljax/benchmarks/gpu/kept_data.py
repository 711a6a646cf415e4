"""Generates the data of a report once: later sections read what the first one has kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fljax.core.files import atomic_file
from fljax.data.dataset import ArrayExamples, FederatedDataset, Partition, Split


def kept(workdir: Path, name: str, make: Callable[[], FederatedDataset]) -> FederatedDataset:
    """Returns a dataset that is kept in a directory, or makes it and keeps it there.

    Args:
      workdir: The report's directory.
      name: Tells the dataset from others.
      make: Returns it: generated examples, one partition, with or without a test set.
    """
    path = workdir / "data" / f"{name}.npz"
    if not path.is_file():
        dataset = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            np.savez(file, **_arrays(dataset))
        return dataset
    with np.load(path) as held:
        arrays = dict(held)
    examples = lambda split: ArrayExamples({key: arrays[f"{split}_{key}"] for key in "xy"})  # noqa: E731
    partition = Partition(arrays["offsets"], arrays.get("index"))
    return FederatedDataset(
        name=str(arrays["name"]),
        kind=str(arrays["kind"]),
        num_classes=int(arrays["num_classes"]),
        train=Split(examples("train"), partition),
        test=Split(examples("test")) if "test_x" in arrays else None,
    )


def _arrays(dataset: FederatedDataset) -> dict[str, np.ndarray]:
    partition = dataset.train.partition
    splits = {"train": dataset.train, "test": dataset.test}
    arrays = {
        f"{name}_{key}": split.examples.arrays[key]
        for name, split in splits.items()
        if split is not None
        for key in "xy"
    }
    facts = {key: np.array(getattr(dataset, key)) for key in ("name", "kind", "num_classes")}
    index = {} if partition.index is None else {"index": partition.index}
    return {**arrays, **facts, **index, "offsets": partition.offsets}

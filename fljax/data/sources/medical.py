"""Medical images: brain slices with and without a tumour, chest X-rays with and without pneumonia.

Both are small enough that hospitals have to be simulated. `brain_mri` does so by itself: each
hospital has patients and a scanner of its own.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from fljax.core import random
from fljax.core.archives import read_npz, refused
from fljax.core.data_files import find_file, missing_files, resolve_data_dir
from fljax.core.per_client import checked_per_client, is_per_client
from fljax.core.values import COUNT, POSITIVE, Field, checked
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset, Split
from fljax.data.examples import ArrayExamples
from fljax.data.heterogeneity.feature_skew import with_feature_skew
from fljax.data.heterogeneity.scanners import scanners as made_by_scanners
from fljax.data.image_scaling import image_scaling
from fljax.data.splits.stratified import stratified

_MRI, _XRAY = "brain_mri_64.npz", "pneumoniamnist.npz"
# Mean and standard deviation of all slices; of X-rays those that MedMNIST's own code takes.
_MRI_MOMENTS = ((0.2431,), (0.2230,))
_XRAY_MOMENTS = ((0.5,), (0.5,))
_MOST_BYTES = 64 << 20  # the whole of PneumoniaMNIST unpacks to 5 MB
_HOSPITALS = Field(4, int, COUNT)


def brain_mri(
    *,
    data_dir=None,
    hospitals: int | Sequence[float] = 4,
    copies: bool = True,
    scanners: bool = True,
    test_fraction: float = 0.25,
    split_seed: int = 0,
    **clients,
) -> FederatedDataset:
    """Brain MRI: 253 slices, 155 of them with a tumour, x uint8[64, 64, 1], in simulated hospitals.

    Reads `brain_mri/brain_mri_64.npz` of the data directory: slices that are cropped to the bright
    part, padded to a square and scaled (Chakrabarty 2019, Kaggle). 25 of them are copies of others.
    Copies share a client, whatever the partition, and stand on one side of each split. The natural
    hospitals and test rows do not change with `seed`.

    The natural clients are the hospitals, among whom each class is divided alike. With scanners,
    each hospital's slices look as from a device of its own: feature_skew = "scanners(hospitals)",
    see `fljax.data.heterogeneity.scanners`.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      hospitals: N, of whom all have as many slices; or what each has in proportion, such as
        (4, 3, 2, 1).
      copies: Whether copies of a slice stay. Without them there are 228 rows, and privacy of single
        examples is that of a slice.
      scanners: Whether hospitals have unlike scanners; `feature_skew` names another skew instead.
      test_fraction: Share of the pictures of each class that is tested on.
      split_seed: Chooses the test rows, and whose patient is whose.
      **clients: As in `mnist`; the default partition is "natural".

    Raises:
      FileNotFoundError: If the file is missing.
      ValueError: If the file is not what was expected, or the partition is not possible.

    Example:
      >>> dataset = data.brain_mri(hospitals=4)  # doctest: +SKIP
    """
    shares = _shares(hospitals)
    copies = checked("copies", copies, Field(True, bool))
    scanners = checked("scanners", scanners, Field(True, bool))
    path, found = _read("brain_mri", _MRI, ("x", "y", "image"), data_dir)
    x, y = _images(path, found, "x", "y", 64), found["y"]
    picture = found["image"]
    if picture.shape != y.shape or picture.dtype.kind not in "iu":
        raise refused(path, f"holds image as {picture.dtype}{list(picture.shape)}: get it again")
    _, first, picture = np.unique(picture, return_index=True, return_inverse=True)
    if not copies:
        x, y, picture = x[first], y[first], np.arange(len(first))
        first = picture
    is_test = stratified(y[first], test_fraction, split_seed, "brain_mri/split")[picture]
    hospital = _dealt_by_class(y[first], shares, split_seed)[picture]
    if scanners:
        clients = {"feature_skew": made_by_scanners(len(shares)), **clients}
    # of slices without copies, each stands for itself, and shares of classes can be kept
    subjects = {"split_by": picture[~is_test], "test_split_by": picture[is_test]} if copies else {}
    return from_arrays(
        x[~is_test],
        y[~is_test],
        x_test=x[is_test],
        y_test=y[is_test],
        class_names=("no tumour", "tumour"),
        preprocess=image_scaling(_MRI_MOMENTS),
        name="brain_mri",
        **{
            "client_ids": hospital[~is_test],
            "test_client_ids": hospital[is_test],
            **subjects,
            **clients,
        },
    )


def pneumonia_xray(*, data_dir=None, standardize: bool = True, **clients) -> FederatedDataset:
    """Chest X-rays of children: pneumonia or none, x uint8[28, 28, 1], MedMNIST's official split.

    Reads `pneumonia_xray/pneumoniamnist.npz` of the data directory, as MedMNIST has it (Yang et al.
    2023; X-rays of Kermany et al. 2018; 4,708 + 524 + 624 images, of which 74 % show pneumonia), or
    a balanced part of it; how many there are, records say. The validation images of the official
    split are a global validation set. With `val_fraction` or `own_test_fraction`, which divide
    clients' own rows, they train. `feature_skew="scanners(5)"` simulates unlike devices.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      standardize: Mean and deviation 0.5, as MedMNIST's code has it; else [0, 1].
      **clients: As in `mnist`.

    Raises:
      FileNotFoundError: If the file is missing.
      ValueError: If the file is not what was expected, or the partition is not possible.

    Example:
      >>> dataset = data.pneumonia_xray(num_clients=10)  # doctest: +SKIP
    """
    roles = ("train", "val", "test")
    names = [f"{role}_{part}" for role in roles for part in ("images", "labels")]
    path, found = _read("pneumonia_xray", _XRAY, names, data_dir)
    x, y = {}, {}
    for role in roles:
        y[role] = found[f"{role}_labels"] = found[f"{role}_labels"].reshape(-1)
        x[role] = _images(path, found, f"{role}_images", f"{role}_labels", 28)
    joins = bool(clients.get("val_fraction") or clients.get("own_test_fraction"))
    if joins:
        for part in (x, y):
            part["train"] = np.concatenate([part["train"], part["val"]])
    skew = clients.pop("feature_skew", None)  # of all splits, once all are there
    dataset = from_arrays(
        x["train"],
        y["train"],
        x_test=x["test"],
        y_test=y["test"],
        class_names=("no pneumonia", "pneumonia"),
        preprocess=image_scaling(_XRAY_MOMENTS if standardize else None),
        name="pneumonia_xray",
        **clients,
    )
    if not joins:
        val = ArrayExamples({"x": x["val"], "y": y["val"].astype(np.int32)})
        dataset = dataclasses.replace(dataset, val=Split(val, None))
    return dataset if skew is None else with_feature_skew(dataset, skew, clients.get("seed", 0))


def _read(name: str, file: str, wanted, data_dir) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """Returns the path of an archive, and its arrays."""
    root = resolve_data_dir(data_dir)
    path = find_file(root / name, file)
    if path is None:
        raise FileNotFoundError(missing_files(name, [f"{name}/{file}"], root))
    found = read_npz(path, _MOST_BYTES)
    if missing := [array for array in wanted if array not in found]:
        raise refused(path, f"holds no array {missing[0]!r}: get it again")
    return path, found


def _images(path: pathlib.Path, found, images: str, labels: str, size: int) -> np.ndarray:
    """Returns grey images, uint8[rows, size, size, 1], that fit their labels of two classes."""
    x, y = found[images], found[labels]
    if x.dtype != np.uint8 or x.shape != (*y.shape, size, size):
        raise refused(
            path,
            f"holds {images} as {x.dtype}{list(x.shape)} and {labels} as {y.dtype}"
            f"{list(y.shape)}, not bytes of {size} x {size} and a label each",
        )
    if y.dtype.kind not in "iu" or not np.isin(y, (0, 1)).all():
        raise refused(path, f"holds {labels} that are not 0 or 1")
    return x[..., None]


def _shares(hospitals: int | Sequence[float]) -> np.ndarray:
    """Returns what each hospital has in proportion, float64[N]."""
    if not is_per_client(hospitals):
        return np.ones(checked("hospitals", hospitals, _HOSPITALS))
    return checked_per_client("hospitals", hospitals, Field(None, float, POSITIVE))


def _dealt_by_class(labels: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Returns the hospital of each picture, "hospital_0" and so on; each class in these shares."""
    rng = random.generator(seed, "brain_mri/hospitals")
    shuffled = rng.permutation(labels.size)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # the k-th picture of a hospital is due at (k + 1/2) / share
    due = (np.arange(labels.size)[:, None] + 0.5) / shares
    number = np.empty(labels.size, np.int64)
    number[by_class] = np.argsort(due.reshape(-1), kind="stable")[: labels.size] % len(shares)
    digits = len(str(len(shares) - 1))
    return np.array([f"hospital_{k:0{digits}}" for k in range(len(shares))])[number]

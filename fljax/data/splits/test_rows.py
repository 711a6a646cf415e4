"""Makes splits: of test rows by who trains, and what a data set is asked for beside its rows."""

from __future__ import annotations

import warnings

import numpy as np

from fljax.data.dataset import FederatedDataset, Partition, Split, offsets_of
from fljax.data.heterogeneity.concept_drift import with_concept_drift
from fljax.data.heterogeneity.concept_shift import with_concept_shift
from fljax.data.heterogeneity.feature_skew import with_feature_skew
from fljax.data.heterogeneity.label_noise import NoiseKind, with_label_noise
from fljax.data.heterogeneity.skews import Skew
from fljax.data.ids import places_among
from fljax.data.splits.held_out import with_fold, with_held_out
from fljax.data.splits.own_rows import with_own_test


def splits_of_test(
    owned: Split, test_ids: np.ndarray, everyone: np.ndarray | None, ids: np.ndarray | None
) -> tuple[Split | None, Split | None, np.ndarray | None]:
    """Returns (test, held_out, ids of held-out clients), by whether the clients of test rows train.

    Args:
      owned: The test rows, over the clients that have some.
      test_ids: Their ids, sorted.
      everyone: [M] ids of the training rows, sorted, or None.
      ids: [N] those of the natural clients that were taken, or None where others are the clients.

    Raises:
      ValueError: If training rows have no ids, or ids of another kind.
    """
    if everyone is None:
        raise ValueError("test_client_ids were given without client_ids of the training rows")
    examples, by_client = owned.examples, owned.partition
    others = np.flatnonzero(places_among(everyone, test_ids) < 0)
    held_out = Split(examples, by_client.subset(others)) if others.size else None
    held_out_ids = test_ids[others] if others.size else None
    if ids is None or len(others) == len(test_ids):
        return Split(examples), held_out, held_out_ids
    place = places_among(ids, test_ids)
    trains = np.flatnonzero(place >= 0)
    if not trains.size:
        warnings.warn(
            "None of the clients taken has a test row: there is no test set.", stacklevel=4
        )
        return None, held_out, held_out_ids
    return (
        Split(examples, over(by_client.subset(trains), place[trains], len(ids))),
        held_out,
        held_out_ids,
    )


def over(partition: Partition, place: np.ndarray, num_clients: int) -> Partition:
    """Returns a partition over more clients, of which those at increasing `place` have the rows."""
    sizes = np.zeros(num_clients, np.int64)
    sizes[place] = partition.sizes
    return Partition(offsets_of(sizes), partition.index)


def finished(
    dataset: FederatedDataset,
    seed: int,
    own_test_fraction: float = 0.0,
    feature_skew: str | Skew | None = None,
    concept_shift: str | Skew | None = None,
    label_noise: str | NoiseKind | None = None,
    held_out_fraction: float = 0.0,
    held_out_folds: int | None = None,
    held_out_fold: int | None = None,
    val_fraction: float = 0.0,
    concept_drift: str | None = None,
) -> FederatedDataset:
    """Returns a data set with the splits, skews, noise and drift that it is asked for.

    The order is own test rows, features, concepts, held-out clients, wrong labels, validation rows,
    drift.

    Raises:
      ValueError: If one of them is not possible, or two exclude each other.
    """
    if own_test_fraction:
        dataset = with_own_test(dataset, own_test_fraction, seed)
    if feature_skew is not None:
        dataset = with_feature_skew(dataset, feature_skew, seed)
    if concept_shift is not None:
        dataset = with_concept_shift(dataset, concept_shift, seed)
    dataset = _held_out(dataset, held_out_fraction, held_out_folds, held_out_fold, seed)
    if label_noise is not None:
        dataset = with_label_noise(dataset, label_noise, seed)
    if val_fraction:
        dataset = dataset.with_validation(val_fraction, seed)
    return dataset if concept_drift is None else with_concept_drift(dataset, concept_drift, seed)


def _held_out(dataset: FederatedDataset, fraction: float, folds, fold, seed: int):
    if fraction and folds is not None:
        raise ValueError(
            f"held_out_fraction = {fraction} and held_out_folds = {folds} both hold clients out: "
            "leave one of them out"
        )
    if folds is not None:
        return with_fold(dataset, 0 if fold is None else fold, folds, seed)
    if fold is not None:
        raise ValueError(f"held_out_fold = {fold} needs held_out_folds, such as 5")
    return with_held_out(dataset, fraction, seed) if fraction else dataset

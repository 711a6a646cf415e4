"""Medical images: copies of a picture stay together, scanners change images as they say."""

import numpy as np
import pytest

from fljax import data
from fljax.data.splits.stratified import stratified

MRI, XRAY = "brain_mri/brain_mri_64.npz", "pneumonia_xray/pneumoniamnist.npz"


def rows_of(dataset):
    """Yields (split, client, images) of every client's rows, each image as bytes."""
    for role in ("train", "val", "test"):
        if (split := getattr(dataset, role)) is None or split.partition is None:
            continue
        for client in range(split.partition.num_clients):
            rows = split.examples.take(split.partition.rows(client))["x"]
            yield role, client, {row.tobytes() for row in rows}


def test_copies_of_a_slice_share_hospital_and_split(data_dir):
    if not (data_dir / MRI).is_file():
        pytest.skip(f"FLJAX_DATA_DIR has no {MRI}")
    dataset = data.brain_mri(data_dir=data_dir, scanners=False, hospitals=3)
    assert dataset.client_ids.tolist() == ["hospital_0", "hospital_1", "hospital_2"]
    assert dataset.train.num_rows + dataset.test.num_rows == 253
    found = list(rows_of(dataset))
    assert len(found) == 6 and sum(len(images) for *_, images in found) == 228
    assert len(set().union(*(images for *_, images in found))) == 228  # none in two places
    counts = data.label_counts(dataset.train.examples.arrays["y"], dataset.train.partition, 2)
    assert np.ptp(counts, axis=0).max() <= 9  # but for copies, classes are dealt evenly
    other = data.load("brain_mri", data_dir=data_dir, hospitals=3, seed=5)
    np.testing.assert_array_equal(
        other.test.examples.arrays["y"], dataset.test.examples.arrays["y"]
    )
    assert set(other.groups["domain"]) == {"scanner_0", "scanner_1", "scanner_2"}
    # one hospital has the scanner that shows images as they are
    plain = [images == same for (*_, images), (*_, same) in zip(rows_of(other), found, strict=True)]
    assert sum(plain) == 2


def test_pneumonia_has_the_official_split(tmp_path):
    """On a file of the same format, of other images."""
    rng = np.random.default_rng(0)
    rows = {"train": 40, "val": 8, "test": 12}
    arrays = {f"{r}_images": rng.integers(0, 256, (n, 28, 28), np.uint8) for r, n in rows.items()}
    arrays |= {f"{r}_labels": rng.integers(0, 2, (n, 1)).astype(np.uint8) for r, n in rows.items()}
    (tmp_path / "pneumonia_xray").mkdir()
    np.savez(tmp_path / XRAY, **arrays)
    dataset = data.pneumonia_xray(data_dir=tmp_path, num_clients=4)
    for role in rows:
        found = getattr(dataset, role).examples.arrays
        np.testing.assert_array_equal(found["x"][..., 0], arrays[f"{role}_images"])
        np.testing.assert_array_equal(found["y"], arrays[f"{role}_labels"][:, 0])
    assert dataset.val.partition is None and dataset.class_names[1] == "pneumonia"
    seen = dataset.preprocess({"x": arrays["train_images"][..., None]})["x"]
    assert abs(float(seen.min()) + 1) < 1e-6 and abs(float(seen.max()) - 1) < 1e-6
    options = {"data_dir": tmp_path, "num_clients": 4}
    own = data.load("pneumonia_xray", val_fraction=0.25, **options)
    assert (own.train.num_rows, own.val.num_rows, own.val.partition.num_clients) == (36, 12, 4)
    pooled = data.load("pneumonia_xray", own_test_fraction=0.25, **options)
    assert pooled.train.num_rows + pooled.test.num_rows == 60
    skewed = data.load("pneumonia_xray", feature_skew="blur(1.0, levels=2)", **options)
    assert skewed.val.num_rows == 16 and skewed.test.num_rows == 24  # in each domain


def test_broken_archives_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="brain_mri_64.npz"):
        data.brain_mri(data_dir=tmp_path)
    (tmp_path / "brain_mri").mkdir()
    good = {"x": np.zeros((4, 64, 64), np.uint8), "y": np.arange(4) % 2, "image": np.arange(4)}
    for changed, why in (
        ({"x": np.zeros((4, 32, 32), np.uint8)}, "holds x as uint8"),
        ({"x": np.zeros((4, 64, 64))}, "holds x as float64"),
        ({"y": np.arange(4)}, "holds y that are not 0 or 1"),
        ({"image": np.arange(3)}, "holds image as int64"),
    ):
        np.savez(tmp_path / MRI, **{**good, **changed})
        with pytest.raises(ValueError, match=f"brain_mri_64.npz {why}"):
            data.brain_mri(data_dir=tmp_path)
    np.savez(tmp_path / MRI, x=good["x"], y=good["y"])
    with pytest.raises(ValueError, match="holds no array 'image'"):
        data.brain_mri(data_dir=tmp_path)
    (tmp_path / MRI).write_bytes((tmp_path / MRI).read_bytes()[:-40])
    with pytest.raises(ValueError, match="truncated or corrupt"):
        data.brain_mri(data_dir=tmp_path)


def test_scanners_change_images_by_their_number_alone():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 12, 10, 1), np.uint8)
    skew = data.scanners(4)
    np.testing.assert_array_equal(skew.apply(images, 0, None), images)
    np.testing.assert_array_equal(data.scanners(4, strength=0.0).apply(images, 2, None), images)
    shown = [skew.apply(images, k, np.random.default_rng(1)) for k in (1, 2, 3)]
    for k, first in enumerate(shown, 1):
        assert first.dtype == np.uint8 and first.shape == images.shape
        np.testing.assert_array_equal(first, skew.apply(images, k, np.random.default_rng(1)))
        floats = (images / 255).astype(np.float32)
        found = skew.apply(floats, k, np.random.default_rng(1))
        assert np.abs(255 * found - first).max() <= 0.51 and found.dtype == np.float32
        wider = data.scanners(9).apply(images, k, np.random.default_rng(1))
        np.testing.assert_array_equal(wider, first)  # whatever the number of scanners
    assert all(
        np.abs(a - b.astype(float)).mean() > 4 for a, b in zip(shown, shown[1:], strict=False)
    )
    for wrong in (images.astype(np.int32), 2 * images.astype(np.float32)):
        with pytest.raises(ValueError, match="scanners needs bytes, or floats from 0 to 1"):
            skew.apply(wrong, 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="scanners needs images"):
        skew.apply(images[0, :, :, 0], 1, np.random.default_rng(0))


def test_noise_of_scanners_is_rician():
    """Without a signal, Rician noise has the mean sigma sqrt(pi / 2) of Rayleigh's."""
    from fljax.data.heterogeneity.scanners import _settings

    dark = np.zeros((40, 32, 32), np.float32)
    for k in (1, 2, 3):
        sigma = _settings(k, 1.0)["noise"]
        found = data.scanners(4).apply(dark, k, np.random.default_rng(0))
        assert abs(found.mean() / (sigma * np.sqrt(np.pi / 2)) - 1) < 0.02


def test_stratified_rows_are_a_share_of_each_class():
    labels = np.repeat([3, 1, 7], [100, 37, 5])
    chosen = stratified(labels, 0.2, 0, "test/split")
    assert [int(chosen[labels == k].sum()) for k in (3, 1, 7)] == [20, 7, 1]
    assert not np.array_equal(chosen, stratified(labels, 0.2, 1, "test/split"))
    assert not np.array_equal(chosen, stratified(labels, 0.2, 0, "other/split"))


@pytest.mark.parametrize(
    "options",
    [{"own_test_fraction": 0.25, "val_fraction": 0.2}, {"partition": "iid", "num_clients": 9}],
)
def test_copies_stay_together_however_slices_are_divided(data_dir, options):
    if not (data_dir / MRI).is_file():
        pytest.skip(f"FLJAX_DATA_DIR has no {MRI}")
    dataset = data.load("brain_mri", data_dir=data_dir, scanners=False, **options)
    found = [images for *_, images in rows_of(dataset)]
    assert sum(map(len, found)) == len(set().union(*found)) >= 160


def test_hospitals_of_unequal_sizes_without_copies(data_dir):
    if not (data_dir / MRI).is_file():
        pytest.skip(f"FLJAX_DATA_DIR has no {MRI}")
    options = {"data_dir": data_dir, "hospitals": (4, 3, 2, 1), "copies": False}
    dataset = data.load("brain_mri", **options, own_test_fraction=0.25, seed=3)
    sizes = dataset.train.partition.sizes + dataset.test.partition.sizes
    assert sizes.sum() == 228 and np.abs(sizes - 228 * np.array([0.4, 0.3, 0.2, 0.1])).max() < 1
    images = [found for *_, found in rows_of(dataset)]
    assert sum(map(len, images)) == len(set().union(*images)) == 228
    y = dataset.train.examples.arrays["y"]
    counts = data.label_counts(y, dataset.train.partition, 2)
    counts += data.label_counts(y, dataset.test.partition, 2)
    share = y.mean()
    assert np.abs(counts[:, 1] - share * sizes).max() < 1
    for split in (dataset.train, dataset.test):  # each class has its share of test rows
        found = data.label_counts(y, split.partition, 2)[:, 1]
        assert np.abs(found - share * split.partition.sizes).max() < 2
    with pytest.raises(ValueError, match=r"hospitals\[1\] = 0"):
        data.brain_mri(data_dir=data_dir, hospitals=(1, 0))


def test_hospitals_of_one_s_own_number(data_dir):
    if not (data_dir / MRI).is_file():
        pytest.skip(f"FLJAX_DATA_DIR has no {MRI}")
    dataset = data.brain_mri(data_dir=data_dir, hospitals=12, feature_skew=None)
    assert dataset.client_ids.tolist() == [f"hospital_{k:02}" for k in range(12)]
    assert "domain" not in dataset.groups

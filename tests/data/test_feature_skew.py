"""Feature skew: rotated, noisy and blurred images, one domain a client."""

import numpy as np
import pytest
from scipy import ndimage

import fljax
from fljax import algorithms, config, data, models, tasks
from fljax.config import experiment

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (240, 6, 6, 2), np.uint8)
LABELS = np.arange(240) % 3
SCALE = data.image_scaling(None)
NAMES = [f"rotated_{angle}" for angle in (0, 180, 270, 90)]


def skewed(feature_skew="rotations(4)", x=IMAGES, preprocess=SCALE, **options):
    options = {"num_clients": 8, "seed": 1} | options
    return data.from_arrays(
        x, LABELS[: len(x)], feature_skew=feature_skew, preprocess=preprocess, **options
    )


def test_clients_are_dealt_evenly_and_turned_by_right_angles():
    dataset = skewed(own_test_fraction=0.25, val_fraction=0.2)
    domains = dataset.groups["domain"]
    names, sizes = np.unique(domains, return_counts=True)
    assert names.tolist() == NAMES
    assert sizes.tolist() == [2] * 4
    examples = dataset.train.examples
    assert examples.arrays["x"].dtype == np.uint8
    for split in (dataset.train, dataset.val, dataset.test):
        assert split.examples is examples
        for row, client in zip(split.rows(), split.partition.owners(), strict=True):
            quarters = int(domains[client].removeprefix("rotated_")) // 90
            expected = np.rot90(IMAGES[row], quarters)
            np.testing.assert_array_equal(examples.arrays["x"][row], expected)


@pytest.mark.parametrize("count", [2, 3, 4, 8, 12])
def test_angles_are_those_of_scipy(count):
    x = RNG.random((5, 7, 7)).astype(np.float32)
    skew = data.rotations(count)
    assert len(skew.names) == count
    for domain in range(count):
        found = skew.apply(x, domain, None)
        options = {"reshape": False, "order": 1, "mode": "grid-constant"}
        expected = ndimage.rotate(x, 360 * domain / count, axes=(2, 1), **options)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        if 4 * domain % count == 0:
            np.testing.assert_array_equal(found, np.rot90(x, 4 * domain // count, (1, 2)))


def test_blur_is_that_of_scipy_and_bytes_are_rounded():
    skew = data.blur(3.0, levels=3)
    assert skew.names == ["blurred_0", "blurred_1.5", "blurred_3"]
    floats = IMAGES.astype(np.float32)
    for domain, deviation in enumerate((0.0, 1.5, 3.0)):
        found = skew.apply(IMAGES, domain, None)
        expected = ndimage.gaussian_filter(floats, (0, deviation, deviation, 0))
        assert found.dtype == np.uint8
        np.testing.assert_allclose(
            found, np.rint(expected), atol=1
        )  # a rounded half may go either way
        np.testing.assert_allclose(skew.apply(floats, domain, None), expected, atol=1e-3)


def test_noise_has_the_deviation_of_its_domain_and_is_drawn_once_a_row():
    x = np.full((240, 6, 6), 0.5, np.float32)
    options = {"x": x, "preprocess": None, "own_test_fraction": 0.5}
    dataset = skewed("gaussian_noise(0.6, levels=3)", **options)
    again = skewed("gaussian_noise(0.6, levels=3)", **options)
    other = skewed("gaussian_noise(0.6, levels=3)", seed=2, **options)
    noise = dataset.train.examples.arrays["x"] - x
    np.testing.assert_array_equal(noise, again.train.examples.arrays["x"] - x)
    assert np.any(noise != other.train.examples.arrays["x"] - x)
    levels = {"noise_0": 0.0, "noise_0.3": 0.3, "noise_0.6": 0.6}
    for split in (dataset.train, dataset.test):
        for client, name in enumerate(dataset.groups["domain"]):
            deviation = noise[split.partition.rows(client)].std()
            np.testing.assert_allclose(deviation, levels[name], rtol=0.15)
    changed = noise[np.any(noise, axis=(1, 2))]
    assert len(np.unique(changed[:, 0, 0])) == len(changed)
    bright = skewed("gaussian_noise(5.0, levels=2)").train.examples.arrays["x"]
    assert bright.dtype == np.uint8 and {0, 255} < set(np.unique(bright).tolist())


def test_every_combination_of_several_skews_is_a_domain():
    dataset = skewed("rotations(2), blur(1.0, levels=2)")
    names = np.unique(dataset.groups["domain"]).tolist()
    angles, blurs = ("rotated_0", "rotated_180"), ("blurred_0", "blurred_1")
    assert names == sorted(f"{angle}+{blur}" for angle in angles for blur in blurs)
    client = dataset.groups["domain"].tolist().index("rotated_180+blurred_1")
    rows = dataset.train.partition.rows(client)
    expected = data.blur(1.0, 2).apply(np.rot90(IMAGES[rows], 2, (1, 2)), 1, None)
    np.testing.assert_array_equal(dataset.train.examples.arrays["x"][rows], expected)


def test_a_test_set_that_nobody_owns_is_repeated_in_each_domain():
    test = {"x_test": IMAGES[:10], "y_test": LABELS[:10]}
    dataset = skewed("rotations(4)", **test)
    found = dataset.test.examples.arrays
    assert dataset.test.partition is None
    np.testing.assert_array_equal(found["y"], np.tile(LABELS[:10], 4))
    for domain in range(4):
        expected = np.rot90(IMAGES[:10], domain, (1, 2))
        np.testing.assert_array_equal(found["x"][10 * domain : 10 * domain + 10], expected)
    assert dataset.row_groups == {
        "domain": tuple(f"rotated_{angle}" for angle in (0, 90, 180, 270))
    }
    np.testing.assert_array_equal(found["groups"]["domain"], np.repeat(np.arange(4), 10))
    names = np.array(dataset.row_groups["domain"])
    own = dataset.train.examples.arrays["groups"]["domain"][dataset.train.rows()]
    of_client = dataset.groups["domain"][dataset.train.partition.owners()]
    np.testing.assert_array_equal(names[own], of_client)


@pytest.mark.parametrize("owned", [True, False])
def test_records_report_on_each_domain(owned, quick_compilation):
    test = {"own_test_fraction": 0.25} if owned else {"x_test": IMAGES[:20], "y_test": LABELS[:20]}
    dataset = skewed("rotations(4)", val_fraction=0.2, **test)
    task = tasks.classification(models.softmax_regression(72, 3), 3)
    run = fljax.simulate(
        dataset, task, algorithms.fedavg(0.1), num_rounds=1, clients_per_round=4, progress=False
    )
    final = run.summary["final"]
    found = [final[f"eval/groups/domain/{name}/loss"] for name in NAMES]
    if owned:
        sizes = dataset.test.partition.sizes
        weights = [sizes[dataset.groups["domain"] == name].sum() for name in NAMES]
    else:
        weights = [20] * 4
    np.testing.assert_allclose(
        np.average(found, weights=weights), final["eval/test/loss"], rtol=1e-5
    )


def test_held_out_clients_have_domains_of_their_own():
    ids, test_ids = np.arange(240) % 4, np.repeat([8, 9], 5)
    options = {"client_ids": ids, "num_clients": None, "test_client_ids": test_ids}
    dataset = skewed("rotations(2)", x_test=IMAGES[:10], y_test=LABELS[:10], **options)
    domains = dataset.held_out_groups["domain"]
    assert sorted(domains) == ["rotated_0", "rotated_180"]
    for client, name in enumerate(domains):
        rows = dataset.held_out.partition.rows(client)
        quarters = int(name.removeprefix("rotated_")) // 90
        found = dataset.held_out.examples.arrays["x"][rows]
        np.testing.assert_array_equal(found, np.rot90(IMAGES[rows], quarters, (1, 2)))


def own_skew(amount=1.0):
    return data.Skew(["plain", "brighter"], lambda x, domain, rng: x + np.float32(amount * domain))


def squared():
    return data.Skew(["wrong"], lambda x, domain, rng: x.astype(np.float64) ** 2)


FLAT = {"x": IMAGES.reshape(240, -1).astype(np.float32), "preprocess": None}


def test_a_skew_of_ones_own():
    dataset = skewed(f"{__name__}:own_skew(2.0)", **FLAT)
    rows = dataset.train.rows()
    added = dataset.train.examples.arrays["x"][rows] - FLAT["x"][rows]
    of_client = {"plain": 0, "brighter": 2}
    expected = [of_client[dataset.groups["domain"][c]] for c in dataset.train.partition.owners()]
    np.testing.assert_array_equal(added, np.broadcast_to(np.array(expected)[:, None], added.shape))


@pytest.mark.parametrize(
    ("feature_skew", "options", "message"),
    [
        ("rotation(4)", {}, "feature_skew = 'rotation.4.'.*rotations"),
        ("rotations(0)", {}, "count = 0 must be at least 1"),
        ("blur(-1.0)", {}, "deviation = -1.0 must be above 0"),
        ("blur(1.0, levels=1)", {}, "levels = 1 must be at least 2"),
        ("rotations(4)", FLAT, "needs images .*, not x of shape .*72"),
        ("rotations(4)", {"x": IMAGES[:, :5]}, "5 x 6 pixels cannot be turned by 90 degrees"),
        ("gaussian_noise(0.1)", {"x": IMAGES.astype(np.int32)}, "floats or bytes, not x of int32"),
        (f"{__name__}:squared", FLAT, "'wrong' makes float64.*keeps shape and type"),
        ("rotations(2)", {"groups": {"domain": [0] * 8}}, "has groups 'domain' already"),
    ],
)
def test_what_cannot_be_skewed_is_refused(feature_skew, options, message):
    with pytest.raises(ValueError, match=message):
        skewed(feature_skew, **options)


def test_generated_examples_are_refused():
    with pytest.raises(ValueError, match="generated when they are read"):
        data.with_feature_skew(data.synthetic(num_clients=3, materialize=False), "rotations(2)")


def test_the_key_of_a_configuration():
    given = {"num_clients": 10, "feature_skew": "gaussian_noise(0.2, levels=5)"}
    dataset = experiment.make_dataset(config.resolve(given))
    assert len(np.unique(dataset.groups["domain"])) == 5
    for wrong, message in (("rotate", "rotations"), ("blur(1.0", "no list of calls")):
        with pytest.raises(config.ConfigError, match=message):
            config.resolve({"feature_skew": wrong})


def test_skews_that_move_pixels_are_refused_where_targets_are_of_pixels():
    x, y = np.zeros((8, 4, 4, 1), np.float32), np.zeros((8, 4, 4), np.int32)
    scans = data.from_arrays(x, y, kind="targets", num_clients=4)
    for text in ("rotations(2)", "blur(1.0), pixel_permutation(2)"):
        with pytest.raises(ValueError, match="moves pixels of x"):
            data.with_feature_skew(scans, text)
    assert data.with_feature_skew(scans, "blur(1.0)").groups["domain"].size == 4

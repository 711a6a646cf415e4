"""Concept shift and further feature skews: unlike labels, colours and orders by domain."""

import numpy as np
import pytest

from fljax import data

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (240, 6, 6, 3), np.uint8)
Y = np.arange(240) % 4
SCALE = data.image_scaling(None)


def shifted(concept_shift="label_permutations(3, seed=2)", **options):
    options = {"num_clients": 9, "preprocess": SCALE} | options
    return data.from_arrays(IMAGES, Y, concept_shift=concept_shift, **options)


def test_labels_of_all_rows_of_a_client_are_of_its_concept():
    dataset = shifted(own_test_fraction=0.25, held_out_fraction=0.3)
    concepts = data.label_permutations(3, num_classes=4, seed=2)
    assert sorted(concepts.apply(np.arange(4), 2, None)) == [0, 1, 2, 3]
    named = [(dataset.groups, ("train", "test"))]
    named += [(dataset.held_out_groups, ("held_out", "held_out_train"))]
    for groups, roles in named:
        for role in roles:
            split = getattr(dataset, role)
            for client, name in enumerate(groups["concept"]):
                rows = split.partition.rows(client)
                expected = concepts.apply(Y[rows], concepts.names.index(name), None)
                np.testing.assert_array_equal(split.examples.arrays["y"][rows], expected)
    everyone = np.concatenate([dataset.groups["concept"], dataset.held_out_groups["concept"]])
    assert np.unique(everyone, return_counts=True)[1].tolist() == [3, 3, 3]


def test_a_test_set_that_nobody_owns_is_repeated_in_each_concept():
    dataset = shifted("label_swap(0, 3)", x_test=IMAGES[:8], y_test=Y[:8])
    found = dataset.test.examples.arrays
    swapped = np.array([3, 1, 2, 0])[Y[:8]]
    np.testing.assert_array_equal(found["y"], np.concatenate([Y[:8], swapped]))
    np.testing.assert_array_equal(found["groups"]["concept"], np.repeat([0, 1], 8))
    assert dataset.row_groups == {"concept": ("plain", "swapped_0_3")}


def test_features_and_labels_shift_at_once_and_what_is_wrong_is_refused():
    both = shifted("label_rotations(2)", feature_skew="pixel_permutation(3)")
    assert set(both.groups) == {"domain", "concept"}
    for text, message in (
        ("label_rotations(9)", "count = 9"),
        ("label_swap(0, 4)", "classes are 0 to 3"),
        ("label_permutation(2)", "Did you mean 'label_permutations'"),
        ("label_rotations(num_classes=3)", "num_classes = 3 is set here"),
    ):
        with pytest.raises(ValueError, match=message):
            shifted(text)
    with pytest.raises(ValueError, match="changes classes"):
        data.from_arrays(X := np.eye(4), X, kind="targets", num_clients=2, concept_shift="a")


def test_pixels_are_permuted_alike_in_all_rows_and_channels():
    skew = data.pixel_permutation(3, seed=1)
    for x in (IMAGES, IMAGES[..., 0], IMAGES.reshape(240, -1)[:, :7]):
        np.testing.assert_array_equal(skew.apply(x, 0, None), x)
        orders = [skew.apply(x, domain, None) for domain in (1, 2)]
        assert not np.array_equal(*orders)
        for made in orders:
            rows, pixels = len(x), x.reshape(len(x), -1, *x.shape[3:])
            where = np.arange(pixels.shape[1])
            expected = pixels[0][where]
            found = made[0].reshape(expected.shape)
            keys = [tuple(np.ravel(pixel)) for pixel in found]
            assert sorted(keys) == sorted(tuple(np.ravel(pixel)) for pixel in expected)
            index = np.arange(x[0].size).reshape(1, *x.shape[1:])
            order = skew.apply(index, 1 if made is orders[0] else 2, None).reshape(-1)
            np.testing.assert_array_equal(made.reshape(rows, -1), x.reshape(rows, -1)[:, order])


def test_colours_turn_about_greys_and_keep_means():
    x = RNG.random((10, 5, 5, 3)).astype(np.float32)
    assert np.array_equal(data.colour(3).apply(x, 0, None), x)
    hue = data.colour(3, hue=120.0, contrast=0.0, gain=0.0)
    for domain in (1, 2):
        turned = hue.apply(x, domain, None)
        assert np.abs(turned - x).max() > 0.05
        np.testing.assert_allclose(turned.sum(-1), x.sum(-1), rtol=1e-5)
        lengths = [np.linalg.norm(image, axis=-1) for image in (turned, x)]
        np.testing.assert_allclose(*lengths, rtol=1e-5)
    contrast = data.colour(2, hue=0.0, contrast=0.5, gain=0.0).apply(x, 1, None)
    means = [image.mean((1, 2, 3)) for image in (contrast, x)]
    np.testing.assert_allclose(*means, rtol=1e-5)
    factors = contrast.std((1, 2, 3)) / x.std((1, 2, 3))
    np.testing.assert_allclose(factors, factors[0], rtol=1e-4)
    assert 0.5 <= factors[0] <= 1.5 and abs(factors[0] - 1) > 0.01
    gains = data.colour(2, hue=0.0, contrast=0.0, gain=0.3).apply(x, 1, None) / x
    np.testing.assert_allclose(gains, np.broadcast_to(gains[:1, :1, :1], gains.shape), rtol=1e-4)
    assert data.colour(2).apply(IMAGES, 1, None).dtype == np.uint8
    grey = data.colour(2).apply(IMAGES[..., 0], 1, None)
    assert grey.shape == IMAGES.shape[:3]


@pytest.mark.parametrize("skew", ["colour(2)", "pixel_permutation(2)", "colour(2), rotations(2)"])
def test_new_skews_go_by_name(skew):
    dataset = data.from_arrays(IMAGES, Y, num_clients=8, preprocess=SCALE, feature_skew=skew)
    names = np.unique(dataset.groups["domain"])
    assert len(names) == 2 * (1 + skew.count(","))

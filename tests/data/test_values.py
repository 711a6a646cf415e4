"""Nothing changes on the way in but the rounding of floats: numbers beyond 32 bits, NaN, bytes."""

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.data import (
    ArrayExamples,
    FederatedDataset,
    LazyExamples,
    Partition,
    Split,
    from_arrays,
    image_scaling,
)
from fljax.data.values import nonfinite_rows

Y = np.arange(6) % 2
ONE = Partition(np.array([0, 6]))
INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


def with_value(value, dtype, place=(4, 1), shape=(6, 3)):
    x = np.ones(shape, dtype)
    x[place] = value
    return x


@given(st.sampled_from(INTEGERS), st.data(), st.booleans())
def test_features_are_kept_or_refused(dtype, data, swapped):
    info = np.iinfo(dtype)
    value = data.draw(st.integers(int(info.min), int(info.max)))
    x = with_value(value, np.dtype(dtype).newbyteorder(">") if swapped else dtype)
    try:
        stored = from_arrays(x, Y, num_clients=2, preprocess=lambda b: b).train.examples.arrays["x"]
    except ValueError as error:
        held = jax.dtypes.canonicalize_dtype(np.dtype(dtype))
        assert not np.iinfo(held).min <= value <= np.iinfo(held).max
        assert f"x, row 4, column 1 is {value}, beyond {held}" in str(error)
    else:
        assert stored.tolist() == x.tolist() and stored.dtype.isnative
        assert np.asarray(jax.device_put(stored)).tolist() == x.tolist()


@pytest.mark.parametrize("dtype", ["f8", "g", "c16"])
@pytest.mark.parametrize("value", [1e300, -1e39])
def test_floats_that_would_become_infinite_are_refused(dtype, value):
    others = {"num_clients": 2, "preprocess": lambda batch: batch}
    with pytest.raises(ValueError, match="x, row 4, column 1 is .*beyond .*scale it"):
        from_arrays(with_value(value, dtype), Y, **others)
    stored = from_arrays(with_value(1e38, dtype), Y, **others).train.examples.arrays["x"]
    assert np.isfinite(stored).all() and stored.dtype.itemsize <= 8


def test_a_column_that_would_become_zero_is_refused():
    x = np.ones((6, 3))
    x[:, 2] = 1e-50
    with pytest.raises(ValueError, match=r"x, column \[2\]: no value is larger than 1e-50"):
        from_arrays(x, Y, num_clients=2)
    x[0, 2] = 1.0  # beside a one, they are zeros
    from_arrays(x, Y, num_clients=2)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.bool_])
def test_narrow_types_stay_as_they_are(dtype):
    x = np.ones((6, 3), dtype)
    stored = from_arrays(x, Y, num_clients=2).train.examples.arrays["x"]
    assert stored.dtype == dtype and np.array_equal(stored, x)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y + 2**40, "y, row 1 is 1099511627777, and labels are the numbers of classes"),
        (Y.astype(np.uint64) + np.uint64(2**63), "y, row 1 is 9223372036854775809"),
        (Y.astype(np.int64) - 2**40, "negative label -1099511627776"),
        ([2**70] * 6, "y holds integers beyond 64 bits"),
        ([2**63, 1, 0, 0, 0, 0], "y, row 0 is 9223372036854775808|integers beyond 64 bits"),
        (np.where(Y, 10_000_000, 0), "only 2 different labels"),
    ],
)
def test_labels_are_not_narrowed(y, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(np.ones((6, 3)), y, num_clients=2)


@pytest.mark.parametrize("part", ["x", "y"])
def test_tokens_are_not_narrowed(part):
    tokens = {"x": np.ones((6, 4), np.int64), "y": np.ones((6, 4), np.int64)}
    tokens[part][2, 3] = 2**32 + 5
    with pytest.raises(ValueError, match=f"{part}, row 2, column 3 is 4294967301"):
        from_arrays(**tokens, num_clients=2, kind="next_token")
    tokens[part][2, 3] = 77
    dataset = from_arrays(**tokens, num_clients=2, kind="next_token")
    assert dataset.num_classes == 78  # of inputs and targets alike: an embedding has a row for each
    tokens[part][2, 3] = -1
    with pytest.raises(ValueError, match=f"{part} has the negative token"):
        from_arrays(**tokens, num_clients=2, kind="next_token")


def test_memory_maps_are_looked_at_too(tmp_path):
    for name, value in (("big", 2**40), ("good", 5)):
        np.save(tmp_path / f"{name}.npy", with_value(value, np.int64))
    maps = {p.stem: np.load(p, mmap_mode="r") for p in tmp_path.glob("*.npy")}
    with pytest.raises(ValueError, match="x, row 4, column 1 is 1099511627776"):
        from_arrays(maps["big"], Y, num_clients=2)
    assert from_arrays(maps["good"], Y, num_clients=2).train.examples.arrays["x"] is maps["good"]
    np.save(tmp_path / "swapped.npy", with_value(5, ">i4"))
    with pytest.raises(ValueError, match="big-endian"):
        from_arrays(np.load(tmp_path / "swapped.npy", mmap_mode="r"), Y, num_clients=2)


def test_examples_put_together_by_hand_are_looked_at_too():
    with pytest.raises(ValueError, match="x, row 4, column 1 is 1099511627776"):
        ArrayExamples({"x": with_value(2**40, np.int64), "y": Y})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": [[1, 2], [3, 4]], "y": ["a", "b"]},
            "y must be an array of numbers, but row 0 is 'a'",
        ),
        ({"x": [[1, 2], [3]], "y": [0, 1]}, "x cannot be made an array of equal rows"),
        ({"x": [[1, 2]], "y": [0, 1]}, "same number of examples"),
    ],
)
def test_examples_are_arrays_of_numbers(arrays, message):
    with pytest.raises(ValueError, match=message):
        ArrayExamples(arrays)
    lists = ArrayExamples({"x": [[1, 2], [3, 4]], "y": [0, 1]})
    assert lists.take(np.array([1]))["x"].tolist() == [[3, 4]]


@pytest.mark.parametrize("groups", [["a", None], [1.0, np.nan], [0.5, 1.0], [{}, {}]])
def test_groups_are_names_or_numbers(groups):
    examples = ArrayExamples({"x": np.ones((6, 2), np.float32), "y": Y})
    train = Split(examples, Partition(np.array([0, 3, 6])))
    with pytest.raises(ValueError, match=r"groups\['site'\]"):
        FederatedDataset("toy", "classification", 2, train=train, groups={"site": groups})


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"x": np.zeros(2, np.int64) + 2**40}, "x, row 0 is 1099511627776"),
        ({"x": np.zeros(2, np.float64)}, r"returns x as float64\[2\] for 2 rows, but spec says"),
        ({"x": np.zeros((2, 1), np.int64)}, "let them agree"),
        ({}, "returns no 'x'"),
    ],
)
def test_generated_examples_are_what_their_spec_says(returned, message):
    spec = {"x": jax.ShapeDtypeStruct((), np.int64)}
    with pytest.raises(ValueError, match=message):
        LazyExamples(9, lambda rows: returned, spec).take(np.arange(2))


def test_partitions_are_of_integers_and_of_rows_that_exist():
    for offsets in ([0, 2.5, 6], [True, False], [[0, 6]]):
        with pytest.raises(ValueError, match="offsets must be a vector of integers"):
            Partition(np.array(offsets))
    with pytest.raises(ValueError, match="index must be a vector of integers"):
        Partition(np.array([0, 2]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="flatnonzero"):
        ONE.subset(np.array([True]))
    with pytest.raises(ValueError, match="no client -1 among 1"):
        ONE.subset([-1])
    examples = ArrayExamples({"x": np.zeros((5, 2), np.float32), "y": np.zeros(5, np.int32)})
    for partition in (ONE, Partition(np.array([0, 1]), np.array([-1]))):
        with pytest.raises(ValueError, match="there are 5 examples"):
            FederatedDataset("toy", "classification", 2, train=Split(examples, partition))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_rows_that_are_not_finite_are_named(bad, dtype):
    x = with_value(bad, dtype)
    with pytest.raises(ValueError, match=r"x, row 4, column 1 is -?(nan|inf): on_nonfinite='drop'"):
        from_arrays(x, Y, num_clients=2)
    with pytest.raises(ValueError, match="x_test, row 4, column 1 is"):
        from_arrays(np.ones((6, 3), dtype), Y, x_test=x, y_test=Y, num_clients=2)
    kept = from_arrays(x, Y, num_clients=2, on_nonfinite="keep")
    assert kept.train.num_rows == 6 and not kept.dropped


def test_dropped_rows_are_counted_and_everything_else_stays():
    x = np.arange(18.0).reshape(6, 3)
    bad = x.copy()
    bad[[0, 1, 4], 2] = np.nan
    ids = ["a", "a", "b", "b", "c", "c"]
    groups = {"site": ["n", "s", "w"]}
    others = {"x_test": bad, "y_test": Y, "test_client_ids": ids, "client_ids": ids}
    with pytest.warns(UserWarning, match="3 train rows and 3 test rows .* client 'a'") as warned:
        dataset = from_arrays(bad, Y, **others, groups=groups, on_nonfinite="drop")
    assert len(warned) == 1
    assert dataset.client_ids.tolist() == ["b", "c"]
    assert dataset.groups["site"].tolist() == ["s", "w"]
    assert dataset.dropped == {"train": 3, "test": 3} and "3 rows of train" in dataset.describe()
    for split in (dataset.train, dataset.test):
        assert split.partition.sizes.tolist() == [2, 1]
        found = split.examples.take(split.rows())
        assert found["x"].tolist() == x[[2, 3, 5]].tolist()
        assert found["y"].tolist() == Y[[2, 3, 5]].tolist()
    with pytest.raises(ValueError, match="none is finite"):
        from_arrays(np.full((6, 3), np.nan), Y, num_clients=2, on_nonfinite="drop")


def test_rows_that_a_partition_leaves_out_may_be_anything(tmp_path):
    x = with_value(np.nan, np.float32)
    good = Partition(np.array([0, 3]), np.array([0, 2, 5]))
    from_arrays(x, Y, partition=good)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    from_arrays(mapped, Y, partition=good)
    for clients in ({"partition": ONE}, {"num_clients": 2}):
        with pytest.raises(ValueError, match="row 4, column 1 is nan, and on_nonfinite='drop' can"):
            from_arrays(mapped, Y, on_nonfinite="drop", **clients)


@given(st.integers(0, 2**32), st.sampled_from([(7,), (5, 3), (4, 2, 3)]))
def test_rows_are_found_as_one_by_one(seed, shape):
    x = np.random.default_rng(seed).choice(
        [0.0, 1.0, np.nan, np.inf], shape, p=[0.5, 0.3, 0.1, 0.1]
    )
    assert nonfinite_rows(x).tolist() == [not np.isfinite(row).all() for row in x]


def test_raw_images_need_scaling():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"image_scaling\(None\)"):
        from_arrays(images, Y, num_clients=2)
    dataset = from_arrays(images, Y, num_clients=2, preprocess=image_scaling(None))
    assert dataset.preprocess(dataset.train.examples.take(np.arange(6)))["x"].max() <= 1
    three = from_arrays(
        images, Y, num_clients=2, preprocess=image_scaling(((0.5,) * 3, (0.2,) * 3))
    )
    with pytest.raises(ValueError, match=r"moments of 3 channels, .* shape \[8, 8\]"):
        three.spec  # noqa: B018
    from_arrays(images % 17, Y, num_clients=2)  # small counts are what they are


def test_values_that_would_fall_together_are_refused():
    x = np.ones((6, 2)) * [1.7e9, 1.0]
    from_arrays(x, Y, num_clients=2)  # constant from the start
    x[:, 0] += 8.0 * np.arange(6)
    with pytest.raises(ValueError, match=r"x, column \[0\]: its values differ, but are all 1.7e"):
        from_arrays(x, Y, num_clients=2)
    from_arrays(x - x.mean(0), Y, num_clients=2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ma.masked_array(np.ones((6, 3)), np.eye(6, 3)), "row 0, column 0 is masked, as are 3"),
        (np.zeros(6, "M8[s]"), "holds times"),
        (np.zeros(6, [("a", "f4"), ("b", "i4")]), "structured_to_unstructured"),
        (np.array([[1, "red"]] * 6, object), "row 0, column 1 is 'red': encode"),
        (np.array([[1, None]] * 6, object), "row 0, column 1 is missing"),
        (np.array([["1.5", "2"]] * 6), r"numbers of x are texts: give x.astype\(np.float32\)"),
        (np.array([["1.5", "2"]] * 5 + [["?", "2"]]), r"row 5, column 0 is '\?'"),
        ([[2**70, 1]] * 6, r"Python numbers \(int\) that fit no NumPy type"),
        ([[1, 2], [1]] * 3, "cannot be made an array of equal rows"),
        (np.zeros((6, 0)), r"shape \[6, 0\]: its rows hold nothing"),
        (np.float32(3), "one row per example"),
        (np.ones((6, 2), complex), "x is complex"),
        (np.zeros((6, 2), "V3"), "must be an array of numbers"),
    ],
)
def test_features_that_are_no_numbers_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(x, Y, num_clients=2)


def test_whole_test_features_become_the_floats_that_training_has():
    x_test = np.arange(18).reshape(6, 3)
    dataset = from_arrays(np.ones((6, 3)), Y, x_test=x_test, y_test=Y, num_clients=2)
    stored = dataset.test.examples.arrays["x"]
    assert stored.dtype == np.float32 and stored.tolist() == x_test.tolist()
    fortran = np.asfortranarray(x_test * 1.0)
    assert from_arrays(fortran, Y, num_clients=2).train.examples.take(np.array([4]))[
        "x"
    ].tolist() == [[12, 13, 14]]

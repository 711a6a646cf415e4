"""Labels as texts, numbers and what is neither; tables; ids as they were given."""

import uuid

import numpy as np
import pytest
from fake_tables import Frame, Series

from fljax.data import from_arrays
from fljax.data.ids import places_among

X = np.arange(12.0).reshape(6, 2)
ANIMALS = ["dog", "ant", "cat", "dog", "ant", "cat"]


@pytest.mark.parametrize(
    "y",
    [
        ANIMALS,
        np.array(ANIMALS),
        np.array(ANIMALS, object),
        np.array(ANIMALS, "S"),
        np.array(ANIMALS, np.dtypes.StringDType()),
        Series(np.array(ANIMALS, object)),
    ],
)
def test_texts_are_numbered_and_the_mapping_is_kept(y):
    dataset = from_arrays(X, y, x_test=X, y_test=y, num_clients=2)
    assert dataset.class_names == ("ant", "cat", "dog") and dataset.num_classes == 3
    numbers = dataset.train.examples.arrays["y"]
    assert [dataset.class_names[k] for k in numbers] == ANIMALS and numbers.dtype == np.int32
    assert dataset.test.examples.arrays["y"].tolist() == numbers.tolist()


def test_the_order_of_the_classes_may_be_given():
    names = ["cat", "dog", "ant", "emu"]
    dataset = from_arrays(X, ANIMALS, num_clients=2, class_names=names)
    assert dataset.num_classes == 4 and dataset.class_names == tuple(names)
    assert dataset.train.examples.arrays["y"].tolist() == [1, 2, 0, 1, 2, 0]
    numbers = from_arrays(X, [0, 1, 2, 0, 1, 2], num_clients=2, class_names=names)
    assert numbers.class_names == tuple(names) and numbers.num_classes == 4


def test_classes_of_test_rows_alone_have_a_number_and_a_warning():
    with pytest.warns(UserWarning, match="1 classes of y_test, such as 1"):
        dataset = from_arrays(X, ANIMALS, x_test=X[:1], y_test=["bee"], num_clients=2)
    assert dataset.class_names == ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        ([0.0, 1.0] * 3, {}, r"not float64: give y.astype\(int\)"),
        ([0.5, 1.0] * 3, {}, "y, row 0 is 0.5, so this is no classification"),
        ([np.nan, 1.0] * 3, {}, "y, row 0 is nan, as are 3 of 6 labels"),
        (np.eye(6, 3), {}, "other targets need kind='targets'"),  # not every row of it is one-hot
        (np.eye(3)[[0, 1, 2, 0, 1, 2]], {}, r"one-hot: give y.argmax\(axis=1\)"),
        (np.zeros((6, 1), int), {}, r"give y.ravel\(\)"),
        (np.ones((6, 2)) * 7.5, {}, "a task of your own"),
        (np.array(0), {}, "one row per example"),
        (["a", 1] * 3, {}, r"mixes labels such as 1 \(int\), 'a' \(str\)"),
        (["a", None] * 3, {}, "y, row 1 is missing"),
        (["a", "a\0"] * 3, {}, "y, row 1 is .* NUL"),
        (np.array([b"a\xff", b"a"] * 3), {}, "y holds bytes that are no UTF-8"),
        ([(1, 2)] * 6, {}, "a task of your own"),
        (ANIMALS, {"num_classes": 5}, "num_classes=5, but 3 classes have names"),
        (ANIMALS, {"class_names": ["ant", "cat"]}, "y, row 0 is 'dog', which is none of"),
        (ANIMALS, {"class_names": ["ant", "ant"]}, "different texts"),
        ([0, 1, 2] * 2, {"class_names": ["ant", "cat"]}, "class_names is 2, but the labels go up"),
        (ANIMALS, {"x_test": X, "y_test": [0, 1] * 3}, "give both as texts"),
        ([0, 1] * 3, {"num_classes": 2.5}, "num_classes = 2.5 .float. must be a whole number"),
        ([True, False] * 3, {"x_test": X[:0], "y_test": [True][:0]}, "x_test has no rows"),
    ],
)
def test_labels_that_are_none_get_the_line_that_makes_some(y, options, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(X, y, num_clients=2, **options)


@pytest.mark.parametrize("y", [[1, 2, 3, 1, 2, 3], [3, 7, 12, 3, 7, 12]])
def test_labels_with_gaps_are_kept_and_warned_of(y):
    with pytest.warns(UserWarning, match=f"num_classes={max(y) + 1}"):
        dataset = from_arrays(X, y, num_clients=2)
    assert dataset.num_classes == max(y) + 1
    assert dataset.train.examples.arrays["y"].tolist() == y


def test_some_of_many_classes_may_be_missing(recwarn):
    from_arrays(np.ones((95, 2)), np.arange(95) + (np.arange(95) > 50), num_clients=5)
    assert not recwarn.list


def frame(**changes):
    columns = {"age": [30, 40, 50, 60, 70, 80], "height": X[:, 0], "smokes": [True, False] * 3}
    return Frame(columns | changes)


def test_a_table_is_its_columns_side_by_side():
    dataset = from_arrays(frame(), Series(ANIMALS), client_ids=Series(["u", "v"] * 3))
    stored = dataset.train.examples.arrays["x"]
    assert stored.dtype == np.float32 and stored[1].tolist() == [40, 2, 0]
    assert dataset.client_ids.tolist() == ["u", "v"]


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (
            frame(sex=["f", "m"] * 3),
            {},
            r"x\['sex'\] must be .* row 0 is 'f': encode.*get_dummies",
        ),
        (frame(height=np.array([1.0, None] * 3, object)), {}, r"x\['height'\], row 1 is missing"),
        (frame(height=[1.0, np.nan] * 3), {}, r"x, row 1, column 1 \('height'\) is nan"),
        (frame(when=np.zeros(6, "M8[s]")), {}, r"x\['when'\] holds times"),
        (frame(), {"x_test": Frame({"age": [1], "smokes": [1], "height": [1]})}, "another order"),
        (frame(), {"x_test": Frame({"age": [1], "weight": [1]})}, "x has no 'weight'|no 'height'"),
    ],
)
def test_tables_that_are_no_numbers_are_refused_by_column(x, options, message):
    options = options | ({"y_test": [0]} if options else {})
    with pytest.raises(ValueError, match=message):
        from_arrays(x, [0, 1] * 3, num_clients=2, **options)


def test_labels_are_a_column_not_a_table():
    with pytest.raises(ValueError, match=r"the columns kind, note: give .* y\['kind'\]"):
        from_arrays(X, Frame({"kind": ANIMALS, "note": ANIMALS}), num_clients=2)


def test_rows_of_different_indexes_are_refused():
    shuffled = Series([0, 1] * 3, index=[5, 4, 3, 2, 1, 0])
    with pytest.raises(ValueError, match=r"y.loc\[x.index\]"):
        from_arrays(frame(), shuffled, num_clients=2)
    with pytest.raises(ValueError, match="x and client_ids have different indexes"):
        from_arrays(frame(), [0, 1] * 3, client_ids=shuffled)


@pytest.mark.parametrize(
    "ids",
    [
        [2**32 + 5, 5],
        [2**63 + 5, 2**63],
        [-(2**63), 2**63 - 1],
        np.array([2**63 + 1, 2**63], np.uint64),
        ["ann", "bob"],
        np.array([b"ann", b"bob"]),
        [False, True],
        Series(np.array([7, 2**40], object)),
    ],
)
def test_ids_are_kept_as_given(ids):
    values = ids.to_numpy() if isinstance(ids, Series) else np.asarray(ids, object)
    rows = [values[i] for i in (0, 1, 1, 0, 0, 1)]
    dtype = getattr(ids, "dtype", None)
    rows = rows if dtype is None else np.array(rows, dtype)
    dataset = from_arrays(X, [0, 1] * 3, client_ids=rows, x_test=X, y_test=[0, 1] * 3,
                          test_client_ids=rows)  # fmt: skip
    assert dataset.client_ids.tolist() == sorted(values.tolist())
    assert dataset.train.partition.sizes.tolist() == dataset.test.partition.sizes.tolist() == [3, 3]
    first = int(np.flatnonzero(dataset.client_ids == rows[0])[0])
    assert dataset.train.partition.rows(first).tolist() == [0, 3, 4]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([2**70, 1] * 3, "more than 64 bits: give them as strings"),
        ([2**63, -1] * 3, "more than 64 bits"),
        (np.array([2.0**53, 2.0**53 + 2] * 3), "float64 cannot tell integers"),
        (np.array([2.0**24, 1] * 3, np.float32), "float32 cannot tell integers"),
        (np.array([np.inf, 1] * 3), "cannot tell"),
        (["1", 1] * 3, "mix the types int, str"),
        (["a\0", "a"] * 3, "ends in a NUL"),
        ([uuid.UUID(int=1), uuid.UUID(int=2)] * 3, r"not UUID: give \[str\(one\)"),
        ([("a", 1), ("b", 2)] * 3, r"its shape is \[6, 2\]"),
    ],
)
def test_ids_that_cannot_be_told_apart_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(X, [0, 1] * 3, client_ids=ids)


def test_signed_and_unsigned_ids_are_compared_exactly():
    ids = np.array([2**63, 2**63 + 1], np.uint64)
    assert places_among(ids, np.array([-1, 5])).tolist() == [-1, -1]
    assert places_among(np.array([5, 7]), np.array([7, 2**63 + 5], np.uint64)).tolist() == [1, -1]


def test_groups_may_be_by_id():
    site = {"v": "north", "u": "south", "w": "unused"}
    dataset = from_arrays(X, [0, 1] * 3, client_ids=["u", "v"] * 3, groups={"site": site})
    assert dataset.groups["site"].tolist() == ["south", "north"]
    for groups, message in (
        ({"site": {"u": 1}}, "no group of client 'v'"),
        ({"site": [1, None]}, "is missing"),
        ({"site": [[1], [2]]}, "one for each client"),
    ):
        with pytest.raises(ValueError, match=message):
            from_arrays(X, [0, 1] * 3, client_ids=["u", "v"] * 3, groups=groups)


def test_groups_by_id_are_those_of_held_out_clients_too():
    x, y, ids = np.eye(6), [0, 1] * 3, [1, 1, 2, 2, 3, 3]
    test = {"x_test": np.eye(6), "y_test": y, "test_client_ids": [1, 7, 7, 8, 8, 2]}
    hospitals = {1: "a", 2: "b", 3: "b", 7: "c", 8: "a"}
    dataset = from_arrays(x, y, client_ids=ids, groups={"hospital": hospitals}, **test)
    assert dataset.groups["hospital"].tolist() == ["a", "b", "b"]
    assert dataset.held_out_ids.tolist() == [7, 8]
    assert dataset.held_out_groups["hospital"].tolist() == ["c", "a"]
    del hospitals[8]
    with pytest.raises(ValueError, match="none of client 8"):
        from_arrays(x, y, client_ids=ids, groups={"hospital": hospitals}, **test)
    del hospitals[7]  # groups of the clients that train
    dataset = from_arrays(x, y, client_ids=ids, groups={"hospital": hospitals}, **test)
    assert not dataset.held_out_groups


def test_a_client_without_a_sound_row_is_held_out():
    x, ids = np.ones((6, 2)), [1, 1, 2, 2, 3, 3]
    x[2:4] = np.nan
    with pytest.warns(UserWarning, match="No row is left of client 2"):
        dataset = from_arrays(
            x, [0, 1] * 3, client_ids=ids, x_test=np.ones((6, 2)), y_test=[0, 1] * 3,
            test_client_ids=ids, on_nonfinite="drop",
        )  # fmt: skip
    assert dataset.client_ids.tolist() == [1, 3] and dataset.held_out_ids.tolist() == [2]
    assert dataset.test.partition.sizes.tolist() == [2, 2]
    assert dataset.held_out.partition.sizes.tolist() == [2]

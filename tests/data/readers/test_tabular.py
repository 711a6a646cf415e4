"""CSV, Parquet, Arrow and NumPy files give one data set, and say where they cannot be read."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from readers import assert_equal
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fljax import config, data
from fljax.config.experiment import make_dataset
from fljax.data.readers import arrow_tables, csv_tables, tables
from fljax.data.sources import load

pa = pytest.importorskip("pyarrow")
csv = pytest.importorskip("pyarrow.csv")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Lets files and caches of a test lie in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLJAX_CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path


def people(rows=300, seed=0):
    """Returns {column: values} of people in hospitals."""
    draw = np.random.default_rng(seed)
    return {
        "hospital": draw.choice(np.array(["Basel", "Zürich", "007", "Bern"]), rows),
        "age": draw.integers(20, 90, rows),
        "dose": draw.normal(size=rows).round(3),
        "smokes": draw.random(rows) < 0.3,
        "kind": draw.choice(np.array(["a", "b, c", "d"]), rows),
        "outcome": draw.choice(np.array(["ill", "well"]), rows),
    }


def written(columns, name, **options):
    """Writes a table in the format that its name says."""
    if name.endswith("npz"):
        np.savez(name, **columns)
        return
    table = pa.table({key: values.tolist() for key, values in columns.items()})
    if name.endswith("csv"):
        csv.write_csv(table, name)
    elif name.endswith("parquet"):
        parquet.write_table(table, name, **options)
    elif name.endswith("arrow"):
        feather.write_feather(table, name, chunksize=40)
    else:
        with pa.ipc.new_stream(name, table.schema) as file:
            file.write_table(table, 40)


ROLES = {"client": "hospital", "label": "outcome"}


def features(columns):
    kinds = [columns["kind"] == kind for kind in ("a", "b, c", "d")]
    parts = [columns["age"], columns["dose"], columns["smokes"], *kinds]
    return np.stack(parts, 1).astype(np.float64)


FORMATS = {"csv": "csv", "parquet": "parquet", "arrow": "arrow", "ipc": "arrow", "npz": "numpy"}


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_gives_the_data_set_of_the_arrays(ending, monkeypatch):
    monkeypatch.setattr(tables, "_ROWS", 64)
    train, test = people(), people(70, 1)
    test["hospital"][:9] = "Chur"
    halves = [{name: values[part] for name, values in train.items()}
              for part in (slice(150), slice(150, None))]  # fmt: skip
    for number, half in enumerate(halves):
        written(half, f"part-{number}.{ending}")
    written(test, f"test.{ending}")
    made = load(FORMATS[ending], path=f"part-*.{ending}", test_path=f"test.{ending}", **ROLES)
    x, x_test = (features(each).astype(np.float32) for each in (train, test))
    expected = data.from_arrays(
        x, train["outcome"], client_ids=train["hospital"],
        x_test=x_test, y_test=test["outcome"], test_client_ids=test["hospital"],
    )  # fmt: skip
    assert_equal(made, expected)
    assert made.feature_names == ("age", "dose", "smokes", "kind=a", "kind=b, c", "kind=d")


def made_caches():
    from fljax.core.files import cache_dir

    return [*(cache_dir() / "datasets").iterdir()]


def with_missing(rows=300):
    """Returns people some of whose values are missing, the values as a matrix, and text columns."""
    columns = people(rows)
    draw = np.random.default_rng(3)
    lacks = {name: draw.random(rows) < 0.1 for name in ("age", "dose", "kind", "smokes")}
    with_none = {
        name: np.where(lacks[name], None, values).tolist() if name in lacks else values.tolist()
        for name, values in columns.items()
    }
    parquet.write_table(pa.table(with_none), "missing.parquet")
    csv.write_csv(pa.table(with_none), "missing.csv")
    return columns, with_none


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("policy", ["mean", "most_frequent", -1.0])
def test_missing_values_become_what_scikit_learn_makes_of_training_rows(policy, ending):
    columns, with_none = with_missing()
    found = load(
        ending, path=f"missing.{ending}", test_clients=["Bern"], missing=policy,
        standardize=policy == "mean", **ROLES,
    )  # fmt: skip
    trains = columns["hospital"] != "Bern"
    numbers = np.array([with_none["age"], with_none["dose"]], np.float64).T
    strategy = {"strategy": policy} if isinstance(policy, str) else {"strategy": "constant"}
    strategy |= {} if isinstance(policy, str) else {"fill_value": policy}
    x = SimpleImputer(**strategy).fit(numbers[trains]).transform(numbers)
    if policy == "mean":
        known = StandardScaler().fit(numbers[trains])  # of the values that are there
        x = (x - known.mean_) / known.scale_
    common = {"strategy": "most_frequent"}
    if policy == -1.0:
        common = {"strategy": "constant", "fill_value": "missing"}
    kinds = np.array(with_none["kind"], object)[:, None]
    kinds = SimpleImputer(missing_values=None, **common).fit(kinds[trains]).transform(kinds)
    kinds = OneHotEncoder(sparse_output=False).fit(kinds[trains]).transform(kinds)
    truths = np.array(with_none["smokes"], np.float64)
    held = truths[trains & ~np.isnan(truths)]
    truths[np.isnan(truths)] = -1.0 if policy == -1.0 else float(held.mean() > 0.5)
    x = np.concatenate([x, truths[:, None], kinds], 1)
    for split, rows in (("train", trains), ("test", ~trains)):
        order = np.argsort(columns["hospital"][rows], kind="stable")
        made = getattr(found, split)
        np.testing.assert_allclose(
            made.examples.take(made.rows())["x"], x[rows][order], rtol=1e-6, atol=1e-6
        )
    assert found.held_out_ids.tolist() == ["Bern"]
    assert "Bern" not in found.client_ids.tolist()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_with_missing_values_are_dropped_and_counted(ending):
    columns, with_none = with_missing()
    whole = np.array([None not in row for row in zip(*with_none.values(), strict=True)])
    with pytest.warns(UserWarning, match="train rows lack a value and were left out"):
        found = load(ending, path=f"missing.{ending}", missing="drop", **ROLES)
    kept = {name: values[whole] for name, values in columns.items()}
    x = features(kept).astype(np.float32)
    assert_equal(found, data.from_arrays(x, kept["outcome"], client_ids=kept["hospital"]))
    assert found.dropped == {"train": int((~whole).sum())}


def test_a_reading_of_parquet_that_was_killed_enters_where_it_ended(monkeypatch):
    monkeypatch.setattr(tables, "_ROWS", 16)
    columns = people()
    for number in (0, 1):
        half = {name: values[150 * number :][:150] for name, values in columns.items()}
        written(half, f"{number}.parquet", row_group_size=40)
    table = arrow_tables.parquet_table([("train", Path(f"{n}.parquet")) for n in (0, 1)])
    names = ["age", "hospital"]
    batches = [*table.read(names, 0)]
    for start in (1, 3, 5, 11, 13, 99):
        left = [*table.read(names, start)]
        assert [(b.path, b.first) for b in left] == [(b.path, b.first) for b in batches[start:]]
        for one, other in zip(left, batches[start:], strict=True):
            assert one.columns["age"].equals(other.columns["age"])
    decoded = []
    monkeypatch.setattr(
        parquet.ParquetFile, "iter_batches",
        lambda self, size, groups, columns: decoded.extend(groups) or iter(()),
    )  # fmt: skip
    [*table.read(names, 9)]
    assert decoded == [3, 0, 1, 2, 3]  # of four groups in two files, not the first three


def test_ids_and_labels_of_csv_are_integers_only_where_they_are_written_as_such():
    with open("ids.csv", "w") as file:
        file.write("client,x,y,z\n1,0.5,2,01\n10,1.5,0,2\n2,2.5,1,3\n")
    found = load("csv", path="ids.csv", client="client", label="y", features="x")
    assert found.client_ids.tolist() == [1, 2, 10]  # by number
    assert (found.num_classes, found.class_names) == (3, None)
    found = load("csv", path="ids.csv", client="z", label="y", features=["x"])
    assert found.client_ids.tolist() == ["01", "2", "3"]


def test_arrays_in_a_column_are_the_features_as_they_are():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (20, 4, 3), dtype=np.uint8)
    rows = {"client": draw.integers(0, 3, 20), "x": images, "y": draw.integers(0, 2, 20)}
    np.savez("x.npz", **rows)
    as_lists = pa.table({
        "client": rows["client"], "y": rows["y"],
        "x": pa.array(images.tolist(), pa.list_(pa.list_(pa.uint8(), 3))),
    })  # fmt: skip
    parquet.write_table(as_lists, "x.parquet")
    roles = {"client": "client", "label": "y"}
    one, other = load("numpy", path="x.npz", **roles), load("parquet", path="x.parquet", **roles)
    assert_equal(one, other)
    order = np.argsort(rows["client"], kind="stable")
    batch = one.train.examples.take(one.train.rows())
    np.testing.assert_array_equal(batch["x"], images[order])
    np.testing.assert_allclose(one.preprocess(batch)["x"], images[order] / 255, rtol=1e-6)


def test_columns_of_no_fitting_type_and_ragged_lists_are_refused(monkeypatch):
    monkeypatch.setattr(tables, "_ROWS", 2)
    columns = {
        "client": ["a", "a", "b", "b"], "y": [0, 1, 0, 1],
        "day": pa.array([1, 2, 3, 4], pa.date32()),
        "x": [[1.0], [2.0], [1.0], [2.0, 3.0]], "z": [[1.0], [2.0], [1.0, 1.0], [2.0, 3.0]],
        "n": [[1.0], [2.0], None, [1.0]], "i": [1.0, 2.0, 3.0, 4.0],
        "m": [0, None, 1, 0],
    }  # fmt: skip
    parquet.write_table(pa.table(columns), "t.parquet")
    for options, said in (
        ({"client": "i"}, "column 'i' holds number, which is no client: write ids as"),
        ({"label": "day"}, r"column 'day' holds date32\[day\], which is no label: write classes"),
        ({"features": "day"}, "which is no feature: name the others as features"),
        (
            {"label": None, "target": "client", "client": "y"},
            "'client' holds text, which is no tar",
        ),
        ({"features": "x"}, "row 4, column 'x': this is of another length than those"),
        ({"features": "z"}, r"row 3, column 'z': this is of the shape \[2\], unlike those"),
        ({"features": "i", "label": "m", "missing": 0}, "row 2, column 'm': this is missing"),
        ({"features": ["x", "i"]}, "'x' holds arrays, which are all features or none, and 'i'"),
        (
            {"features": "n"},
            "row 3, column 'n': this is missing, or a value inside it: give missing='drop'",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            load("parquet", path="t.parquet", **{"client": "client", "label": "y", **options})
    options = {"client": "client", "label": "y", "features": "n", "missing": "drop"}
    with pytest.warns(UserWarning, match="parquet: 1 train rows lack a value and were left out"):
        assert load("parquet", path="t.parquet", **options).dropped == {"train": 1}


def test_targets_and_tokens():
    draw = np.random.default_rng(0)
    columns = {"client": draw.integers(0, 3, 20), "a": draw.normal(size=20),
               "b": draw.normal(size=20), "c": draw.normal(size=20)}  # fmt: skip
    written(columns, "t.csv")
    order = np.argsort(columns["client"], kind="stable")
    for target, y in (("c", columns["c"]), (["c", "b"], np.stack([columns["c"], columns["b"]], 1))):
        found = load("csv", path="t.csv", client="client", target=target)
        assert (found.kind, found.num_classes) == ("targets", None)
        batch = found.train.examples.take(found.train.rows())
        np.testing.assert_array_equal(batch["y"], y[order].astype(np.float32))
    tokens = draw.integers(1, 9, (20, 5))
    np.savez("tokens.npz", client=columns["client"], x=tokens, y=tokens)
    found = load("numpy", path="tokens.npz", client="client", target="y", kind="next_token")
    assert (found.kind, found.num_classes) == ("next_token", 9)


def test_test_clients_are_a_share_a_list_or_a_file():
    columns = people()
    written(columns, "p.csv")
    share = load("csv", path="p.csv", test_clients=0.5, seed=1, **ROLES)
    assert len(share.held_out_ids) == 2 == share.num_clients
    assert share.test.num_rows + share.train.num_rows == 300
    others = [load("csv", path="p.csv", test_clients=0.5, seed=s, **ROLES) for s in range(9)]
    assert len({tuple(each.held_out_ids) for each in others}) > 1
    with open("ids.txt", "w") as file:
        file.write("\n".join(share.held_out_ids) + "\n")
    assert_equal(load("csv", path="p.csv", test_clients="ids.txt", **ROLES), share)
    assert_equal(load("csv", path="p.csv", test_clients=[*share.held_out_ids], **ROLES), share)


def test_a_partition_makes_clients_where_no_column_does():
    written(people(), "p.csv")
    found = load("csv", path="p.csv", label="outcome", features=["age", "dose"],
                 partition="dirichlet", alpha=0.5, num_clients=7)  # fmt: skip
    assert (found.num_clients, found.client_ids, found.train.num_rows) == (7, None, 300)
    with pytest.raises(ValueError, match="name the column of clients as client, or give num_cl"):
        load("csv", path="p.csv", label="outcome")


def test_a_configuration_names_columns():
    written(people(), "p.csv")
    made = config.default_config()
    made.dataset = "csv"
    made.dataset_options = {"path": "p.csv", "label": "outcome"}
    assert config.resolve(made).num_clients == 100
    assert make_dataset(config.resolve(made)).num_clients == 100
    made.dataset_options.client = "hospital"
    assert config.resolve(made).partition == "natural"
    assert make_dataset(config.resolve(made)).num_clients == 4
    made.dataset = "csv(client='hospital')"
    made.dataset_options = {"path": "p.csv", "label": "outcome"}
    assert make_dataset(config.resolve(made)).num_clients == 4


CSV = "hospital,age,kind,outcome\n" + "Bern,20,a,ill\n" * 700


@pytest.mark.parametrize(
    "content, options, said",
    [
        (CSV + "Bern,20,a\n", {}, r"has 3 values in line 702, not 4: mend that line"),
        (CSV + "Bern,old,a,ill\n", {"target": "age", "label": None},
         r"t.csv row 701, column 'age': this is 'old', which is no number"),
        (CSV + "Bern,,a,ill\n", {}, r"row 701, column 'age': this is missing: give missing="),
        (CSV + ",20,a,ill\n", {"missing": "mean"}, r"701, column 'hospital': this is missing"),
        (CSV + "Bern,inf,a,ill\n", {}, r"row 701, column 'age': this is inf: bring it into"),
        ("", {}, r"t.csv is truncated, corrupt or no CSV file \(Empty CSV file\)"),
        ("a,b\n", {}, r"t.csv has no column 'hospital'. It has a, b"),
        ("hospital,age,outcome\n", {}, "no training rows"),
        ("a,a\n1,2\n", {}, r"t.csv has two columns 'a': name them differently"),
        (CSV.encode() + b"Bern,20,\xe9,ill\n", {}, r"t.csv is not UTF-8 .*: write it as UTF-8"),
        (CSV + "Bern,1e300,a,ill\n", {}, r"row 701, column 'age': this is 1e.300, beyond float32"),
        (CSV.replace("20", "1600000000") + "Bern,1600000001,a,ill\n", {},
         r"column 'age': its values differ, but are all 1.6e.09 in float32, in which JAX holds"),
        (CSV.replace("ill", "-1"), {}, "'outcome' holds -1 to -1, and classes are 0, 1, 2"),
        (CSV, {"client": "hospitl"}, r"no column 'hospitl'; did you mean 'hospital'\? It has"),
        (CSV, {"features": ["age", "outcome"]}, "has 'outcome', which is client, split_by"),
        (CSV, {"target": "age"}, "label, or those of numbers as target, not both"),
        (CSV, {"label": None}, "give the column of classes as label, or those"),
        (CSV, {"test_clients": ["Bern"]}, "names all 1 clients: none is left to train"),
        (CSV, {"test_clients": ["Brn"]}, "there is no client 'Brn' in the column 'hos"),
        (CSV, {"test_clients": 0.5}, "test_clients = 0.5 of 1 clients leaves none to train"),
        (CSV, {"missing": "median"}, "missing = 'median' is not one of 'error', 'drop', 'mean'"),
        (CSV, {"path": "u.csv"}, r"path = 'u.csv': there is no such file or folder here or in"),
        (CSV, {"path": ["t.csv", "t.csv"], "client": None}, "name the column of clients as client"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_with_place_and_remedy(
    content, options, said, here, monkeypatch
):
    monkeypatch.setattr(csv_tables, "_BLOCK_BYTES", 4096)  # several blocks
    content = content if isinstance(content, bytes) else content.encode()
    (here / "t.csv").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        load("csv", **{"path": "t.csv", **ROLES, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", FORMATS)
def test_damaged_files_are_named_and_the_cache_stays(ending, here):
    written(people(), f"t.{ending}")
    load(FORMATS[ending], path=f"t.{ending}", **ROLES)
    (kept,) = made_caches()
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    whole = (here / f"t.{ending}").read_bytes()
    damages = [whole[: len(whole) // 2], b"nothing of the kind", b""]
    if ending == "csv":
        (here / "t.csv.gz").write_bytes(gzip.compress(whole)[:-20])
        with pytest.raises(ValueError, match="t.csv.gz is truncated"):
            load("csv", path="t.csv.gz", **ROLES)
        damages = [whole[:-20]]
    for damage in damages:
        (here / f"t.{ending}").write_bytes(damage)
        with pytest.raises(ValueError, match=rf"t.{ending} (is truncated|has \d+ val)") as caught:
            load(FORMATS[ending], path=f"t.{ending}", **ROLES)
        assert "\n" not in str(caught.value)
    assert [path.name for path in made_caches()] == [kept.name]
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


@pytest.mark.parametrize("options", [{}, {"test_clients": ["Basel"]}, {"own_test_fraction": 0.2}])
def test_clients_have_the_groups_of_their_rows(options):
    columns = people()
    region = {"Basel": "west", "Bern": "west", "007": "?", "Zürich": "east"}
    columns["region"] = np.array([region[name] for name in columns["hospital"].tolist()])
    written(columns, "p.npz")
    found = load("numpy", path="p.npz", groups="region", **ROLES, **options)
    expected = [region[name] for name in found.client_ids.tolist()]
    assert found.groups["region"].tolist() == expected
    if found.held_out is not None:
        assert found.held_out_groups["region"].tolist() == ["west"]
    assert not any("region" in name for name in found.feature_names)
    with pytest.raises(ValueError, match="client '007' has rows of several groups 'kind': such gr"):
        load("numpy", path="p.npz", groups="kind", **ROLES)
    with pytest.raises(ValueError, match="the groups region are of the clients in the data, and"):
        load("numpy", path="p.npz", groups="region", partition="iid", num_clients=3, **ROLES)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    "options",
    [
        {"val_fraction": 0.3},
        {"own_test_fraction": 0.3},
        {"partition": "dirichlet", "alpha": 1.0, "num_clients": 3},
    ],
)
def test_subjects_stay_together_and_groups_of_rows_are_reported(ending, options):
    columns = people()
    columns = {name: values[np.argsort(columns["hospital"])] for name, values in columns.items()}
    patient = np.char.add(columns["hospital"], (np.arange(300) // 3 % 9).astype(str))
    columns |= {"patient": patient, "ward": (np.arange(300) % 2).astype(bool)}
    written(columns, f"p.{ending}")
    groups = {"ward": np.where(columns["ward"], "true", "false"), "kind": columns["kind"]}
    found = load(
        ending, path=f"p.{ending}", split_by="patient", row_groups=["ward", "kind"],
        features=["age", "dose"], **ROLES, **options,
    )  # fmt: skip
    x = np.stack([columns["age"], columns["dose"]], 1).astype(np.float32)
    expected = data.from_arrays(
        x, columns["outcome"], client_ids=columns["hospital"], split_by=patient,
        row_groups=groups, **options,
    )  # fmt: skip
    assert_equal(found, expected)
    assert found.row_groups == expected.row_groups
    np.testing.assert_array_equal(found.subjects, expected.subjects)


@pytest.mark.parametrize("ending", ["csv", "npz"])
@pytest.mark.parametrize("options", [{}, {"partition": "iid", "num_clients": 2}])
@pytest.mark.parametrize("is_file", [True, False])
def test_clients_tested_on_stay_held_out_where_others_have_own_test_rows(ending, options, is_file):
    columns = people()
    held = np.isin(columns["hospital"], ["Basel", "007"])
    given = {"test_clients": ["Basel", "007"]}
    if is_file:  # some of whose rows are of a client that trains
        tested = held | (np.arange(300) % 10 == 0)
        written({name: values[tested] for name, values in columns.items()}, f"test.{ending}")
        given = {"test_path": f"test.{ending}"}
        columns = {name: values[~tested] for name, values in columns.items()}
        of_file = tested[~held].sum()
    written(columns, f"p.{ending}")
    found = load(
        FORMATS[ending], path=f"p.{ending}", own_test_fraction=0.25, **ROLES, **given, **options
    )
    assert found.held_out_ids.tolist() == ["007", "Basel"]
    assert found.held_out.num_rows == held.sum()
    assert found.train.num_rows + found.test.num_rows == (~held).sum()
    assert not is_file or of_file > 0
    assert found.test.partition.sizes.min() > 0
    if not options:
        assert found.client_ids.tolist() == ["Bern", "Zürich"]
        sizes = found.train.partition.sizes + found.test.partition.sizes
        people_of = people()["hospital"]
        assert sizes.tolist() == [(people_of == name).sum() for name in ("Bern", "Zürich")]


def csv_of(values, name="t.csv", **beside):
    """Writes rows of two clients with these values of a column a."""
    columns = {"client": ["u", "v"] * (len(values) // 2), "a": values, "y": [0, 1, 1, 0] * 99}
    columns |= beside
    rows = [[*columns], *zip(*columns.values(), strict=False)]
    Path(name).write_text("\n".join(",".join(map(str, row)) for row in rows))


@pytest.mark.parametrize(
    "values, said",
    [
        ([*range(7), "-", *range(42)], r"t.csv row 8, column 'a': this is '-', which is no number"),
        ([*range(12), *["x"] * 8], "no number, as 12 of 20 values are: mend it; if it stands for"),
        ([0, 1] * 99 + ["?!", 1], r"name it in null_values \(such as \['', '\?!'\]\) and say by"),
        (["1", '"1,5"'] * 20, "row 2, column 'a': this is '1,5', a number with a decimal comma"),
        (["2024-01-31", "2024-02-01T08:00"] * 9, "row 1, column 'a': this is '2024-01-31', a dat"),
        (["31.1.2024", "1.2.24"] * 9, "a date, which is no feature: name the others as features"),
        ([f"row{n}" for n in range(60)], "'a' has 60 different values in 60 rows, such as 'row0'"),
    ],
)
def test_texts_that_are_no_categories_are_refused_with_place_and_remedy(values, said):
    csv_of(values)
    with pytest.raises(ValueError, match=said) as caught:
        load("csv", path="t.csv", client="client", label="y")
    assert "\n" not in str(caught.value)


def test_texts_that_are_categories_or_missing_values_are_taken():
    roles = {"path": "t.csv", "client": "client", "label": "y"}
    csv_of(["0", "1", "2", "3+"] * 9)  # codes, one of which is no number
    assert load("csv", **roles).feature_names == ("a=0", "a=1", "a=2", "a=3+")
    csv_of([*range(49), "-"])
    found = load("csv", **roles, null_values=["", "-"], missing="mean")
    assert found.feature_names == ("a",) and found.train.examples.arrays["x"].max() == 48
    csv_of([f"row{n}" for n in range(60)])
    assert load("csv", **roles, encoding="codes").feature_names == ("a",)


def test_whole_numbers_are_the_same_labels_and_ids_however_they_are_written():
    csv_of(range(4), "whole.csv", y=[0, 1, 1, 2], client=[1, 2, 10, 10])
    csv_of(range(4), "floats.csv", y=["0.0", "1", "1.0", "2"], client=["1", "2.0", "10.", "10"])
    roles = {"client": "client", "label": "y"}
    whole, floats = (load("csv", path=f"{name}.csv", **roles) for name in ("whole", "floats"))
    assert_equal(whole, floats)
    assert (whole.num_classes, whole.class_names, whole.client_ids.tolist()) == (
        3,
        None,
        [1, 2, 10],
    )


def test_a_column_in_two_roles_is_read_where_that_says_something():
    csv_of(range(24), y=[*range(12)] * 2, client=np.repeat([7, 8, 9], 8))
    roles = {"path": "t.csv", "client": "client", "label": "y", "features": "a"}
    for options in (
        {"split_by": "client"}, {"row_groups": ["y", "client"]}, {"groups": "client"},
        {"split_by": "client", "row_groups": "client"},
    ):  # fmt: skip
        found = load("csv", **roles, **options)
        rows = found.train.examples.take(found.train.rows())
        assert (rows["x"][:, 0].tolist(), rows["y"].tolist()) == ([*range(24)], [*range(12)] * 2)
        assert (found.client_ids.tolist(), found.class_names) == ([7, 8, 9], None)
    with pytest.warns(UserWarning, match="labels"):  # 0 to 6 are none
        assert load("csv", **roles | {"label": "client"}).num_classes == 10
    for options, said in (
        ({"split_by": "y"}, "split_by and label are both the column 'y': name another for one"),
        ({"label": None, "target": ["client"]}, "client and target are both the column 'client'"),
        ({"label": None, "target": "y", "split_by": "y"}, "split_by and target are both the col"),
    ):
        with pytest.raises(ValueError, match=said):
            load("csv", **roles | options)


ARRAYS = {"client": ["u", "u", "v", "v"], "y": [0, 1, 0, 1]}


def arrays_in(format, x):
    """Writes rows with an array each, None where a number is missing, as lists or as an array."""
    if format == "numpy":
        np.savez("t.npz", **ARRAYS, x=np.array(x, np.float64))
        return {"path": "t.npz", "client": "client", "label": "y"}
    parquet.write_table(pa.table({**ARRAYS, "x": x}), "t.parquet")
    return {"path": "t.parquet", "client": "client", "label": "y"}


@pytest.mark.parametrize("format", ["numpy", "parquet"])
@pytest.mark.parametrize(
    "options",
    [{"standardize": True}, {"encoding": "codes"}, {"missing": "mean"}, {"missing": 0.0}],
)
def test_arrays_are_taken_as_they_are_and_other_wishes_refused(format, options):
    roles = arrays_in(format, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    (key,) = options
    with pytest.raises(ValueError, match=f"{key} = .* is of columns of numbers and texts, and 'x'"):
        load(format, **roles, **options)


@pytest.mark.parametrize("format", ["numpy", "parquet"])
@pytest.mark.parametrize("shape", [(2,), (2, 2)])
def test_arrays_with_a_missing_number_are_missing(format, shape, monkeypatch):
    monkeypatch.setattr(tables, "_ROWS", 2)
    x = np.arange(4.0 * np.prod(shape)).reshape(4, *shape).tolist()
    (x[2] if len(shape) == 1 else x[2][1])[1] = None
    roles = arrays_in(format, x)
    with pytest.raises(ValueError, match="row 3, column 'x': this is missing, or a value inside"):
        load(format, **roles)
    with pytest.warns(UserWarning, match="1 train rows lack a value and were left out"):
        found = load(format, **roles, missing="drop")
    assert found.dropped == {"train": 1}
    np.testing.assert_array_equal(found.train.examples.arrays["x"], np.array(x[:2] + x[3:], "f4"))


@pytest.mark.parametrize("format", ["numpy", "parquet"])
@pytest.mark.parametrize(
    "value, said",
    [(np.inf, "inf: drop or fill it"), (1e39, r"1e\+39, beyond float32, in which JAX holds it")],
)
def test_faults_in_arrays_are_named_by_file_row_and_column(format, value, said):
    roles = arrays_in(format, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, value]])
    with pytest.raises(ValueError, match=rf"t\.\w+ row 4, column 'x': this holds {said}"):
        load(format, **roles)


def test_whole_numbers_in_arrays_that_jax_does_not_hold_are_named():
    roles = arrays_in("parquet", [[1, 2], [2**40, 4], [5, 6], [7, 8]])
    with pytest.raises(ValueError, match="row 2, column 'x': this holds 1099511627776, beyond"):
        load("parquet", **roles)

"""Adult: does a person earn more than 50,000 dollars? Becker and Kohavi 1996, UCI Repository.

The census data of most work on fairness, in its official split: 32,561 + 16,281 people, of whom
24 % earn more. Features are those of the literature, one for each value of a column of kinds, and
numbers at mean 0 and deviation 1. Two columns are left out: the sampling weight (`fnlwgt`), and the
name of the education, whose number says the same. Sex and race stand beside the rows, whether or
not the model sees them.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from fljax.core.archives import read_bytes, refused
from fljax.core.data_files import find_file, missing_files, resolve_data_dir
from fljax.core.values import Field, checked, sequence, wrong
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset
from fljax.data.partitions.partition_names import is_natural_name

_FILES = ("adult.data", "adult.test")
_PEOPLE = {"adult.data": 32561, "adult.test": 16281}
_COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation"),
    *("relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week"),
    *("native_country", "income"),
)
# Means and deviations of the training people.
_MOMENTS = {
    "age": (38.5816, 13.6402),
    "education_num": (10.0807, 2.5727),
    "capital_gain": (1077.6488, 7385.1787),
    "capital_loss": (87.3038, 402.9540),
    "hours_per_week": (40.4375, 12.3472),
}
_KINDS = {
    "workclass": "Private Self-emp-not-inc Self-emp-inc Federal-gov Local-gov State-gov "
    "Without-pay Never-worked",
    "marital_status": "Married-civ-spouse Divorced Never-married Separated Widowed "
    "Married-spouse-absent Married-AF-spouse",
    "occupation": "Tech-support Craft-repair Other-service Sales Exec-managerial Prof-specialty "
    "Handlers-cleaners Machine-op-inspct Adm-clerical Farming-fishing Transport-moving "
    "Priv-house-serv Protective-serv Armed-Forces",
    "relationship": "Wife Own-child Husband Not-in-family Other-relative Unmarried",
    "race": "White Asian-Pac-Islander Amer-Indian-Eskimo Other Black",
    "sex": "Female Male",
    "native_country": "United-States Cambodia England Puerto-Rico Canada Germany "
    "Outlying-US(Guam-USVI-etc) India Japan Greece South China Cuba Iran Honduras Philippines "
    "Italy Poland Jamaica Vietnam Mexico Portugal Ireland France Dominican-Republic Laos Ecuador "
    "Taiwan Haiti Columbia Hungary Guatemala Nicaragua Scotland Thailand Yugoslavia El-Salvador "
    "Trinadad&Tobago Peru Hong Holand-Netherlands",
}
_FEATURES = (*_MOMENTS, *_KINDS)
_ROW_GROUPS = ("sex", "race")
_MISSING = Field("keep", str, ("keep", "drop"))
_DOCTORATE = "doctorate"
_BY = Field(None, str, ("education", *_KINDS, _DOCTORATE), optional=True)


def adult(
    *,
    data_dir=None,
    by: str | None = None,
    missing: str = "keep",
    leave_out: Sequence[str] = (),
    **clients,
) -> FederatedDataset:
    """Adult (UCI): 32,561 + 16,281 people, x float32[87], y 1 for more than 50,000 dollars a year.

    Reads `adult/adult.data` and `adult/adult.test` of the data directory, as UCI has them.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      by: A column of kinds whose values are the natural clients, such as "education" or "race", or
        "doctorate": people with a doctorate, and all others, the two domains of agnostic federated
        learning (Mohri et al., arXiv:1902.00146).
      missing: Of people some of whose values are missing, 7 %: "keep" has no feature set for such a
        value; "drop" leaves them out, as AIF360 does, and 30,162 + 15,060 are left.
      leave_out: Columns that the model does not see, such as ("sex", "race").
      **clients: As in `mnist`; the default partition is "natural" where `by` says whose clients.

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file is not what was expected, or the partition is not possible.

    Example:
      >>> dataset = data.adult(partition="dirichlet", num_clients=10, alpha=0.5)  # doctest: +SKIP
    """
    by = checked("by", by, _BY)
    if by is not None:
        _check_natural(by, clients.get("partition"))
    checked("missing", missing, _MISSING)
    seen = [name for name in _FEATURES if name not in _left_out(leave_out)]
    root = resolve_data_dir(data_dir) / "adult"
    paths = {name: find_file(root, name) for name in _FILES}
    if not all(paths.values()):
        wanted = [f"adult/{name}" for name, path in paths.items() if path is None]
        raise FileNotFoundError(missing_files("adult", wanted, root.parent))
    train, test = (_people(path, _PEOPLE[name]) for name, path in paths.items())
    if missing == "drop":
        train, test = _complete(train), _complete(test)
    ids = {}
    if by is not None:
        ids = {"client_ids": _clients(train, by), "test_client_ids": _clients(test, by)}
    return from_arrays(
        _features(train, seen, paths["adult.data"]),
        _income(train, paths["adult.data"]),
        x_test=_features(test, seen, paths["adult.test"]),
        y_test=_income(test, paths["adult.test"]),
        num_classes=2,
        name="adult",
        row_groups={name: train[name] for name in _ROW_GROUPS},
        test_row_groups={name: test[name] for name in _ROW_GROUPS},
        **{**ids, **clients},
    )


def _check_natural(by: str, partition) -> None:
    """Refuses a partition that would set the clients of `by` aside."""
    if partition is None or ":" in str(partition) or is_natural_name(str(partition)):
        return
    raise ValueError(
        f"by = {by!r} says whose rows are whose, and partition = {partition!r} divides them in "
        "another way: set partition = 'natural', or leave `by` out"
    )


def _left_out(columns: Sequence[str]) -> list[str]:
    what = f"names of columns: {', '.join(_FEATURES)}"
    names = list(sequence("leave_out", columns, what))
    if any(name not in _FEATURES for name in names):
        raise wrong("leave_out", columns, what)
    return names


def _people(path: pathlib.Path, expected: int) -> dict[str, np.ndarray]:
    """Returns {column: str[people]} of one file."""
    lines = read_bytes(path).decode("latin-1").splitlines()
    rows = [line.split(", ") for line in lines if line and not line.startswith("|")]
    for number, row in enumerate(rows):
        if len(row) != len(_COLUMNS):
            raise refused(
                path,
                f"has {len(row)} values in row {number + 1}, not {len(_COLUMNS)}: download it "
                "again",
            )
    if len(rows) != expected:
        raise refused(path, f"has {len(rows)} people, not {expected}: download it again")
    return dict(zip(_COLUMNS, map(np.array, zip(*rows, strict=True)), strict=True))


def _complete(people: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the people none of whose values is missing."""
    complete = np.all([values != "?" for values in people.values()], axis=0)
    return {name: values[complete] for name, values in people.items()}


def _clients(people: dict[str, np.ndarray], by: str) -> np.ndarray:
    if by == _DOCTORATE:
        is_doctor = people["education"] == "Doctorate"
        return np.where(is_doctor, _DOCTORATE, f"no {_DOCTORATE}")
    return people[by]


def _features(people, seen: Sequence[str], path: pathlib.Path) -> np.ndarray:
    """Returns float32[people, features]: numbers, then a 0 or 1 for each kind."""
    columns = []
    for name in seen:
        if name in _MOMENTS:
            mean, deviation = _MOMENTS[name]
            try:
                columns.append((people[name].astype(np.float64) - mean) / deviation)
            except ValueError as error:
                raise refused(path, f"holds something else than numbers ({error}).") from None
            continue
        kinds = _KINDS[name].split()
        number = _numbers(people[name], [*kinds, "?"], name, path)
        # of two kinds, one feature says which
        columns += [number == kind for kind in range(len(kinds) == 2, len(kinds))]
    return np.stack(columns, 1).astype(np.float32)


def _numbers(values: np.ndarray, kinds: Sequence[str], name: str, path) -> np.ndarray:
    """Returns the place of each value among the kinds, int64[people]."""
    place = {kind: number for number, kind in enumerate(kinds)}
    try:
        return np.array([place[value] for value in values.tolist()])
    except KeyError as error:
        raise refused(path, f"holds {error} in the column {name}: download it again") from None


def _income(people: dict[str, np.ndarray], path: pathlib.Path) -> np.ndarray:
    incomes = ["<=50K", ">50K", "<=50K.", ">50K."]
    return _numbers(people["income"], incomes, "income", path) % 2

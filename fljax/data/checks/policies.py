"""Answers to what checks of data found: refuse, leave out rows or clients, or warn."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core import parts
from fljax.core.digits import counted
from fljax.core.values import wrong
from fljax.data.checks.report import CLIENT_CHECKS, MEANINGS, ROW_CHECKS, Report, check
from fljax.data.checks.settings import Settings, settings_of
from fljax.data.dataset import (
    ROLES,
    FederatedDataset,
    Partition,
    Split,
    check_has_no_root,
    check_stays,
    offsets_of,
)
from fljax.data.examples import ArrayExamples, LazyExamples

_SURE = ("nonfinite", "out_of_range", "duplicates", "contradictions", "overlap", "few_rows")
_OF_ROWS = ("nonfinite", "out_of_range", "duplicates", "overlap")
_OF_CLIENTS = ("nonfinite", "out_of_range", "few_rows")


class Policy(NamedTuple):
    """An answer to findings, the checks that it is about, and their settings."""

    name: str
    checks: tuple[str, ...]
    settings: dict[str, Any]


def _policy(name: str, default: tuple[str, ...], meaning: str) -> Callable[..., Policy]:
    usual = Settings()

    def policy(
        checks: Sequence[str] = default,
        min_rows: int = usual.min_rows,
        value_range: Sequence[float] | None = usual.value_range,
        neighbours: int = usual.neighbours,
        share: float = usual.share,
        deviations: float = usual.deviations,
    ) -> Policy:
        known = (*ROW_CHECKS, *CLIENT_CHECKS)
        chosen = (checks,) if isinstance(checks, str) else tuple(checks)
        odd = next((each for each in chosen if each not in known), None)
        if odd is not None or not chosen:
            raise wrong("checks", odd, f"some of {', '.join(known)}")
        if name == "drop_rows" and (others := [each for each in chosen if each in CLIENT_CHECKS]):
            raise ValueError(
                f"drop_rows leaves rows out, and {others[0]} is about whole clients: name it in "
                "exclude(checks=...)"
            )
        settings = {
            "min_rows": min_rows,
            "value_range": value_range,
            "neighbours": neighbours,
            "share": share,
            "deviations": deviations,
        }
        return Policy(name, chosen, settings)

    policy.__name__ = policy.__qualname__ = name
    policy.__doc__ = f"{meaning}\n\n    Args: as `Settings`; checks: names of `MEANINGS`."
    return policy


# name -> function (checks, **settings) -> Policy
POLICIES: dict[str, Callable[..., Policy]] = {
    "error": _policy("error", _SURE, "Refuses data in which a check finds anything."),
    "exclude": _policy("exclude", _OF_CLIENTS, "Leaves out the clients that a check finds."),
    "drop_rows": _policy("drop_rows", _OF_ROWS, "Leaves out the rows that a check finds."),
    "warn": _policy("warn", _SURE, "Warns of what checks find, and changes nothing."),
}


def checked(dataset: FederatedDataset, policy: str) -> FederatedDataset:
    """Checks data client by client, and does about it what a policy says.

    Args:
      dataset: As it was made, splits and all.
      policy: "error", "exclude", "drop_rows", "warn", or a call of one, such as
        "drop_rows(checks=['duplicates'])" or "exclude(min_rows=10)".

    Returns:
      The dataset, of which `checks` says what was found and what was done. What the policy is not
      about is counted there as well.

    Raises:
      ValueError: For an unknown policy or check; under "error" for what was found; and where no
        client, or no row of a split, would be left.

    Example:
      >>> twice = data.from_arrays([[1.0], [1.0], [2.0]], [0, 0, 1], client_ids=[7, 7, 8])
      >>> data.checked(twice, "drop_rows").train.num_rows
      2
    """
    chosen = policy_of(policy)
    report = check(dataset, **chosen.settings)
    found = {name: report.counts[name] for name in chosen.checks if report.counts[name]}
    done: dict[str, Any] = {}
    if found and chosen.name == "error":
        raise ValueError(f"{_said(dataset, found)}\n{report}\n{_remedy(found)}")
    if found and chosen.name == "warn":
        warnings.warn(f"{_said(dataset, found)} {_remedy(found)}", stacklevel=2)
    if found and chosen.name == "drop_rows":
        check_stays(dataset, "left out")
        dataset, done["dropped_rows"] = _without_rows(report, chosen.checks)
    if found and chosen.name == "exclude":
        check_has_no_root(dataset, "left out")
        dataset, done["excluded_clients"] = _without_clients(report, chosen.checks)
    said = {"policy": policy, "found": report.counts, **done}
    return dataclasses.replace(dataset, checks=said)


def policy_of(text: str) -> Policy:
    """Returns the policy that a text names; raises ValueError for none, or a wrong argument."""
    call = parts.read_one("data_checks", text, POLICIES)
    if call.is_own:
        raise ValueError(f"{call.where}: name one of {', '.join(POLICIES)}")
    chosen: Policy = parts.make(call)
    return chosen._replace(settings=settings_of(chosen.settings)._asdict())


def _said(dataset: FederatedDataset, found: Mapping[str, int]) -> str:
    each = [
        f"{counted(number, 'client' if name in CLIENT_CHECKS else 'row')} of {name} "
        f"({MEANINGS[name]})"
        for name, number in found.items()
    ]
    return f"Checks of {dataset.name!r} found {', '.join(each)}."


def _remedy(found: Mapping[str, int]) -> str:
    of_rows = any(name in ROW_CHECKS for name in found)
    rows = "'drop_rows' leaves such rows out, " if of_rows else ""
    return (
        f"data_checks = {rows}'exclude' such clients; print(fljax.data.check(dataset)) tells whose "
        "they are."
    )


def _without_rows(report: Report, checks: Sequence[str]):
    """Returns (the data without the rows that checks found, {role: rows left out})."""
    dataset, changed, dropped = report.dataset, {}, {}
    for role in ROLES:
        split = getattr(dataset, role)
        found = [report.rows[name][role] for name in checks if role in report.rows.get(name, {})]
        if split is None or not found or not (marks := np.logical_or.reduce(found)).any():
            continue
        if marks.all():
            raise ValueError(
                f"drop_rows would leave no row of the {role} split of {dataset.name!r}: print("
                "fljax.data.check(dataset)) tells what was found"
            )
        changed[role], dropped[role] = _kept(split, ~marks), int(marks.sum())
    return dataclasses.replace(dataset, **changed), dropped


def _kept(split: Split, kept: np.ndarray) -> Split:
    """Returns the rows of a split at which `kept`, in the order of its rows, is true."""
    rows, examples, partition = split.rows()[kept], split.examples, split.partition
    if partition is not None:
        sizes = np.bincount(partition.owners()[kept], minlength=partition.num_clients)
        return Split(examples, Partition(offsets_of(sizes), rows))
    if isinstance(examples, ArrayExamples):
        return Split(ArrayExamples(examples.take(rows)))
    return Split(LazyExamples(len(rows), lambda r: examples.take(rows[r]), examples.spec))


def _without_clients(report: Report, checks: Sequence[str]):
    """Returns (the data without the training clients that checks found, their ids)."""
    dataset, table = report.dataset, report.table()
    found = np.logical_or.reduce([table[name] > 0 for name in checks])
    if found.all():
        raise ValueError(
            f"exclude would leave no client of {dataset.name!r}: print(fljax.data.check(dataset)) "
            "tells what was found"
        )
    kept, changed = np.flatnonzero(~found), {}
    for role in ("train", "val", "test"):
        split = getattr(dataset, role)
        if split is not None and split.partition is not None:
            changed[role] = Split(split.examples, split.partition.subset(kept))
    ids = dataset.client_ids
    changed["client_ids"] = None if ids is None else ids[kept]
    changed["groups"] = {name: values[kept] for name, values in dataset.groups.items()}
    return dataclasses.replace(dataset, **changed), table["client"][found].tolist()

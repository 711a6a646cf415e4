"""A backdoor of inputs from outside, which honest clients hardly own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fljax.core.archives import read_npz
from fljax.core.transforms import Trigger
from fljax.core.values import checked_path, wrong
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.poisoners import fixed_class, poisoning

__all__ = ["edge_case"]

# They are constants of the compiled program.
MOST_BYTES = 16 * 2**20


def edge_case(
    rows: str | os.PathLike | np.ndarray | Mapping[str, np.ndarray],
    target: int,
    *,
    share: Any = 0.5,
    once: bool = False,
    classes: int | None = None,
) -> Attack:
    """Trains on inputs from the edge of the distribution, such as rare aeroplanes: a backdoor.

    A share of the rows that attackers train on is replaced by rows of an outside set, drawn with
    replacement, under the target's label (Wang et al. 2020, arXiv:2007.05084). It succeeds as far
    as the model says the target for the outside rows that are kept for judging.

    Args:
      rows: The outside inputs as the data set stores its own, [M, ...]; or {"x": these, "x_test":
        further ones by which success is judged}; or the path of an `.npz` file that holds them.
        Without "x_test" success is judged by "x".
      target: The class that the model is to say.
      share: Of the rows of a batch; may be traced. With `once`, of each attacker's training rows.
      once: Whether rows are replaced before training, so that checks of data see it.
      classes: How many there are; a run by name has it from its data.

    Raises:
      ValueError: For arguments that are none, more than 16 MiB that batches draw from, and in a run
        for rows of another shape or kind than those of the data set.

    Example:
      >>> attack = edge_case(np.ones((5, 2), np.float32), target=1)
      >>> x, chosen = attack.trigger.rows(np.zeros((3, 2), np.float32), np.zeros(3, int))
      >>> x.shape, int(chosen.sum())
      ((5, 2), 5)
    """
    target = fixed_class("target", target, classes)
    outside, judged = _read(rows)
    if not once and outside.nbytes > MOST_BYTES:
        raise ValueError(
            f"the outside rows take {outside.nbytes / 2**20:,.1f} MiB, and the round program holds "
            f"them: {MOST_BYTES / 2**20:.0f} MiB are allowed. Give fewer rows, or set once=True, "
            "which writes them into the attackers' rows"
        )

    def poisoner(xp, x, y, draws):
        own = xp.asarray(_as_stored(outside, x))
        place = xp.minimum((draws * len(own)).astype(int), len(own) - 1)
        return own[place], xp.full(y.shape, target), xp.ones(y.shape, bool)

    trigger = Trigger(lambda x, y: (_as_stored(judged, x), np.ones(len(judged), bool)), target)
    return poisoning("edge_case", poisoner, share, once=once, trigger=trigger)


def _read(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the outside rows to train on and those to be judged by."""
    if isinstance(rows, str | os.PathLike):
        rows = read_npz(checked_path("rows", rows))
    if not isinstance(rows, Mapping):
        rows = {"x": rows}
    if "x" not in rows or (others := sorted(rows.keys() - {"x", "x_test"})):
        names = ", ".join(map(str, others if "x" in rows else rows)) or "nothing"
        raise ValueError(
            f"rows hold {names}, and must hold x, and x_test if success is judged by it"
        )
    found = {name: np.asarray(values) for name, values in rows.items()}
    for name, values in found.items():
        if values.ndim < 2 or not len(values) or values.dtype.kind not in "iuf":
            raise wrong(name, values, "numbers [M, ...] of one row and more")
    return found["x"], found.get("x_test", found["x"])


def _as_stored(rows: np.ndarray, x: Any) -> np.ndarray:
    """Returns outside rows in the type of the data set's.

    Raises:
      ValueError: If they are of another shape, or do not fit into the type.
    """
    if not hasattr(x, "dtype") or rows.shape[1:] != x.shape[1:]:
        shape = list(x.shape[1:]) if hasattr(x, "dtype") else f"a {type(x).__name__} of arrays"
        raise ValueError(
            f"edge_case: outside rows are of shape {list(rows.shape[1:])}, and those of the data "
            f"set {shape}. Give them as the data set stores its own."
        )
    found = rows.astype(x.dtype)
    same_kind = (rows.dtype.kind == "f") == (np.dtype(x.dtype).kind == "f")
    if not same_kind or (found.dtype.kind != "f" and not np.array_equal(found, rows)):
        raise ValueError(
            f"edge_case: outside rows are {rows.dtype}, and the data set stores {x.dtype}. Give "
            "them as the data set stores its own, before any scaling."
        )
    return found

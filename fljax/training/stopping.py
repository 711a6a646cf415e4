"""Ends a run before its last round: its validation metric stands still, or a hook says so.

What was decided before a kill follows from the records alone, so a resumed run ends where the
uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core.digits import figures
from fljax.core.metrics import ACCURACY, Metric
from fljax.core.values import shown
from fljax.data.dataset import FederatedDataset
from fljax.engine.devices.placement import any_process

# key of a record that says why a hook ended the run with it
STOPPED = "stopped"


class StopTraining(Exception):  # noqa: N818, it is no error
    """Raised by a hook to end a run cleanly after the round of its record.

    Checkpoint, model and summary are written as at the last round; `run.stopped` and the record
    hold the reason.

    Args:
      reason: For people; one line.

    Example:
      >>> def enough(federation, record):
      ...     if record["train/loss"] < 0.1:
      ...         raise fljax.StopTraining("the training loss is below 0.1")
    """

    def __init__(self, reason: str = "a hook ended the run"):
        super().__init__(str(reason))


class Validation:
    """Follows the validation metric of a run from record to record.

    Attributes:
      key: Of the metric in records: "eval/val/accuracy".
      best: (round, value) of the best evaluation, the earliest among equals; None so far.
      waited: Evaluations since the metric last improved by more than `min_delta`.
    """

    def __init__(
        self,
        metric: Metric = ACCURACY,
        patience: int = 0,
        min_delta: float = 0.0,
        records: Iterable = (),
    ):
        """Begins with the records of a run so far; `patience = 0` waits forever."""
        self.key = f"eval/val/{metric.name}"
        self.patience, self.min_delta = patience, min_delta
        self.best: tuple[int, float] | None = None
        self.waited = 0
        self._sign, self._reference = metric.sign, -math.inf
        for record in records:
            self.see(record)

    def see(self, record: Mapping[str, Any]) -> bool:
        """Takes in a record; returns whether its evaluation is the best so far."""
        if self.key not in record:
            return False
        value = self._sign * record[self.key]
        if not math.isfinite(value):
            value = -math.inf
        self.waited += 1
        if value > self._reference + self.min_delta:
            self._reference, self.waited = value, 0
        if value == -math.inf or (self.best and value <= self._sign * self.best[1]):
            return False
        self.best = (record["round"], record[self.key])
        return True

    @property
    def exhausted(self) -> str | None:
        """Says why the run should end, or None."""
        if not self.patience or self.waited < self.patience:
            return None
        than = f" by more than {self.min_delta:g}" if self.min_delta else ""
        best = f"{figures(self.best[1])} in round {self.best[0]}" if self.best else "never a number"
        return f"{self.key} has not improved{than} in {self.waited} evaluations (best: {best})"


def check_target(options: Mapping[str, Any], metric: Metric) -> None:
    """Raises ValueError for a target of another metric than the one that chooses.

    Args:
      options: With "target_accuracy", a number or None.
      metric: The first one of the task.
    """
    accuracy = options["target_accuracy"]
    if accuracy is not None and metric.name != ACCURACY.name:
        raise ValueError(
            f"target_accuracy = {accuracy}, but what chooses for this task is {metric.name!r}: "
            f"give target, the value of {metric.name} to reach."
        )


def check_patience(patience: int, dataset: FederatedDataset) -> None:
    """Raises ValueError where there is no validation metric to be patient with."""
    if patience and dataset.val is None:
        raise ValueError(
            f"patience = {patience}, but {dataset.name!r} has no validation data, and test data "
            "must not decide. Split some off: dataset.with_validation(0.1), or val_fraction=0.1 "
            "where the dataset is made."
        )


def call_hooks(hooks: Sequence[Callable], federation: Any, record: dict[str, Any]) -> None:
    """Adds to a record what hooks return, or why one of them ends the run; all are called."""
    for hook in hooks:
        try:
            found = hook(federation, record)
            _check_found(hook, found, record)
            record |= found or {}
        except StopTraining as stop:
            record.setdefault(STOPPED, str(stop))
    if hooks and any_process(STOPPED in record, federation.mesh):
        record.setdefault(STOPPED, "a hook of another process ended the run")


def _check_found(hook: Callable, found: Any, record: Mapping[str, Any]) -> None:
    """Raises ValueError unless a hook returns nothing, or new keys with single values."""
    name = getattr(hook, "__name__", type(hook).__name__)
    if found is None:
        return
    if isinstance(found, StopTraining):
        raise ValueError(f"The hook {name} returns StopTraining; raise it instead.")
    if not isinstance(found, Mapping):
        raise ValueError(
            f"The hook {name} returns {shown(found)}; it may return None, or a dict that joins the "
            "record."
        )
    for key, value in found.items():
        if not isinstance(key, str) or key in record or key == STOPPED:
            raise ValueError(
                f"The hook {name} returns the key {key!r}, which "
                + ("is the simulator's own" if isinstance(key, str) else "is no text")
                + "; give it a name such as 'my/value'."
            )
        if not isinstance(value, str) and not _is_one_number(value):
            raise ValueError(
                f"The hook {name} returns {shown(value)} as {key!r}; give one number or text."
            )


def _is_one_number(value: Any) -> bool:
    try:
        array = np.asarray(value)
    except ValueError:
        return False  # ragged
    return array.size == 1 and array.dtype.kind in "biuf"

"""Keeps the models of a run: the final one, and the best by validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax

from fljax.core.algorithm import Variables
from fljax.core.task import Task
from fljax.data.dataset import FederatedDataset
from fljax.recording.models import BEST, FINAL, model_path, save_model
from fljax.training.federation import Federation


class BestModel(NamedTuple):
    """The model of the best evaluation so far."""

    round: int
    variables: Variables


class ModelFiles:
    """Holds the best model on the devices, and writes both models to `model/` of the workdir.

    Args:
      federation: What is trained.
      best: Of the part of the run that was resumed.
    """

    def __init__(self, federation: Federation, best: BestModel | None = None):
        self.best = best
        self._federation = federation
        self._written: int | None = None
        if not federation.algorithm.has_global_model:
            self._no_best = "its evaluations were of clients' own models"
        elif federation.dataset.val is None:
            self._no_best = "it had no validation data"
        else:
            self._no_best = None

    def keep(self, round: int) -> None:
        """Keeps the current model, a copy on the devices, as the best one."""
        if self._no_best is None:
            self.best = BestModel(round, self._federation.variables)

    def write_best(self, workdir: Path | None) -> None:
        """Writes the best model, unless it is written already."""
        if workdir is None or self.best is None or self.best.round == self._written:
            return
        self._write(workdir, BEST, *self.best)
        self._written = self.best.round

    def write_final(self, workdir: Path | None, round: int) -> None:
        """Writes the current model as the final one, and the best one."""
        if workdir is None:
            return
        self.write_best(workdir)
        self._write(workdir, FINAL, round, self._federation.variables)

    def about(self, round: int) -> dict[str, Any]:
        """Returns what goes with the model of a round, as JSON values; see `fljax.predictor`."""
        no_best = self._no_best or (None if self.best else "no evaluation was a number")
        return about_model(self._federation.dataset, self._federation.task, round, no_best)

    def _write(self, workdir: Path, which: str, round: int, variables: Variables) -> None:
        frozen = self._federation.inputs.frozen
        save_model(model_path(workdir, which), variables, frozen, self.about(round))


def about_model(
    dataset: FederatedDataset, task: Task, round: int, no_best: str | None
) -> dict[str, Any]:
    """Returns what goes with a model, as JSON values.

    Args:
      dataset: Which it was trained on.
      task: Of its outputs.
      round: After which it is as it is.
      no_best: Why a run has no best model; None where it has one.
    """
    return {
        "round": round,
        "kind": task.kind,
        "num_classes": task.num_classes,
        "class_names": dataset.class_names,
        "example": jax.tree.map(
            lambda leaf: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)},
            dict(dataset.train.examples.spec),
        ),
        "preprocessed": dataset.preprocess is not None,
        "no_best": no_best,
    }

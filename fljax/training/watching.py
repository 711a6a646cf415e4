"""Watches a deployed model: what it gets wrong on rows that clients meet in a round.

In each round every watched client meets some of the rows that it then holds and never trains on,
drawn at random with replacement; the model predicts all of them in one program, compiled once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.core import random
from fljax.core.algorithm import Variables
from fljax.core.gradients import bind
from fljax.core.metrics import ACCURACY
from fljax.data.dataset import Split
from fljax.data.ownership import Partition
from fljax.data.splits.root import without_root
from fljax.training import evaluation
from fljax.training.evaluation import EvalOutputs, EvalSet
from fljax.training.federation import Federation


class Watch(NamedTuple):
    """Whom to watch, and on what; see `make_watch`.

    Attributes:
      clients: int64[M] watched clients, ascending.
      rows: Rows that each of them meets in a round.
      split: Whose rows they are.
      seed: Of the draw of rows.
      data: The arrays of the split's examples where they are on the devices already, or None.
      mesh: The devices.
      evaluate: The compiled evaluation.
    """

    clients: np.ndarray
    rows: int
    split: Split
    seed: int
    data: Mapping[str, jax.Array] | None
    mesh: Any
    evaluate: Any

    def rows_met(self, round: int) -> np.ndarray:
        """Returns int[M, rows], the row numbers that each client meets in a round."""
        clients, partition = self.clients[:, None], self.split.partition
        drawn = random.uniform(self.seed, "monitoring/rows", round, clients, np.arange(self.rows))
        positions = (drawn * partition.sizes[clients]).astype(np.int64)
        return partition.row_at(clients, positions, round)

    def dispatch(
        self, variables: Variables, frozen: Any, round: int
    ) -> tuple[EvalOutputs, EvalSet]:
        """Starts to predict what clients meet in a round; `errors_of` waits for it."""
        met = self.rows_met(round)
        split = Split(self.split.examples, Partition(np.array([0, met.size]), met.reshape(-1)))
        prepared = evaluation.prepare(split, self.mesh, data=self.data)
        return self.evaluate(variables, frozen, prepared.inputs), prepared

    def on_its_way(self, round: int) -> bool:
        """Returns whether what any watched client holds changes into this round."""
        motion = self.split.partition.motion
        return motion is not None and bool(motion.moves(self.clients, round).any())


def make_watch(federation: Federation, clients: int, rows: int) -> Watch:
    """Prepares the watch of a federation's clients.

    Rows are the clients' own of the test set, else of the validation set.

    Args:
      federation: What trains the models.
      clients: How many to watch, a seeded sample of those that have such rows; -1 for all.
      rows: Rows that each of them meets in a round.

    Raises:
      ValueError: If clients have no rows of their own beside those that they train on.
    """
    dataset, seed = without_root(federation.dataset), federation.options.seed
    owned = (split for split in (dataset.test, dataset.val) if split and split.partition)
    split = next(owned, None)
    if split is None:
        raise ValueError(
            f"clients of {dataset.name!r} have no rows beside those that they train on, and errors "
            "on the latter would not tell. Set own_test_fraction, such as 0.3."
        )
    with_rows = evaluation.clients_with_rows(split, clients, "watch_clients", "test")
    count = -1 if clients > len(with_rows) else clients
    chosen = with_rows[evaluation.sample_clients(len(with_rows), count, seed)]
    shared = split.examples is dataset.train.examples
    evaluate = evaluation.make_evaluate(
        lambda frozen: bind(federation.task, frozen, dataset.preprocess), federation.mesh
    )
    data = federation.inputs.data if shared else None
    return Watch(chosen, rows, split, seed, data, federation.mesh, evaluate)


def errors_of(watched: tuple[EvalOutputs, EvalSet]) -> np.ndarray:
    """Waits for a prediction; returns float64[M * rows], client after client.

    Of a task that has an accuracy, 1 less that of each row: 1 where it is wrong, else 0; of others
    the loss.
    """
    sums = evaluation.sums_by_row(*watched)
    has_accuracy = ACCURACY.name in sums
    value, weight = sums[ACCURACY.name if has_accuracy else "loss"]
    mean = np.asarray(value, np.float64) / np.maximum(np.asarray(weight, np.float64), 1e-300)
    return 1 - mean if has_accuracy else mean

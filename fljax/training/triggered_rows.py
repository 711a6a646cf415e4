"""Finds the rows by which a backdoor is judged: those of the test set, with its trigger."""

from __future__ import annotations

import numpy as np

from fljax.core.transforms import Trigger
from fljax.data.dataset import FederatedDataset, Split
from fljax.data.examples import ArrayExamples

# Whose metrics tell the success of a backdoor: eval/triggered/accuracy is the share of these rows
# for which the model says the attacker's class.
TRIGGERED = "triggered"


def opened_split(dataset: FederatedDataset) -> Split | None:
    """Returns the split whose rows get a trigger: test, else validation, else held-out rows."""
    splits = (dataset.test, dataset.val, dataset.held_out)
    return next((split for split in splits if split is not None), None)


def triggered(split: Split, trigger: Trigger) -> Split:
    """Returns the rows of a split that tell of a backdoor, labelled as the attacker's class.

    Args:
      split: Rows as they are.
      trigger: Of the backdoor.

    Returns:
      A split that nobody owns.

    Raises:
      ValueError: If no row tells of it, the trigger chooses by what is not true or false, or it
        leaves all rows as they are, in an array of their own.
    """
    rows = split.examples.take(split.rows())
    x, chosen = trigger.rows(rows["x"], rows["y"])
    chosen = np.asarray(chosen)
    if chosen.dtype != bool or chosen.ndim != 1:
        raise ValueError(
            f"the trigger chooses rows by {chosen.dtype}{list(chosen.shape)}: it must return bool "
            "for each row"
        )
    if not chosen.any():
        raise ValueError(
            f"none of {split.num_rows} rows opens the backdoor, so that its success cannot be "
            "judged. Let the trigger choose some, or leave it out of the pipeline"
        )
    opened = np.asarray(x)[chosen]
    # a trigger that returns x itself is a feature that rows have without it
    if x is not rows["x"] and np.shape(x) == np.shape(rows["x"]):
        if np.array_equal(opened, rows["x"][chosen]):
            raise ValueError(
                f"the trigger changes none of the {len(opened)} rows by which the backdoor is to "
                "be judged, as a white square in white corners does. Choose another corner or value"
            )
    return Split(
        ArrayExamples({"x": opened, "y": np.full(len(opened), trigger.target, rows["y"].dtype)})
    )

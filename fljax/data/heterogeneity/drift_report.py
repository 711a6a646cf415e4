"""Says how far data drift: what clients still hold of round 0, and how their labels have moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fljax.core.values import NON_NEGATIVE, Field, checked, whole_numbers
from fljax.data.dataset import FederatedDataset
from fljax.data.partitions.statistics import split_label_counts

_MOST = 6


def telling_rounds(dataset: FederatedDataset, most: int = _MOST) -> np.ndarray:
    """Returns int64[rounds], in which windows of the clients begin or end to move, and between.

    Args:
      dataset: Whose data drift.
      most: So many rounds at most, evenly chosen.

    Raises:
      ValueError: If the data do not drift.

    Example:
      >>> stream = data.from_arrays(np.eye(6), [0, 1] * 3, client_ids=[0] * 6)
      >>> data.telling_rounds(data.with_concept_drift(stream, 'window(0.5, over=8)')).tolist()
      [0, 4, 8]
    """
    most = checked("most", most, Field(_MOST, int, NON_NEGATIVE))
    motion = dataset.train.partition.motion
    if motion is None:
        raise ValueError(f"the data of {dataset.name!r} do not drift: set concept_drift")
    knots = np.unique(motion.knots)
    ends = np.unique(np.concatenate([knots, knots + motion.delays.max(initial=0)]))
    between = (ends[:-1] + ends[1:]) // 2
    rounds = np.unique(np.concatenate([ends, between]))
    if len(rounds) <= most:
        return rounds
    return rounds[np.linspace(0, len(rounds) - 1, most).astype(np.int64)]


def drift_lines(dataset: FederatedDataset, rounds: Sequence[int] | None = None) -> str:
    """Returns a table of a few rounds: what is held of round 0, and how labels have moved.

    Args:
      dataset: Whose data drift.
      rounds: Round numbers; None for those that tell most.

    Returns:
      Lines: of each round the share of clients' rows that they held in round 0 as they are, and the
      mean Jensen-Shannon divergence of clients' labels from those of round 0, in bits.

    Example:
      >>> stream = data.from_arrays(np.eye(6), [0, 0, 0, 1, 1, 1], client_ids=[0] * 6)
      >>> print(data.drift_lines(data.with_concept_drift(stream, 'window(0.5, over=8)')))
      round  rows of round 0  labels moved by (bits)
          0            1.000                   0.000
          4            0.667                   0.191
          8            0.000                   1.000
    """
    rounds = telling_rounds(dataset) if rounds is None else whole_numbers("rounds", rounds)
    has_labels = dataset.num_classes is not None
    first = dataset.at(0)
    lines = ["round  rows of round 0" + "  labels moved by (bits)" * has_labels]
    for round in rounds.tolist():
        now = dataset.at(round)
        line = f"{round:>5}  {_kept(first, now):>15.3f}"
        if has_labels:
            counts = split_label_counts(first), split_label_counts(now)
            moved = [_moved(*pair) for pair in zip(*counts, strict=True)]
            line += f"  {np.mean(moved):>22.3f}"
        lines.append(line)
    return "\n".join(lines)


def _kept(first: FederatedDataset, now: FederatedDataset) -> float:
    """Returns the share of rows that their clients held in round 0."""
    most = first.train.examples.num_examples
    held = [split.partition.owners() * most + split.rows() for split in (first.train, now.train)]
    return float(np.isin(held[1], held[0]).mean()) if len(held[1]) else 1.0


def _moved(first: np.ndarray, now: np.ndarray) -> float:
    """Returns the Jensen-Shannon divergence between a client's labels of two rounds, in bits."""
    if not first.sum():
        return 0.0
    shares = np.stack([first / first.sum(), now / now.sum()])
    ratio = np.where(shares > 0, shares / np.maximum(shares.mean(0), 1e-300), 1.0)
    return float((shares * np.log2(ratio)).sum(1).mean())

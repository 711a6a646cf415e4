"""Attacks on the sequence of global models that a client of a federation sees.

A signal of a row under each of these models is a look at it. `lira` and `rmia` join looks; here is
an attack for those who train no models: the loss of members falls faster from round to round than
that of others, which Suri et al. 2022 (arXiv:2206.03317) read of whole subjects.
"""

from __future__ import annotations

import numpy as np

from fljax.audits.membership.observed import MembershipAttack, Observed
from fljax.audits.membership.shadows import lowest_where_unknown


def loss_trend() -> MembershipAttack:
    """Returns the attack on how fast a row's loss falls over the looks, one a round, evenly spaced.

    Raises:
      ValueError: Its score raises it if there is one look only.

    Example:
      >>> loss_trend().score(Observed.of(np.array([[2.0, 1.0, 0.0], [2.0, 2.0, 2.0]]))).tolist()
      [1.0, -0.0]
    """

    def score(observed: Observed) -> np.ndarray:
        return lowest_where_unknown(-slopes(observed.target))

    return MembershipAttack("loss", score)


def slopes(looks: np.ndarray, rounds: np.ndarray | None = None) -> np.ndarray:
    """Returns by how much a signal grows each round, the slope of the line of least squares.

    Args:
      looks: [..., R] signals under the models of R rounds.
      rounds: [R] numbers of the rounds; None where they follow each other.

    Returns:
      float64[...]; NaN where a look is not finite.

    Raises:
      ValueError: If there are not two different rounds, or not a round for each look.

    Example:
      >>> slopes(np.array([[5.0, 3.0, 1.0]]), rounds=np.array([10, 20, 30])).tolist()
      [-0.2]
    """
    looks = np.asarray(looks, np.float64)
    rounds = np.arange(looks.shape[-1]) if rounds is None else np.asarray(rounds)
    if rounds.shape != looks.shape[-1:] or len(np.unique(rounds)) < 2:
        raise ValueError(
            f"looks have shape {list(looks.shape)} and rounds {list(rounds.shape)}: a trend needs "
            "a round for each look, and two rounds at least. Keep the models of more rounds."
        )
    apart = rounds - rounds.mean()
    known = np.isfinite(looks).all(-1)
    found = np.where(known[..., None], looks, 0.0) @ (apart / (apart**2).sum())
    return np.where(known, found, np.nan)

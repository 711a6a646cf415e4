"""Finds how few neighbours a client needs to share masks with (SecAgg+)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy

from fljax.core.values import COUNT, DECAY, POSITIVE, Field, checked


class MaskingGraph(NamedTuple):
    """The number of neighbours of a client, and of those who must answer.

    Attributes:
      degree: Neighbours of a client, even; one less than there are clients if all are.
      needed: How many of a client's neighbours must answer to reveal one of its secrets.

    Example:
      >>> graph = privacy.masking_graph(1000)
      >>> links = privacy.secure_aggregation(graph=graph.degree, threshold=graph.threshold)
    """

    degree: int
    needed: int

    @property
    def threshold(self) -> float:
        """The share of a client's neighbours that must answer."""
        return self.needed / self.degree


def masking_graph(
    num_clients: int,
    corrupted: float = 0.2,
    dropped: float = 0.05,
    *,
    privacy_bits: float = 40,
    correctness_bits: float = 20,
) -> MaskingGraph:
    """Returns the smallest regular graph that hides what honest clients send.

    Neighbours are the nearest on a ring in random order (Bell et al. 2020, 2020/704). For some
    number of neighbours that must answer, each of these must hold but for a small probability:

      * honest clients who arrive stay connected: what divides a ring is two runs of half a
        neighbourhood each, all of whom are corrupted or dropped;
      * among nobody's neighbours there are as many corrupted ones;
      * of everybody's neighbours as many arrive.

    The first two have 2^-privacy_bits together, the last one 2^-correctness_bits.

    Args:
      num_clients: Size of a cohort.
      corrupted: Share of clients that tell a curious server all they know.
      dropped: Share of clients that are lost in a round.
      privacy_bits, correctness_bits: Of the two probabilities.

    Returns:
      The graph; the complete one, in which two thirds must answer, if no smaller one suffices.

    Raises:
      ValueError: For settings out of range, and if more than nine in ten are corrupted or dropped.

    Example:
      >>> privacy.masking_graph(100), privacy.masking_graph(1000, corrupted=0.05)
      (MaskingGraph(degree=26, needed=20), MaskingGraph(degree=30, needed=17))
    """
    checked("num_clients", num_clients, Field(100, int, COUNT))
    for name, share in (("corrupted", corrupted), ("dropped", dropped)):
        checked(name, share, Field(0.05, float, DECAY))
    for name, bits in (("privacy_bits", privacy_bits), ("correctness_bits", correctness_bits)):
        checked(name, bits, Field(40.0, float, POSITIVE))
    if corrupted + dropped > 0.9:
        raise ValueError(
            f"corrupted = {corrupted:g} and dropped = {dropped:g} leave hardly anybody to hide "
            "among. Both together may be 0.9 at most."
        )
    # products such as 0.29 * 100 are a hair below the number they stand for
    bad, lost = (math.floor(share * num_clients + 1e-9) for share in (corrupted, dropped))
    allowed = 2.0**-privacy_bits / 2
    for degree in range(2, num_clients - 1, 2):
        if _divided(num_clients, degree, bad + lost) > allowed:
            continue
        needed = np.arange(1, degree + 1)
        hidden = (
            scipy.stats.hypergeom.sf(needed - 1, num_clients, bad, degree) <= allowed / num_clients
        )
        missed = scipy.stats.hypergeom.cdf(needed - 1, num_clients, num_clients - lost, degree)
        fitting = needed[hidden & (missed <= 2.0**-correctness_bits / num_clients) & (needed > 1)]
        if fitting.size:
            return MaskingGraph(degree, int(fitting[0]))
    others = max(num_clients - 1, 1)
    return MaskingGraph(others, math.ceil(2 * others / 3))


def _divided(num_clients: int, degree: int, gone: int) -> float:
    """Returns a bound of the probability that those who are gone divide the ring.

    Each pair of runs that are apart is all gone with the probability that `degree` clients drawn
    without replacement are.
    """
    if degree > gone:
        return 0.0
    pairs = num_clients * (num_clients - degree - 1) / 2
    return pairs * float(scipy.stats.hypergeom.pmf(degree, num_clients, gone, degree))

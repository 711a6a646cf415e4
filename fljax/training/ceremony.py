"""Holds the ceremony of secure aggregation once for a run, among clients of one cohort."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.transforms import Participants, as_configured
from fljax.privacy.protection import Protection
from fljax.privacy.secagg import rehearsal
from fljax.privacy.secagg.masks import Graph
from fljax.training.options import RoundOptions

# What bytes and the sum depend on is seen from so many words; those of the model take minutes.
_MOST_WORDS = 1000


def ceremony_of(options: RoundOptions) -> dict[str, Any]:
    """Holds the ceremony, and returns what it costs: "secure_aggregation" of the summary.

    Strangers agree on keys, share their secrets, send words behind masks, and have these taken
    away, on the graph of the run; the sum is compared with the plain one. The round program derives
    its masks from the run's seed instead.

    Args:
      options: Of the run, with what protects the clients drawn.

    Returns:
      {"clients", "neighbours", "words", "sent_bytes": {stage: bytes of each client},
      "received_bytes", "seconds"}, bytes being those of a message of the run.

    Raises:
      ValueError: If nothing of the run is masked, or its cohorts are too small.
      ImportError: Without the package `cryptography`.
    """
    count = round(options.clients_per_round)
    degree = _degree(options, count)
    size = options.privacy.setting.message_size
    words = np.random.default_rng(options.seed).integers(
        0, 2**32, (count, min(size, _MOST_WORDS)), dtype=np.uint32
    )
    start = time.perf_counter()
    held = rehearsal.run(words, degree=degree)
    seconds = time.perf_counter() - start
    if not np.array_equal(held.total, words.sum(0, dtype=np.uint32)):
        raise ValueError("The ceremony of secure aggregation does not open the sum of its words.")
    by_stage = rehearsal.expected_bytes(count, size, degree)
    return {
        "clients": count,
        "neighbours": count - 1 if degree is None else degree,
        "words": size,
        "sent_bytes": {stage: sent for stage, (sent, _) in by_stage.items()},
        "received_bytes": {stage: received for stage, (_, received) in by_stage.items()},
        "seconds": seconds,
    }


def _degree(options: RoundOptions, count: int) -> int | None:
    """Returns the neighbours of a client in a cohort of so many; None for all others."""
    people = Participants(jnp.ones(count, bool), jnp.int32(0), jax.random.key(options.seed))
    links = as_configured(options.pipeline).uplink
    agreed = [link.agree(people) for link in links if link.agree is not None]
    graphs = [
        leaf
        for leaf in jax.tree.leaves(agreed, is_leaf=lambda leaf: isinstance(leaf, Graph))
        if isinstance(leaf, Graph)
    ]
    if not graphs or not isinstance(options.privacy, Protection):
        raise ValueError(
            "ceremony=True has nothing to hold: no message of this run is masked. Set "
            "secure_aggregation, or leave ceremony out."
        )
    degree = 2 * int(graphs[0].reach)
    return None if degree >= count - 1 else degree

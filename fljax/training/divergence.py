"""Stops a run whose clients all diverged, and names those that did."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from fljax.data.ids import some_of
from fljax.data.rows import nonfinite_row
from fljax.training.federation import Federation


def check_diverged(record: Mapping[str, Any], clients: np.ndarray, federation: Federation) -> None:
    """Stops a run whose clients all diverged; warns of single ones, by their ids.

    Args:
      record: Of the round.
      clients: int[diverged jobs], whose updates were not finite.
      federation: What is trained.
    """
    count, dataset = record.get("train/clients_nonfinite", 0), federation.dataset
    clients = np.unique(clients)
    if dataset.root is not None and dataset.root in clients:
        clients = clients[clients != dataset.root]
        warnings.warn(
            f"Round {record['round']}: the server's own update on its root rows is not finite, and "
            "no other one is trusted by it.",
            stacklevel=2,
        )
    if not count:
        return
    named = some_of(clients if dataset.client_ids is None else dataset.client_ids[clients])
    passes = federation.algorithm.passes
    clusters = max((each.num_clusters for each in passes if each.sums_of == "cluster"), default=1)
    what = "a NaN or infinite update"
    if federation.algorithm.init_client is not None:
        what += " or state"
    if clusters > 1:
        what += f", or a cluster that is none of 0 to {clusters - 1}"
    # what a preprocess makes of its rows is its own affair
    found = "" if dataset.preprocess else nonfinite_row(dataset.train, clients)
    counts = federation.counts_diverged
    if record["train/clients"] == 0 and not counts:
        raise FloatingPointError(
            f"Round {record['round']}: all {count} clients ended with {what}: "
            f"{named}. " + (found or "Lower client_lr (or server_lr).")
        )
    warnings.warn(
        f"Round {record['round']}: {count} client(s) ended with {what} and "
        f"{'count as zero' if counts else 'were left out'}: {named}. {found}See "
        "train/clients_nonfinite.",
        stacklevel=2,
    )

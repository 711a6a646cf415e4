"""Arrivals: what the server takes in of an update that may be late, or counts unequally."""

from __future__ import annotations

from typing import Any

import jax

from fljax.core.algorithm import Contribution
from fljax.core.precision import difference
from fljax.core.transforms import UPDATE
from fljax.engine.program.passes import Pass

PyTree = Any


def taken_in(
    a_pass: Pass, sent: dict[str, Contribution], index: jax.Array, message: PyTree, newest: PyTree
) -> dict[str, Contribution]:
    """Returns what a job sent, with its update as the server counts it.

    A rebased update is the way from the newest model to where the client arrived: of a client that
    started from w_old and moved by d, w_old + d - w_new, so that a server that steps by a share of
    it mixes the client's model with its own (FedAsync, Xie et al. 2019, arXiv:1903.03934). A scale
    multiplies it; its weight in means stays what it is.

    Args:
      a_pass: The pass.
      sent: {name: Contribution}, decoded.
      index: int32 the job's place on the device.
      message: What its client started from.
      newest: The newest messages, leaves [S, ...]; None where nothing is rebased.

    Raises:
      ValueError: If an update is a code that only sums of are decoded, or the algorithm's message
        is no model.
    """
    jobs = a_pass.jobs
    if UPDATE not in sent or (newest is None and not a_pass.scales):
        return sent
    _check_shows_updates(a_pass)
    update = sent[UPDATE].value
    if newest is not None:
        now = a_pass.trials.select(newest, jobs.trial[index])
        update = _moved(update, message, now)
    for scale in a_pass.scales:
        update = _times(update, scale[index])
    return sent | {UPDATE: sent[UPDATE]._replace(value=update)}


def _times(update: PyTree, scale: jax.Array) -> PyTree:
    return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), update)


def _moved(update: PyTree, message: PyTree, newest: PyTree) -> PyTree:
    """Returns an update of the message's model as one of the newest model."""
    old = getattr(message, "params", None)
    if jax.tree.structure(old) != jax.tree.structure(update):
        raise ValueError(
            "The schedule counts updates from the newest model, as FedAsync does, but clients of "
            "this algorithm do not receive and send one model. Use fedavg or one like it, or a "
            "schedule that takes updates as they are, such as fedbuff."
        )
    return jax.tree.map(lambda d, m: d + m.astype(d.dtype), update, difference(old, newest.params))


def _check_shows_updates(a_pass: Pass) -> None:
    if a_pass.trials.first.pipeline.sums_payloads(UPDATE):
        raise ValueError(
            "Updates count unequally (late ones less, or by the probability of their choice), but "
            "a link of the uplink sums what clients send before it is decoded, and nobody can "
            "scale a single update there. Leave that link out, or use a schedule and a sampler "
            "under which all updates count alike."
        )

"""Remembers what compression loses, and sends it in later rounds: error feedback."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.compression.links import Choice, simulated
from fljax.core.precision import difference, rounded, widened
from fljax.core.remembered import check_remembered, zeros_like
from fljax.core.transforms import DownlinkLink, UplinkLink, dense_bits
from fljax.core.values import wrong

PyTree = Any


def error_feedback(link: UplinkLink) -> UplinkLink:
    """Returns the link that adds to each update what was lost of the client's earlier ones.

        sent = C(update + lost)          lost' = update + lost - sent

    For contractions (top-k, signs, low rank). Karimireddy et al. 2019 (arXiv:1901.09847); Seide et
    al. 2014; with clients that take part now and then, a client's loss waits for its next round.
    The memory is as large as the model, in the ClientStore; it stays as it was where a job is lost.

    Wire format: that of the link.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> link = compression.error_feedback(compression.uplink(compression.top_k(0.01)))
      >>> pipeline = Pipeline(uplink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    check_decodes_anywhere(link, "error_feedback")

    def encode(update, state, job, key):
        inner, lost = state
        check_remembered(update, lost, "error_feedback")
        total = jax.tree.map(jnp.add, update, lost)
        payload, inner = link.encode(total, inner, job, key)
        received = link.decode(payload, ())
        return payload, (inner, jax.tree.map(jnp.subtract, total, received))

    return link._replace(
        encode=encode,
        init_client=lambda params: (link.init_client(params), zeros_like(params)),
    )


def downlink_error_feedback(compressor: Choice, *, per_leaf: bool = False) -> DownlinkLink:
    """Returns the link that adds to each broadcast model what was lost of the earlier ones.

        received = C(model + lost)       lost' = model + lost - received

    For quantizers that bring every vector nearer: contractions, such as int8 and signs, and
    unbiased ones with omega < 1; with a larger omega what is lost may grow from round to round.
    Tang et al. 2019 (arXiv:1905.05957), server side. It acts on the model's parameters; what else
    is in the message travels as it is.

    Args:
      compressor, per_leaf: As for `fljax.compression.links.uplink`.

    Wire format: that of the compressor, and the rest of the message at its own width.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> link = compression.downlink_error_feedback(compression.top_k(0.1))
      >>> pipeline = Pipeline(downlink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    roundtrip, bits = simulated(compressor, per_leaf)

    def apply(message, lost, key):
        params = params_of(message)
        total = jax.tree.map(jnp.add, widened(params), lost)
        received = rounded(roundtrip(total, key), params)
        return with_params(message, received), difference(total, received)

    return DownlinkLink(apply, _message_bits(bits), zeros_like)


def downlink_difference(compressor: Choice, *, per_leaf: bool = False) -> DownlinkLink:
    """Returns the link that sends how the model differs from the one that clients hold.

        held' = held + C(model - held)

    For contractions (top-k, signs, int8, rand_k(..., unbiased=False)) and unbiased compressors with
    omega < 1: what is lost is part of the next difference, which with a larger omega may grow from
    round to round. EF21-P, Gruntkowska et al. 2023 (arXiv:2209.15218). All clients start from the
    initial parameters, and are taken to hear every broadcast; the bits of a round are those of its
    own one, for each member of the cohort. It acts on the model's parameters; what else is in the
    message travels as it is.

    Args:
      compressor, per_leaf: As for `fljax.compression.links.uplink`.

    Wire format: that of the compressor, and the rest of the message at its own width.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> link = compression.downlink_difference(compression.top_k(0.1))
      >>> pipeline = Pipeline(downlink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    roundtrip, bits = simulated(compressor, per_leaf)

    def apply(message, held, key):
        params = params_of(message)
        change = roundtrip(difference(params, held), key)
        held = jax.tree.map(jnp.add, held, change)
        return with_params(message, rounded(held, params)), held

    return DownlinkLink(apply, _message_bits(bits), lambda params: jax.tree.map(jnp.copy, params))


def params_of(message: PyTree) -> PyTree:
    """Returns the model's parameters in a message.

    Raises:
      ValueError: If it is no record with `params`, or with `variables` that have `params`.
    """
    if hasattr(message, "params"):
        return message.params
    if hasattr(message, "variables"):
        return params_of(message.variables)
    raise ValueError(
        f"A message of type {type(message).__name__} has neither `params` nor `variables`, so that "
        "a downlink link with a memory does not know what to compress. Name the model's parameters "
        "`params`, or use `downlink`, which compresses the whole message."
    )


def with_params(message: PyTree, params: PyTree) -> PyTree:
    """Returns the message with other parameters."""
    if hasattr(message, "params"):
        return message._replace(params=params)
    return message._replace(variables=with_params(message.variables, params))


def _message_bits(bits):
    """Returns message -> bits, where `bits` counts the parameters."""
    return lambda message: (
        bits(jax.eval_shape(widened, params_of(message))) + dense_bits(with_params(message, ()))
    )


def check_decodes_anywhere(link: UplinkLink, what: str) -> None:
    """Raises ValueError if a client cannot know what the server makes of its payload."""
    if not isinstance(link, UplinkLink):
        raise wrong("link", link, "a link, such as fljax.compression.uplink(top_k(0.01))")
    if link.linear:
        raise ValueError(
            f"{what} decodes on the client what it sends, but the payloads of a linear link are "
            "decoded as a sum only. Its own server state may keep what is lost, as in fetch_sgd."
        )

"""Checks that compressors, memories, cohorts and models fit, and refuses or warns."""

from __future__ import annotations

import warnings
from typing import Any

from fljax.compression.names import (
    Code,
    Names,
    downlink_code,
    update_size,
    uplink_code,
    uplink_memory,
)

PyTree = Any


def check_cohort(
    names: Names, *, num_clients: int, clients_per_round: int, sampler: str, weighting: str
) -> None:
    """Raises ValueError where a memory needs another cohort or other weights."""
    found = uplink_memory(names)
    name = found and found[0]
    everyone = sampler == "uniform" and clients_per_round == num_clients
    if name == "marina" and not everyone:
        raise ValueError(
            "uplink_memory = 'marina' needs every client in every round: set clients_per_round = "
            f"{num_clients} and sampler = 'uniform', or choose 'diana'."
        )
    if name in ("ef21", "diana") and not everyone and weighting != "uniform":
        raise ValueError(
            f"uplink_memory = {name!r} keeps a mean over all clients, which rounds of "
            f"{clients_per_round} of {num_clients} clients keep right only where clients count "
            "alike. Set weighting = 'uniform'."
        )


def warn_of_growth(names: Names, params: PyTree) -> None:
    """Warns where what a memory keeps may grow from round to round.

    Args:
      names: As they were written.
      params: Of the model; shapes will do.
    """
    found = uplink_memory(names)
    if found and found[0] in ("error_feedback", "ef21"):
        code = uplink_code(names)
        unbiased = all(part.omega is not None for part, _ in code.parts(params))
        _warn(f"uplink_memory = {found[0]!r}", code, params, ", or 'diana'" * unbiased)
    if names.downlink_memory != "none":
        _warn(f"downlink_memory = {names.downlink_memory!r}", downlink_code(names), params)


def _warn(memory: str, code: Code, params: PyTree, other_memory: str = "") -> None:
    growing = _growing(code, params)
    if growing is None:
        return
    name, bound = growing
    warnings.warn(
        f"{memory} is for compressors that bring every vector nearer; of {name} it is known only "
        f"that the squared error is at most {bound:.3g} times the vector's square, and from 1 on "
        "what is lost may grow from round to round. Use more bits or a biased one (top_k, sign, "
        f"int8, rand_k(..., unbiased=False)){other_memory}.",
        stacklevel=3,
    )


def _growing(code: Code, params: PyTree) -> tuple[str, float] | None:
    """Returns (name, bound) of a compressor whose error may exceed the vector; None if none may."""
    parts = code.parts(params)
    if all(part.alpha is not None and part.alpha(d) > 0 for part, d in parts):
        return None
    # where nothing is known of a chain, something may be of its links
    links = [(call.value, d) for call, d in code.steps(params)]
    for part, d in [*parts, *links]:
        if part.alpha is not None:
            bound = 1 - part.alpha(d)
        elif part.omega is not None:
            bound = part.omega(d)
        else:
            continue
        if bound >= 1:
            return part.name, bound
    return None


def warn_of_size(names: Names, params: PyTree) -> None:
    """Warns where compressed updates are no smaller than updates as they are.

    Args:
      names: As they were written.
      params: Of the model; shapes will do.
    """
    size = update_size(names, params, 1)
    if size is None or names.uplink == "identity" or size.bits < size.dense_bits:
        return
    warnings.warn(
        f"uplink = {names.uplink!r} makes an update of {size.dense_bits:,} bits one of "
        f"{size.bits:,.0f}: of a model of this size nothing is saved. Choose other settings, or "
        "'none'.",
        stacklevel=2,
    )

"""Searches the forms of operations on NVIDIA cards: a timing each, on the lanes that were found.

Which form is faster depends on the card, the layers and the number of clients side by side, so
nothing but a timing tells. A form that nobody has asked for must not harm either: where it cannot
be compiled, or its round ends elsewhere, the backend's own form stays.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.algorithm import blank_job
from fljax.core.transforms import as_configured
from fljax.core.values import brief
from fljax.engine.devices.execution import Forms, make_mesh
from fljax.engine.program.fused_updates import has_updates
from fljax.training.blueprint import Blueprint, algorithm_builder
from fljax.training.execution import JobLayout
from fljax.training.rehearsal import rehearse

Change = Mapping[str, Any]
# How far the rounds of two forms may end from each other, as a share of what they change. Products
# of 10 or 8 bits are some percent apart after a client's steps; what is wrong is further.
_APART = 0.2


def changes_of(blueprint: Blueprint, left_open: Collection[str]) -> list[Change]:
    """Returns what is worth a timing, one after another, as {field of `Forms`: value}.

    Nothing where the devices are no NVIDIA cards, where several processes would have to agree on
    what cannot be compiled, and where the model or the options have chosen.

    Args:
      blueprint: What is trained.
      left_open: The operations whose form the model leaves open.
    """
    device = make_mesh(blueprint.options.devices).local_devices[0]
    float32 = all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(blueprint.model.params))
    if "NVIDIA" not in device.device_kind or jax.process_count() > 1 or not float32:
        return []
    changes: list[Change] = [dict.fromkeys(left_open, "pallas")] if left_open else []
    if blueprint.options.fused_updates is None and _updates_dense_layers(blueprint):
        changes.append({"fused_updates": True})
    return changes


def _updates_dense_layers(blueprint: Blueprint) -> bool:
    """Returns whether a pass has updates that can be fused with their gradients."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    algorithm, pipeline = blueprint.algorithm, as_configured(blueprint.options.pipeline)
    shapes = jax.eval_shape(partial(rehearse, algorithm, pipeline=pipeline), blueprint.model, key)
    kept = [shapes.row.algorithm, *(own for own, _ in shapes.kept)]

    made = algorithm_builder(blueprint)
    frozen, hparams = blueprint.initial.frozen, blueprint.initial.hparams_of(0)

    def updates(number, message, own) -> bool:
        def step(message, carry, batch, key, hparams):
            # rates are arguments of the program, not numbers in it
            each = made(frozen, hparams, jnp.int32(0)).passes[number]
            return each.step(message, carry, batch, blank_job(key))

        start = lambda message, own, key: algorithm.passes[number].start(  # noqa: E731
            message, own, blank_job(key)
        )
        carry = jax.eval_shape(start, message, own, key)
        return has_updates(step, message, carry, dict(blueprint.batch), key, hparams)

    return any(map(updates, range(len(algorithm.passes)), shapes.messages, kept))


def search_forms(
    best: Any,
    changes: Sequence[Change],
    compare: Callable[[Any, JobLayout], tuple[Any, Any | None]],
    affords: Callable[[Any], bool],
    apart: Callable[[Any, Any], float],
) -> tuple[Any, bool]:
    """Returns the best timing, and whether the search came to its end.

    Args:
      best: The `Timing` of the lanes that were found.
      changes: What is tried, one after another.
      compare, affords: As for `search_lanes`.
      apart: (timing, other timing) -> how far their rounds end from each other.
    """
    for change in changes:
        if not affords(best):
            return best, False
        execution = best.federation.execution
        forms = execution.forms._replace(**change)
        placement = execution.placement
        layout = JobLayout(execution.devices, execution.lanes, placement=placement, forms=forms)
        try:
            chosen, other = compare(best, layout)
            distance = 0.0 if other is None else apart(best, other)
        except Exception as error:  # whatever it is, nobody has asked for this form
            _leave_out(forms, f"fails here ({brief(error)})")
            continue
        if distance <= _APART:
            best = chosen
        else:
            _leave_out(forms, f"ends {distance:.0%} from where it should")
    return best, True


def _leave_out(forms: Forms, reason: str) -> None:
    warnings.warn(
        f"{named(forms)} {reason}, and is left out. If this card should run it, please report it.",
        stacklevel=2,
    )


def named(forms: Forms) -> str:
    """Returns what is unusual about forms, for people; empty where nothing is.

    Example:
      >>> named(Forms(conv="pallas", fused_updates=True))
      'convolutions: pallas, fused updates'
    """
    said = {"convolutions": forms.conv, "recurrences": forms.lstm}
    parts = [f"{name}: {form}" for name, form in said.items() if form != "auto"]
    return ", ".join([*parts, "fused updates"] if forms.fused_updates else parts)

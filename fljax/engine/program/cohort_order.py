"""The order of the cohort, in which facts of jobs are seen whatever lane or device they ran on."""

from __future__ import annotations

import jax

from fljax.engine.devices.execution import AXIS


def in_cohort_order(column: jax.Array, index: jax.Array) -> jax.Array:
    """Returns rows in cohort order; positions without a job read zero."""
    return column.at[index].get(mode="fill", fill_value=0)


def gathered(column: jax.Array) -> jax.Array:
    """Returns the entries of all devices, [D x J, ...]."""
    return jax.lax.all_gather(column, AXIS, tiled=True)

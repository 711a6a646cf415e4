"""Of a model's state clients send what has changed, under one norm with the update."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness, test_batchnorm
from privacy.private import clipped, setting

from fljax import algorithms
from fljax.core.precision import rounded, state_after, state_change
from fljax.core.transforms import Pipeline
from fljax.privacy.gaussian import gaussian
from fljax.privacy.protection import Protection, protected
from fljax.tasks import classification

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

CLIP, MEMBERS = 0.3, 2.5
COHORTS = [[0, 2, 3], [], [3, 4, 8]]


def test_batch_statistics_move_by_clipped_changes():
    """Statistics as a whole would be cut to the clip norm, and shrink with every absence."""
    with jax.enable_x64(True):
        protection = Protection(gaussian(CLIP, 0.0), setting(clients_per_round=MEMBERS))
        federation = harness.prepare(
            algorithms.fedavg(test_batchnorm.LR, weighting="uniform"), COHORTS,
            task=classification(test_batchnorm.Normalized, toy.CLASSES),
            batch_size=test_batchnorm.BATCH,
            privacy=protection, pipeline=protected(Pipeline(), protection),
        )  # fmt: skip
        params, state = jax.device_get(test_batchnorm.flat(federation.variables))
        harness.drive(federation, COHORTS)
        got = jax.device_get(test_batchnorm.flat(federation.variables))
    for cohort in COHORTS:
        total, moved = reference.zeros(params), reference.zeros(state)
        for client in cohort:
            end = test_batchnorm.local_training(params, state, *toy.clients()[client])
            sent = (
                reference.combine(np.subtract, new, old)
                for new, old in zip(end, (params, state), strict=True)
            )
            update, change = clipped(CLIP, *sent)
            total = reference.combine(np.add, total, update)
            moved = reference.combine(np.add, moved, change)
        params = reference.combine(lambda p, t: p + t / MEMBERS, params, total)
        state = reference.combine(lambda s, t: s + t / MEMBERS, state, moved)
    toy.assert_close(got, (params, state), 1e-9)


def test_differences_bring_states_of_every_type_to_their_mean():
    """It is what the mean of the states themselves would be, rounded once."""
    old = {
        "half": jnp.array([1.5, -2.0], jnp.bfloat16), "float": jnp.array([0.1, 7.0]),
        "short": jnp.array([100, -3], jnp.int8), "long": jnp.array([2**30 + 1, -5]),
        "unsigned": jnp.array([2**31 + 7], jnp.uint32), "seen": jnp.array([True, False]),
    }  # fmt: skip
    ends = [
        {name: rounded(leaf.astype(jnp.float32) * 0 + gap, leaf) + leaf
         if leaf.dtype != bool else leaf ^ bool(gap % 2) for name, leaf in old.items()}
        for gap in (1, 2, 6)
    ]  # fmt: skip
    changes = [state_change(end, old, True) for end in ends]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *changes)
    for name, leaf in rounded(state_after(old, mean), old).items():
        exact = np.mean([np.asarray(end[name], np.float64) for end in ends], axis=0)
        expected = exact if jnp.issubdtype(leaf.dtype, jnp.floating) else np.round(exact)
        np.testing.assert_allclose(np.asarray(leaf, np.float64), expected, rtol=1e-6)

"""A model with batch statistics: clients update them on real rows, the server averages them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from flax import nnx

from fljax import algorithms
from fljax.engine.plan.round_plan import job_table
from fljax.tasks import classification

MOMENTUM, EPSILON, LR, BATCH = 0.8, 1e-5, 0.2, 4
COHORTS = [[0, 1, 2, 3], [], [3, 4, 8]]
DOUBLE = {"dtype": jnp.float64, "param_dtype": jnp.float64}


class Normalized(nnx.Module):
    """Softmax regression on normalized features."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(
            toy.FEATURES, momentum=MOMENTUM, epsilon=EPSILON, rngs=rngs, **DOUBLE
        )
        # Flax would keep them in float32
        self.norm.mean = nnx.BatchStat(jnp.zeros(toy.FEATURES))
        self.norm.var = nnx.BatchStat(jnp.ones(toy.FEATURES))
        self.dense = nnx.Linear(toy.FEATURES, toy.CLASSES, rngs=rngs, **DOUBLE)

    def __call__(self, x, mask=None):
        return self.dense(self.norm(x, mask=None if mask is None else mask[:, None]))


class Unmasked(Normalized):
    def __call__(self, x):
        return self.dense(self.norm(x))


def local_training(params, state, x, y):
    """One epoch; returns (params, running mean and variance)."""
    for bx, by in reference.batches(x, y, BATCH, 1):
        mean, var = bx.mean(axis=0), bx.var(axis=0)
        unit = (bx - mean) / np.sqrt(var + EPSILON)
        hidden = unit * params["scale"] + params["shift"]
        _, grad = reference.loss_and_gradient(params, hidden, by)
        logits = hidden @ params["w"] + params["b"]
        error = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = error / error.sum(axis=1, keepdims=True) - np.eye(toy.CLASSES)[by]
        back = error @ params["w"].T / len(by)
        grad |= {"scale": (unit * back).sum(axis=0), "shift": back.sum(axis=0)}
        params = reference.combine(lambda p, g: p - LR * g, params, grad)
        state = {
            "mean": MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean,
            "var": MOMENTUM * state["var"] + (1 - MOMENTUM) * var,
        }
    return params, state


def federated(params, state, transmit=lambda change, statistics, rows: (change, statistics)):
    """Returns (params, statistics); transmit says what arrives of what a client sends."""
    for cohort in COHORTS:
        present = [toy.clients()[c] for c in cohort if len(toy.clients()[c][1])]
        if present:
            trained = [local_training(params, state, x, y) for x, y in present]
            weights = [len(y) for _, y in present]
            sent = [
                transmit(reference.combine(np.subtract, end, params), statistics, rows)
                for (end, statistics), rows in zip(trained, weights, strict=True)
            ]
            mean = reference.weighted_mean([change for change, _ in sent], weights)
            params = reference.combine(np.add, params, mean)
            state = reference.weighted_mean([statistics for _, statistics in sent], weights)
    return params, state


def flat(variables):
    """Returns the model as the reference names its parts."""
    norm, dense = variables.params["norm"], variables.params["dense"]
    return (
        {"scale": norm["scale"], "shift": norm["bias"], "w": dense["kernel"], "b": dense["bias"]},
        dict(variables.model_state["norm"]),
    )


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_statistics_of_real_rows_are_averaged(layout):
    task = classification(Normalized, toy.CLASSES)
    federation = harness.prepare(
        algorithms.fedavg(LR), COHORTS, layout, task=task, batch_size=BATCH
    )
    expected = federated(*jax.device_get(flat(federation.variables)))
    run = harness.drive(federation, COHORTS)
    toy.assert_close(jax.device_get(flat(run.federation.variables)), expected, 1e-9)


@pytest.mark.parametrize(
    "spec, remainder", [(algorithms.fedavg(LR), "partial"), (algorithms.fedsgd(LR), "drop")]
)
def test_a_module_without_mask_is_refused_where_a_pass_has_partial_batches(spec, remainder):
    task = classification(Unmasked, toy.CLASSES)
    with pytest.raises(ValueError, match="mask"):
        harness.prepare(spec, COHORTS, task=task, remainder=remainder)


@pytest.mark.parametrize(
    ("spec", "cohorts", "sizes", "remainder"),
    [
        (algorithms.fedavg(LR), COHORTS, toy.SIZES, "drop"),
        (algorithms.fedsgd(LR), [[0, 2]], [8, 4, 12], "partial"),
    ],
)
def test_a_module_without_mask_is_welcome_where_batches_are_full(spec, cohorts, sizes, remainder):
    federation = harness.prepare(
        spec,
        cohorts,
        task=classification(Unmasked, toy.CLASSES),
        parts=toy.clients(sizes),
        batch_size=BATCH,
        remainder=remainder,
    )
    plan, _ = federation.planner.plan(0, job_table(cohorts[0]))
    counts = np.concatenate([part.counts.ravel() for part in plan.passes])
    assert set(counts.tolist()) <= {0, BATCH} and counts.any()

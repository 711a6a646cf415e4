"""A small ragged federation and a float64-capable softmax regression, shared by many tests."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fljax.tasks import classification
from fljax.training.federation import RoundOptions, build

FEATURES, CLASSES = 6, 4
SIZES = (13, 0, 5, 31, 1, 8, 20, 3, 17)


def clients(sizes=SIZES, seed=0, dtype=np.float64):
    """Returns a list of (x, y), ragged, with an empty client."""
    generator = np.random.default_rng(seed)
    return [
        (
            generator.standard_normal((size, FEATURES)).astype(dtype),
            generator.integers(0, CLASSES, size).astype(np.int32),
        )
        for size in sizes
    ]


def dataset(parts, num_classes=CLASSES):
    """Returns the FederatedDataset of a list of (x, y)."""
    from fljax.data.dataset import ArrayExamples, FederatedDataset, Partition, Split

    arrays = {
        "x": np.concatenate([x for x, _ in parts]),
        "y": np.concatenate([y for _, y in parts]),
    }
    offsets = np.concatenate([[0], np.cumsum([len(y) for _, y in parts])])
    return FederatedDataset(
        name="toy",
        kind="classification",
        num_classes=num_classes,
        train=Split(ArrayExamples(arrays), Partition(offsets, None)),
        test=Split(ArrayExamples(arrays), None),
    )


def initial_params(dtype=np.float64, seed=1):
    generator = np.random.default_rng(seed)
    return {
        "w": generator.standard_normal((FEATURES, CLASSES)).astype(dtype),
        "b": generator.standard_normal(CLASSES).astype(dtype),
    }


def softmax_task(dtype=np.float64):
    """Returns softmax regression as a task made of two plain functions."""

    def init(key):
        return jax.tree.map(jnp.asarray, initial_params(dtype))

    def apply(params, x, *, key=None, train=False):
        return x @ params["w"] + params["b"]

    return classification((init, apply), CLASSES)


def run_rounds(parts, spec, cohorts, *, task=None, **options):
    """Runs one round for each cohort; returns (federation, stats of each round)."""
    defaults = {"batch_size": 4, "shuffle": False, "clients_per_round": len(parts)}
    federation = build(
        dataset(parts),
        task or softmax_task(),
        spec,
        RoundOptions(num_rounds=len(cohorts), cohorts=cohorts, **(defaults | options)),
    )
    stats = [
        jax.device_get(federation.step(plan, facts))
        for plan, facts in federation.plans(0, len(cohorts))
    ]
    return federation, stats


def params_of(federation):
    return jax.device_get(federation.variables.params)


def assert_close(got, expected, rtol):
    """Asserts that two trees agree relative to the size of each leaf."""
    chex.assert_trees_all_equal_shapes(got, expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max()),
        got,
        expected,
    )

"""No loop of a CPU's round program copies a model but to start a job from it."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from contracts.harness import Layout

from fljax import algorithms
from fljax.tasks import classification

HIDDEN = 37


def two_layers():
    """Returns a task whose second layer is read for the gradient of the first."""

    def init(key):
        generator = np.random.default_rng(0)
        shapes = {"a": (toy.FEATURES, HIDDEN), "b": (HIDDEN, HIDDEN), "c": (HIDDEN, toy.CLASSES)}
        return {
            name: jnp.asarray(generator.standard_normal(shape), jnp.float32)
            for name, shape in shapes.items()
        }

    def apply(params, x):
        return jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"]) @ params["c"]

    return classification((init, apply), toy.CLASSES)


def copies_in_loops(federation) -> list[list[str]]:
    """Returns the shapes of the matrices that each loop's body copies, per iteration."""
    plan, facts = next(iter(federation.plans(0, 1)))
    rows = federation.store.gather(facts.trials, facts.clients)
    program = federation.program.lower(federation.state, rows, plan, federation.inputs)
    text = program.compile().as_text()
    bodies = set(re.findall(r"body=%([\w.\-]+)", text))
    found = []
    for name, body in re.findall(r"^%([\w.\-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S):
        if name in bodies:
            copies = re.findall(r" = \w+\[([\d,]+)\]\S* copy\(", body)
            found.append([shape for shape in copies if str(HIDDEN) in shape.split(",")])
    return found


@pytest.mark.parametrize("lanes", [1, 3])
def test_loops_copy_no_model_but_to_start_a_job(lanes):
    federation = harness.prepare(
        algorithms.fedavg(0.1), [[0, 2, 3, 5]], Layout(1, lanes, 1), task=two_layers(),
        parts=toy.clients(dtype=np.float32),
    )  # fmt: skip
    copies = copies_in_loops(federation)
    assert len(copies) >= 3  # waves, exchanges and steps
    # a lane alone begins with a copy of the message; side by side, it is written into the lanes
    matrices = [f"{toy.FEATURES},{HIDDEN}", f"{HIDDEN},{HIDDEN}", f"{HIDDEN},{toy.CLASSES}"]
    allowed = [[], sorted(matrices)] if lanes == 1 else [[]]
    assert all(sorted(copy) in allowed for copy in copies), copies
    assert sum(map(bool, copies)) <= 1

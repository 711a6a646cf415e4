"""Weights held transposed change nothing about what is compressed, and in which order."""

import jax
import numpy as np
import pytest
import toy
from contracts import harness
from contracts.harness import Layout

from fljax import algorithms
from fljax import compression as c
from fljax.core.transforms import Pipeline
from fljax.engine.program import round as round_program
from fljax.engine.program.layout import as_given
from fljax.tasks import classification

pytestmark = pytest.mark.usefixtures("quick_compilation")

# large enough for the pass: 4 outputs, more than 256 weights
FEATURES = 80
COHORTS = [[0, 1, 2, 3], [3, 4, 8], [5, 6, 7, 0, 4], [0, 3, 8]]
LINKS = {
    "top_k with error feedback": lambda: c.error_feedback(c.uplink(c.top_k(0.05))),
    "top_k leaf by leaf": lambda: c.uplink(c.top_k(0.05), per_leaf=True),
    "int8 per channel": lambda: c.uplink(c.int8_channels),
}


def clients():
    generator = np.random.default_rng(0)
    return [
        (generator.standard_normal((len(y), FEATURES)), y)
        for _, y in toy.clients()
    ]  # fmt: skip


def task():
    start = np.random.default_rng(1).standard_normal((FEATURES, toy.CLASSES))
    init = lambda key: {"w": jax.numpy.asarray(start)}  # noqa: E731
    apply = lambda params, x, *, key=None, train=False: x @ params["w"]  # noqa: E731
    return classification((init, apply), toy.CLASSES)


def run(link, layout):
    return harness.rounds(
        algorithms.fedavg(0.1), COHORTS, layout, parts=clients(), task=task(),
        pipeline=Pipeline(uplink=(link,)),
    )  # fmt: skip


@pytest.mark.parametrize("layout", [Layout(1, 1, 1), Layout(2, 2, 2)])
@pytest.mark.parametrize("name", LINKS)
def test_compressed_rounds_are_those_of_weights_as_they_are(name, layout, monkeypatch):
    flipped = []

    def noted(*arguments):
        out = round_program_layout(*arguments)
        flipped.append(out.work is not arguments[0])
        return out

    with jax.enable_x64(True):
        round_program_layout = round_program.transposed_weights
        monkeypatch.setattr(round_program, "transposed_weights", noted)
        transposed = run(LINKS[name](), layout)
        assert flipped and all(flipped)
        monkeypatch.setattr(round_program, "transposed_weights", as_given)
        given = run(LINKS[name](), layout)
        toy.assert_close(transposed.params, given.params, 1e-9)
        toy.assert_close(transposed.client_rows(), given.client_rows(), 1e-9)
        for round in range(len(COHORTS)):
            bits = given.by_client("uplink_bits", round)
            assert transposed.by_client("uplink_bits", round) == bits

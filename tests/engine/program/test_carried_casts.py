"""Casts of weights are made with the update before, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from contracts.harness import MANY, ONE
from equations import equations_of

from fljax import algorithms
from fljax.engine.plan.packed_plan import pack
from fljax.engine.plan.round_plan import job_table
from fljax.engine.program import carried_casts, round
from fljax.engine.program.inputs import Program
from fljax.engine.program.layout import as_given

pytestmark = pytest.mark.usefixtures("quick_compilation")

COHORTS = [[0, 2, 3, 8], [5, 3, 1, 3]]
ALGORITHMS = {
    "fedavg": algorithms.fedavg(0.2),
    "fedprox, momentum, weight decay": algorithms.fedprox(
        0.1, 0.2, client_momentum=0.9, client_weight_decay=0.01
    ),
    "scaffold": algorithms.scaffold(0.2),
}


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    """Round programs as on accelerators; of the toy's weights, the biases count as small."""
    monkeypatch.setattr(Program, "on_cpu", property(lambda program: False))
    monkeypatch.setattr(carried_casts, "_MIN_SIZE", toy.FEATURES * toy.CLASSES)


@pytest.fixture
def as_written(monkeypatch):
    """Lets steps cast their weights themselves."""
    return lambda: monkeypatch.setattr(round, "carried_casts", as_given)


def prepared(spec, layout=MANY, dtype="bfloat16"):
    parts, task = toy.clients(dtype=np.float32), toy.softmax_task(np.float32)
    return harness.prepare(spec, COHORTS, layout, parts=parts, task=task, compute_dtype=dtype)


@pytest.mark.parametrize(("name", "layout"), list(zip(ALGORITHMS, (ONE, MANY, MANY), strict=True)))
def test_rounds_are_the_same(name, layout, as_written):
    found = harness.drive(prepared(ALGORITHMS[name], layout), COHORTS)
    as_written()
    expected = harness.drive(prepared(ALGORITHMS[name], layout), COHORTS)
    jax.tree.map(np.testing.assert_array_equal, found.states, expected.states)
    jax.tree.map(np.testing.assert_array_equal, found.stats, expected.stats)


def traced(federation):
    plan, facts = federation.planner.plan(0, job_table(COHORTS[0]))
    rows = federation.store.gather(facts.trials, facts.clients)
    arguments = federation.state, rows, federation.place(pack(plan)), federation.inputs
    return federation.program.trace(*arguments).jaxpr.jaxpr


def casts_in_steps(federation):
    """Returns of each cast of weights in the loop over steps whether it is one of the carry."""
    bodies = [
        equation.params["body_jaxpr"].jaxpr
        for equation in equations_of(traced(federation))
        if equation.primitive.name == "while"
    ]
    names = lambda body: [equation.primitive.name for equation in body.eqns]  # noqa: E731
    (step,) = [body for body in bodies if "dot_general" in names(body)]
    return [
        equation.invars[0] in step.invars
        for equation in step.eqns
        if equation.primitive.name == "convert_element_type"
        and equation.outvars[0].aval.dtype == jnp.bfloat16
        and equation.outvars[0].aval.shape[-2:] == (toy.FEATURES, toy.CLASSES)
    ]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_steps_cast_no_weights_but_new_ones(name, as_written):
    assert casts_in_steps(prepared(ALGORITHMS[name])) == [False]
    as_written()
    assert casts_in_steps(prepared(ALGORITHMS[name])) == [True]


def test_programs_without_casts_are_as_they_were(as_written):
    found = str(traced(prepared(algorithms.fedavg(0.2), dtype="float32")))
    as_written()
    assert found == str(traced(prepared(algorithms.fedavg(0.2), dtype="float32")))

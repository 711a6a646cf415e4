"""Updates of dense layers are fused where a step is plain SGD, and rounds stay the same."""

import jax
import numpy as np
import optax
import pytest
import toy
from contracts import harness
from contracts.harness import MANY, ONE
from equations import equations_of

from fljax import algorithms, models
from fljax.engine.plan.packed_plan import pack
from fljax.engine.plan.round_plan import job_table
from fljax.engine.program import fused_updates
from fljax.engine.program.inputs import Program
from fljax.tasks import classification

pytestmark = pytest.mark.usefixtures("quick_compilation")

COHORTS = [[0, 2, 3, 8], [5, 3, 1, 3]]
# algorithm: how many of the two layers are fused
ALGORITHMS = {
    "fedavg": (algorithms.fedavg(0.2), 2),
    "no learning rate of its own": (
        algorithms.fedavg(client_optimizer=lambda hp: optax.sgd(hp["client_lr"] / 2)), 2
    ),
    "fedopt": (algorithms.fedopt("adam", client_lr=0.2), 2),
    "momentum": (algorithms.fedavg(0.2, client_momentum=0.9), 0),
    "weight decay": (algorithms.fedavg(0.2, client_weight_decay=0.01), 0),
    "clipping": (
        algorithms.fedavg(
            client_optimizer=lambda hp: optax.chain(
                optax.clip_by_global_norm(1.0), optax.sgd(hp["client_lr"])
            )
        ),
        0,
    ),
    "fedprox": (algorithms.fedprox(0.1, 0.2), 0),
    "scaffold": (algorithms.scaffold(0.2), 0),
}  # fmt: skip


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    """Round programs as on accelerators, where no weights of the toy's are too small."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(Program, "on_cpu", property(lambda program: False))
    monkeypatch.setattr(fused_updates, "_MIN_SIZE", toy.FEATURES)


def prepared(name, fused, layout=MANY, dtype="float32"):
    model = models.make("mlp", toy.CLASSES, (toy.FEATURES,), hidden=[5])
    return harness.prepare(
        ALGORITHMS[name][0], COHORTS, layout,
        parts=toy.clients(dtype=np.float32), task=classification(model, toy.CLASSES),
        compute_dtype=dtype, fused_updates=fused,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layout"), [("fedavg", ONE), ("fedavg", MANY), ("no learning rate of its own", MANY)]
)
def test_rounds_are_the_same(name, layout):
    found = harness.drive(prepared(name, True, layout), COHORTS)
    expected = harness.drive(prepared(name, False, layout), COHORTS)
    toy.assert_close(found.params, expected.params, 1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found.stats, expected.stats
    )


def program_of(federation):
    plan, facts = federation.planner.plan(0, job_table(COHORTS[0]))
    rows = federation.store.gather(facts.trials, facts.clients)
    return federation.program, (
        federation.state, rows, federation.place(pack(plan)), federation.inputs
    )  # fmt: skip


def traced(federation):
    program, arguments = program_of(federation)
    return program.trace(*arguments).jaxpr.jaxpr


def kernels_in(jaxpr):
    """Returns, for each kernel of a traced program, how many arrays it returns."""
    equations = equations_of(jaxpr)
    return sorted(len(eqn.outvars) for eqn in equations if eqn.primitive.name == "pallas_call")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_no_plain_sgd_stays_as_it_is(name):
    found, unfused = (traced(prepared(name, fused)) for fused in (True, False))
    # of the first layer nobody wants the gradient by its input
    assert kernels_in(found) == [1, 2][: ALGORITHMS[name][1]]
    assert kernels_in(unfused) == []
    if not ALGORITHMS[name][1]:
        assert str(found) == str(unfused)


def test_half_precision_and_many_rows_stay_as_they_are(monkeypatch):
    assert kernels_in(traced(prepared("fedavg", True, dtype="bfloat16"))) == []
    monkeypatch.setattr(fused_updates, "MAX_ROWS", 3)
    assert kernels_in(traced(prepared("fedavg", True))) == []


def test_programs_of_cpus_are_as_they_were(monkeypatch):
    monkeypatch.setattr(Program, "on_cpu", property(lambda program: True))
    texts = [
        program.lower(*arguments).as_text()
        for program, arguments in (program_of(prepared("fedavg", fused)) for fused in (True, False))
    ]
    assert texts[0] == texts[1]

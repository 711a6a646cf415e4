"""Programs of accelerators, as far as a CPU can tell: their forms compute the same, and lower."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from accelerators import exchanging
from contracts import harness
from contracts.harness import Layout
from jax.export import export

from fljax import algorithms, compression, models
from fljax.compression import names
from fljax.core.gradients import bind
from fljax.core.transforms import Aggregator, Pipeline
from fljax.core.trees import add_rows_in_order
from fljax.engine.plan.packed_plan import pack
from fljax.engine.plan.round_plan import job_table
from fljax.engine.program.inputs import Program
from fljax.tasks import classification, next_token
from fljax.training.hyperparameters import hyperparameters
from fljax.training.trials import TrialInputs

pytestmark = pytest.mark.usefixtures("quick_compilation")

COHORTS = [[0, 2, 3, 8], [5, 3, 1]]
LAYOUT, WIDE = Layout(2, 2, 3), Layout(2, 3, 1)
UPLINKS = (
    "none", "top_k(0.3)", "traced", "prune(0.3)", "rand_k(0.4)", "qsgd(4)", "powersgd(1)",
    "fetch_sgd(columns=7)", "rotated_uniform(4)", "eden(2)", "sign",
)  # fmt: skip


@pytest.fixture
def accelerator(monkeypatch):
    """Lets everything that chooses its form by platform take that of a GPU."""
    return lambda: monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def pipeline(uplink):
    traced = ["uplink"] if uplink == "traced" else []
    chosen = names.Names(uplink="top_k(0.3)" if traced else uplink)
    return names.pipeline(chosen, jax.eval_shape(toy.initial_params), 9, 0, traced)


def prepared(uplink, layout=LAYOUT, exchange_size=1):
    with exchanging(exchange_size):
        return harness.prepare(algorithms.fedavg(0.2), COHORTS, layout, pipeline=pipeline(uplink))


@pytest.mark.parametrize("uplink", UPLINKS)
def test_their_forms_lower_and_compute_the_same_round(uplink, accelerator):
    expected = harness.drive(prepared(uplink), COHORTS)
    accelerator()
    federation = prepared(uplink, WIDE, exchange_size=2)
    found = harness.drive(federation, COHORTS)
    toy.assert_close(found.params, expected.params, 1e-6)
    for round in range(len(COHORTS)):
        assert found.total("uplink_bits", round) == expected.total("uplink_bits", round)

    plan, facts = federation.planner.plan(0, job_table(COHORTS[0]))
    rows = federation.store.gather(facts.trials, facts.clients)
    arguments = federation.state, rows, federation.place(pack(plan)), federation.inputs
    assert lowered(federation.program, *arguments)


@pytest.mark.parametrize(
    "code", [compression.natural(), compression.terngrad()], ids=lambda code: code.name
)
def test_codes_of_single_coordinates_lower(code, accelerator):
    """They have one form everywhere."""
    accelerator()

    def through(key, x):
        return code.decode(code.encode(key, x), x.size)

    assert lowered(jax.jit(through), jax.random.key(0), jnp.zeros(28))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(
    ("spec", "uplink", "stacked"),
    [
        (algorithms.scaffold(0.2), "none", False),
        (algorithms.fedavg(0.2), "top_k(0.3)", False),
        (algorithms.fedavg(0.2), "none", True),
    ],
)
def test_scatters_write_no_place_twice(spec, uplink, stacked, size, accelerator, monkeypatch):
    """As they tell XLA: others add in any order, or are sorted where results must repeat."""
    accelerator()
    monkeypatch.setattr(Program, "on_cpu", property(lambda program: False))
    chain = pipeline(uplink)
    if stacked:
        chain = Pipeline(aggregator=Aggregator("stack", lambda rows, *_: (rows.mean(0), ())))
    trials = [TrialInputs(seed, hyperparameters(spec, chain)) for seed in (0, 1)]
    with exchanging(size):
        federation = harness.prepare(spec, COHORTS, Layout(2, 3, 1), pipeline=chain, trials=trials)
    plan, facts = federation.planner.plan(np.zeros(2, np.int32), job_table(COHORTS[0]))
    rows = federation.store.gather(facts.trials, facts.clients)
    arguments = federation.state, rows, federation.place(pack(plan)), federation.inputs
    text = federation.program.lower(*arguments).as_text()
    scatters = re.findall(r"stablehlo.scatter.*", text)
    assert scatters
    assert not [one for one in scatters if "unique_indices = true" not in one]


def test_sums_by_place_repeat_and_know_no_neighbours():
    """A number that is not finite at one place is at that place alone."""
    indices = jnp.array([2, 0, 2, 5])
    rows = jnp.array([[1.0, 2.0], [jnp.inf, jnp.nan], [3.0, 4.0], [9.0, 9.0]])
    found = add_rows_in_order(jnp.ones((3, 2)), indices, rows)
    expected = [[np.inf, np.nan], [1, 1], [5, 7]]
    np.testing.assert_array_equal(found, expected)
    whole = add_rows_in_order(jnp.zeros((2, 1), jnp.int32), indices, rows[:, :1].astype(jnp.int32))
    assert whole.dtype == jnp.int32


@pytest.mark.parametrize(
    ("name", "shape"),
    [("emnist_cnn", (28, 28, 1)), ("resnet18_gn", (32, 32, 3)), ("char_lstm", (20,))],
)
def test_steps_of_several_clients_lower(name, shape, accelerator):
    accelerator()
    classes, rows = 10, 4
    model = models.make(name, classes, shape)
    tokens = name == "char_lstm"
    task = next_token(model, classes) if tokens else classification(model, classes)
    variables = jax.eval_shape(task.init, jax.random.key(0))
    batch = {
        "x": jax.ShapeDtypeStruct((rows, *shape), jnp.int32 if tokens else jnp.float32),
        "y": jax.ShapeDtypeStruct((rows, *shape) if tokens else (rows,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((rows,), jnp.bool_),
    }

    def gradient(params, frozen, model_state, batch, key):
        return bind(task, frozen).gradient(params, model_state, batch, key)[0]

    def of_clients(*arguments):
        return jax.vmap(gradient, (0, None, None, 0, None))(*arguments)

    params, frozen, state = variables
    stacked = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype), (params, batch)
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    assert lowered(jax.jit(of_clients), stacked[0], frozen, state, stacked[1], key)


def lowered(function, *arguments) -> bytes:
    """Returns the program of GPUs and TPUs, as far as it can be made without one."""
    return export(function, platforms=["cuda", "tpu"])(*arguments).mlir_module_serialized

"""The memory of clients is foreseen: of traced functions by hand, of round programs as XLA says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fljax import algorithms, models
from fljax import compression as c
from fljax.core.transforms import Pipeline
from fljax.core.trees import nbytes
from fljax.data import from_arrays
from fljax.engine.devices.execution import ClientBytes
from fljax.engine.plan.packed_plan import pack
from fljax.tasks import classification
from fljax.training import federation
from fljax.training.assembly import client_bytes_of
from fljax.training.blueprint import draw_blueprint
from fljax.training.client_memory import client_bytes
from fljax.training.liveness import peak_bytes
from fljax.training.options import RoundOptions
from fljax_kernels import conv_general_dilated
from fljax_kernels.dense_update import dense_update

ROWS = np.zeros((25, 40), np.float32)
SQUARE = np.zeros((40, 40), np.float32)
ARRAY, WEIGHTS = ROWS.nbytes, SQUARE.nbytes


def _peak(function, *arguments, given_up=()):
    return peak_bytes(jax.make_jaxpr(function)(*arguments).jaxpr, given_up)


def _looped(x, w):
    def body(state, row):
        state = jnp.tanh(state @ w) + row
        return state, state

    return jax.lax.scan(body, jnp.zeros(40), x)[1].sum()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # entry by entry, nothing is held
        (lambda x, w: jnp.tanh(2 * x) + x, 0),
        (lambda x, w: (jnp.tanh(x) * x).sum(), 4),
        # a product is held until it is read
        (lambda x, w: (x @ w).sum(), ARRAY + 4),
        # what a product reads is written before, here over the product before
        (lambda x, w: (jnp.tanh(x @ w) @ w).sum(), 2 * ARRAY),
        # what is read later stays
        (lambda x, w: ((y := jnp.tanh(x @ w)) @ w * y).sum(), 2 * ARRAY + 4),
        (lambda x, w: jax.jit(lambda x: x @ w)(x).reshape(-1, 5).sum(), ARRAY + 4),
        # a loop keeps what it stacks, and zeros for it, its state, and what an iteration holds
        (_looped, 2 * ARRAY + 2 * 160),
        (lambda x, w: (x @ w).at[3].set(0.0).sum(), ARRAY + 4),
        # what several read is written where it takes less than what it comes from
        (lambda x, w: ((y := (x @ w)[:, :20] + x[:, 20:]) @ w[:20, :20]).sum() + y.max(), 6000),
    ],
)  # fmt: skip
def test_arrays_are_held_from_the_kernel_that_writes_them_to_the_last_that_reads(
    function, expected
):
    assert _peak(function, ROWS, SQUARE) == expected


def test_the_gradient_of_two_layers_by_hand():
    def loss(weights, x):
        return (jnp.tanh(x @ weights[0]) @ weights[1]).sum()

    # the second gradient, the hidden layer, its gradient; then both gradients
    held = _peak(jax.grad(loss), (SQUARE, SQUARE), ROWS)
    assert 2 * WEIGHTS <= held <= 2 * WEIGHTS + 2 * ARRAY
    # the rows count until they have been read
    assert _peak(lambda x, w: (x @ w).sum(), ROWS, SQUARE, given_up=[0]) == 2 * ARRAY


IMAGES, KERNEL = np.zeros((2, 16, 16, 8), np.float32), np.zeros((3, 3, 8, 8), np.float32)


def _convolved(form):
    return lambda x, w: conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), form=form
    ).sum()


def test_what_a_card_runs_counts_where_there_is_a_card(monkeypatch):
    products = _peak(_convolved("gemm"), IMAGES, KERNEL)
    assert products > 3 * IMAGES.nbytes
    assert _peak(_convolved("pallas"), IMAGES, KERNEL) == pytest.approx(products, rel=0.1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    # what the kernel writes, and the images in the order in which it reads them
    assert _peak(_convolved("pallas"), IMAGES, KERNEL) <= 2 * IMAGES.nbytes + KERNEL.nbytes + 4
    # weights are written where they lie: only the gradient by the input is new
    weights, scale = np.zeros((1600, 40), np.float32), np.float32(0.1)
    x, dy = np.zeros((4, 1600), np.float32), np.zeros((4, 40), np.float32)
    held = _peak(lambda *args: [part.sum() for part in dense_update(*args)], weights, x, dy, scale)
    assert held <= 1.1 * x.nbytes < weights.nbytes / 5


def _dataset(shape, rows=640):
    draw = np.random.default_rng(0)
    x = draw.standard_normal((rows, *shape)).astype(np.float32)
    return from_arrays(x, np.arange(rows) % 10, partition="iid", num_clients=32, num_classes=10)


def _blueprint(spec, *, model="mlp", shape=(300,), batch=10, **options):
    draw = np.random.default_rng(0)
    x = draw.standard_normal((640, *shape)).astype(np.float32)
    data = from_arrays(x, np.arange(640) % 10, partition="iid", num_clients=32, num_classes=10)
    task = classification(models.make(model, 10, shape), 10)
    common = {"num_rounds": 1, "clients_per_round": 16, "devices": 1, "calibrate": False}
    options = RoundOptions(batch_size=batch, **(common | options))
    return draw_blueprint(data, task, spec, options)


def _temporary(blueprint, lanes):
    """Returns the layout of so many lanes, and the bytes that XLA wants beside arguments."""
    options = dataclasses.replace(blueprint.options, lanes=lanes, wave=lanes)
    built = federation.build(blueprint.dataset, blueprint.task, blueprint.spec, options)
    plan, facts = built.plan_round(0, built.cohorts.init())
    rows = built.store.gather(facts.trials, facts.clients)
    lowered = built.program.lower(built.state, rows, built.place(pack(plan)), built.inputs)
    return built.execution, lowered.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    "network",
    [
        {"model": "mlp"},
        {"model": "emnist_cnn", "shape": (28, 28, 1), "batch": 20},
    ],
)
def test_what_clients_take_is_what_xla_gives_them(network):
    blueprint = _blueprint(algorithms.fedavg(0.1), **network)
    execution, wanted = _temporary(blueprint, 16)
    held = client_bytes_of(blueprint).held(*execution[1:4])
    np.testing.assert_allclose(held, wanted, rtol=0.25)


def test_optimizers_uplinks_and_trials_count():
    plain = client_bytes_of(_blueprint(algorithms.fedavg(0.1)))
    model = nbytes(_blueprint(algorithms.fedavg(0.1)).model)
    assert model <= plain.carry < model + 100

    momentum = algorithms.fedavg(0.1, client_optimizer=lambda hp: optax.sgd(hp["client_lr"], 0.9))
    assert client_bytes_of(_blueprint(momentum)).carry >= 2 * model
    sorting = Pipeline(uplink=(c.uplink(c.top_k(0.01)),))
    compressed = client_bytes_of(_blueprint(algorithms.fedavg(0.1), pipeline=sorting))
    assert compressed.finish > model / 2 > plain.finish
    assert (compressed.carry, compressed.step) == (plain.carry, plain.step)

    alone = _blueprint(algorithms.fedavg(0.1))
    together = client_bytes(alone.algorithm, Pipeline(), alone.model, alone.batch, num_trials=2)
    assert together.carry == plain.carry + model


# one of each kind: passes, clients' states, parts of the model, clusters, combining rules
@pytest.mark.parametrize(
    "name",
    [
        "fedavg", "fedsgd", "scaffold", "mime", "feddc", "moon", "ditto", "apfl", "fedbn", "fedrep",
        "fedala", "fedproto", "ifca", "cfl", "feddrift", "q_fedavg", "fedmgda",
    ],
)  # fmt: skip
def test_every_algorithm_holds_its_model(name):
    # the model has no normalization layers
    own = {"personal": "head"} if name == "fedbn" else {}
    blueprint = _blueprint(algorithms.make(name, **own))
    found = client_bytes_of(blueprint)
    assert found.carry >= nbytes(blueprint.model) and found.step > 0


def test_memory_is_that_of_the_steps_or_of_the_ends():
    client = ClientBytes(carry=100, step=30, finish=7)
    assert client.held(3, 2) == 5 * 100 + 3 * 30
    assert client.held(3, 20) == 23 * 100 + 20 * 7
    # those that have ended stay on their lanes until they are exchanged
    assert client.held(8, 4, exchange_size=4) == 8 * 100 + 8 * 30

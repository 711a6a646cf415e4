"""Secure aggregation in rounds: sums of integers, behind masks, with clients that are lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness, test_batchnorm, test_weights
from contracts.test_passes import mime
from contracts.test_stacks import coordinate_median

import fljax
from fljax import algorithms, compression, data, privacy
from fljax.core.algorithm import blank_job
from fljax.core.transforms import Participants, Pipeline
from fljax.engine.plan.round_plan import job_table
from fljax.tasks import classification
from fljax.training.trials import TrialInputs

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

LR, BROKEN = 0.2, 6
# a step of 16 bits is a power of two
UNIT = 32767 * 2.0**-13
COHORTS = [[0, 2, 3, 1, 6, 5, 8], [3, 4, 0, 7, 2], [5, 0, 2, 3, 4, 8, 7]]
LOST = [{3}, {4}, {5, 3}]
TABLES = [
    job_table(cohort, accepted=[client not in lost for client in cohort])
    for cohort, lost in zip(COHORTS, LOST, strict=True)
]


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def clients():
    parts = toy.clients()
    parts[BROKEN] = (np.full_like(parts[BROKEN][0], np.nan), parts[BROKEN][1])
    return parts


def arrived_in(round):
    gone = LOST[round] | {BROKEN, 1}  # client 1 has no rows
    return [client for client in COHORTS[round] if client not in gone]


def run(spec, links, layout=harness.ONE, tables=TABLES, **options):
    return harness.rounds(
        spec, tables, layout, **{"parts": clients(), "pipeline": Pipeline(uplink=links)} | options
    )


def assert_same_state(first, second):
    """Asserts that the servers, and what clients keep, are equal bit for bit."""
    for mine, theirs in zip(first.states, second.states, strict=True):
        jax.tree.map(np.testing.assert_array_equal, mine.server, theirs.server)
    rows = first.client_rows().algorithm, second.client_rows().algorithm
    jax.tree.map(np.testing.assert_array_equal, *rows)


@pytest.mark.parametrize(
    ("spec", "graph", "options", "layout"),
    [
        (
            algorithms.scaffold(LR),
            4,
            {"ring_bits": 20, "clip": {"update": UNIT, "control": UNIT}},
            harness.MANY,
        ),
        (
            mime(LR, 0.5),
            "complete",
            {"by_norm": True, "rounding": "conditional"},
            harness.ONE,
        ),
    ],
    ids=["scaffold", "mime"],
)
def test_masks_change_no_bit_of_a_round(spec, graph, options, layout):
    """Several names in a message, several passes, lost and broken clients.

    Products with steps and rates are exact, so no compiler's choice of operations shows.
    """
    codes = {"bits": 16, "clip": UNIT, "max_weight": 32, **options}
    secure = privacy.secure_aggregation(**codes, graph=graph, threshold=0.4)
    plain = run(spec, (privacy.fixed_point(**codes),), layout)
    hidden = run(spec, (secure,), layout)
    assert_same_state(hidden, plain)
    assert hidden.total("refused", 0) == 0 and hidden.total("nonfinite", 0) == 1


def test_sums_are_those_of_numbers_but_for_rounding():
    """FedAvg by examples: values within a step of the float64 loop, weights exact."""
    arrived = [arrived_in(round) for round in range(3)]
    expected, _ = reference.federated(toy.initial_params(), clients(), arrived, lr=LR, batch_size=4)
    link = privacy.fixed_point(bits=24, clip=4.0, max_weight=31)
    hidden = run(algorithms.fedavg(LR), (link,))
    # three rounds, each a step of max_weight at most, by clients whose weights sum up to 30 or more
    step = 4.0 / (2**23 - 1) * 31 * 7 / 30
    for name, leaf in expected.items():
        np.testing.assert_allclose(hidden.params[name], leaf, rtol=0, atol=6 * step)
    for round in range(3):
        errors = hidden.total("quantization_error", round)
        assert 0 < errors < 1e-9 * hidden.total("quantization_error/weight", round)
        for name in ("clipped_share", "capped_share"):
            assert hidden.total(name, round) == 0
        assert hidden.total("clipped_share/weight", round) == 28 * len(arrived[round])
        bits = set(hidden.by_client("uplink_bits", round).values()) - {0}
        assert bits == {32 * (28 + 1)}


def test_what_is_out_of_range_is_cut_off_and_counted():
    link = privacy.fixed_point(bits=20, clip=0.01, max_weight=10)
    hidden = run(algorithms.fedavg(LR), (link,), tables=TABLES[:1])
    arrived = arrived_in(0)
    params = toy.initial_params()
    weights = [min(10, toy.SIZES[client]) for client in arrived]
    changes = []
    for client in arrived:
        trained, *_ = reference.local_sgd(params, *clients()[client], LR, 4, 1)
        changes.append(reference.combine(np.subtract, trained, params))
    clipped = sum(int((np.abs(leaf) > 0.01).sum()) for c in changes for leaf in c.values())
    assert hidden.total("clipped_share", 0) == clipped > 0
    assert hidden.total("capped_share", 0) == sum(toy.SIZES[client] > 10 for client in arrived)
    for name, leaf in params.items():
        total = sum(
            w * np.clip(change[name], -0.01, 0.01)
            for change, w in zip(changes, weights, strict=True)
        )
        np.testing.assert_allclose(
            hidden.params[name], leaf + total / sum(weights), rtol=0, atol=1e-6
        )


def test_too_few_messages_are_refused():
    """Of five clients two arrive: nothing of them is used, and the next round goes on."""
    tables = [job_table([0, 2, 3, 5, 8], accepted=[True, False, False, True, False]), [0, 2, 3]]
    link = privacy.secure_aggregation(clip=4.0)
    spec = algorithms.fedavg(LR, weighting="uniform")
    hidden = run(spec, (link,), harness.ONE, tables=tables)
    assert [hidden.total("refused", round) for round in (0, 1)] == [2, 0]
    assert [hidden.total("jobs", round) for round in (0, 1)] == [2, 3]
    first, second = (hidden.states[round].server.variables.params for round in (0, 1))
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.tree.map(lambda leaf: leaf[0], first), toy.initial_params(),
    )  # fmt: skip
    assert np.abs(second["w"] - first["w"]).max() > 0


def test_statistics_of_models_are_part_of_the_sum():
    link = privacy.fixed_point(bits=24, clip={"update": 4.0, "model_state": 8.0}, max_weight=31)
    shared = {
        "task": classification(test_batchnorm.Normalized, toy.CLASSES), "parts": toy.clients(),
        "batch_size": test_batchnorm.BATCH,
    }  # fmt: skip
    plain = run(algorithms.fedavg(LR), (), **shared)
    hidden = run(algorithms.fedavg(LR), (link,), **shared)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-3),
        plain.states[-1].server.variables, hidden.states[-1].server.variables,
    )  # fmt: skip


def test_weights_of_sub_models_are_part_of_the_sum():
    link = privacy.fixed_point(bits=26, clip=4.0, max_weight=31)
    hidden = run(test_weights.submodels(), (link,), tables=test_weights.COHORTS, parts=None)
    expected = test_weights.submodels_reference(toy.initial_params())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), hidden.params, expected
    )


def test_trials_that_share_a_program_have_masks_of_their_own():
    """Jobs of two trials take turns in one table; the sums are those of the trials alone."""
    spec, mine, theirs = algorithms.fedavg(LR), [[0, 2, 3, 5], [3, 4]], [[4, 8], [5, 0, 7]]
    tables = [
        job_table([a[0], *b, *a[1:]], trial=[0, *[1] * len(b), *[0] * (len(a) - 1)])
        for a, b in zip(mine, theirs, strict=True)
    ]
    link = privacy.secure_aggregation(clip=4.0, max_weight=31, graph=2)
    shared = {"pipeline": Pipeline(uplink=(link,))}
    inputs = [TrialInputs(seed, spec.hparams) for seed in (0, 7)]
    together = harness.rounds(spec, tables, trials=inputs, **shared)
    for number, (seed, cohorts) in enumerate([(0, mine), (7, theirs)]):
        # one program for both
        alone = harness.drive(harness.prepare(spec, [*mine, *theirs], seed=seed, **shared), cohorts)
        state = jax.tree.map(lambda leaf, n=number: leaf[n : n + 1], together.states[-1])
        toy.assert_close(state, alone.states[-1], 1e-9)


def test_user_weights_may_be_fractions():
    weights = np.linspace(0.0, 0.9, 9)
    shared = {"client_weights": weights, "tables": TABLES}
    plain = run(algorithms.fedavg(LR), (), **shared)
    link = privacy.fixed_point(bits=24, clip=4.0, max_weight=0.9)
    hidden = run(algorithms.fedavg(LR), (link,), **shared)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
        plain.params, hidden.params,
    )  # fmt: skip


def encoded(link, message, draws):
    """Returns ({name: integers [draws, ...]}, report) of one client with a weight of 1."""
    job = blank_job(jax.random.key(0))._replace(weights={name: jnp.ones(()) for name in message})

    @jax.jit
    @jax.vmap
    def encode(key):
        payload, _, report = link.encode(message, (), job, key, ())
        return payload, report

    payload, report = encode(jax.random.split(jax.random.key(1), draws))
    return {name: np.asarray(part["value"], np.int32) for name, part in payload.items()}, report


def test_stochastic_rounding_is_unbiased():
    link, x = privacy.fixed_point(bits=4, clip=7.0), jnp.array([0.25, -1.75, 6.9, -7.0, 3.0])
    draws = encoded(link, {"update": x}, 800)[0]["update"]
    assert np.abs(draws - np.asarray(x)).max() < 1
    np.testing.assert_allclose(draws.mean(0), x, atol=4 * 0.5 / 800**0.5)
    assert (draws[:, 3:] == [-7, 3]).all()


@pytest.mark.parametrize("norm", [0.5, 3.0])
def test_conditional_rounding_bounds_the_norm(norm):
    """Coarse steps, at which rounding alone would often make a message longer than allowed."""
    link = privacy.fixed_point(bits=6, clip=1.0, by_norm=True, rounding="conditional")
    size, step = 400, 1 / 31
    x = np.random.default_rng(0).standard_normal(size)
    x = jnp.asarray(x / np.linalg.norm(x) * norm)
    message = {"update": x[:300], "control": x[300:]}
    codes, report = encoded(link, message, 20)
    sent = np.concatenate([codes["update"], codes["control"]], axis=1) * step
    norms = np.linalg.norm(sent, axis=1)
    assert (norms > 0.9 * min(norm, 1)).all() and (norms <= 1).all()
    assert (report["clipped_share"][0] == (norm > 1)).all()


def test_runs_that_cannot_be_aggregated_securely_are_refused():
    def secure(**arguments):
        return (privacy.secure_aggregation(**arguments),)

    with pytest.raises(ValueError, match=r"7 integers of 31 bits .* Use bits = 29 at most, or sma"):
        run(algorithms.fedavg(LR), secure(bits=31))
    with pytest.raises(ValueError, match=r"ring of 18 bits .* Use bits = 15 at most, or more"):
        run(algorithms.fedavg(LR), secure(bits=17, ring_bits=18))
    with pytest.raises(ValueError, match="bounds for 'update', but clients send 'control' too"):
        run(algorithms.scaffold(LR), secure(clip={"update": 1.0}))
    with pytest.raises(ValueError, match="'update' has numbers of type float64.*fixed_point"):
        run(algorithms.fedavg(LR), (privacy.masks(),))
    with pytest.raises(
        ValueError, match=r"Rounding 28 numbers to 4 bits .* rounding='conditional'"
    ):
        run(algorithms.fedavg(LR), secure(bits=4, by_norm=True))
    for compressor in (compression.top_k(0.5), compression.bf16(), compression.qsgd(8)):
        with pytest.raises(ValueError, match="link 1 sums payloads .* link 0 makes codes of 'upd"):
            run(algorithms.fedavg(LR), (compression.uplink(compressor), *secure()))
    for arguments, message in [
        ({"bits": 1}, "bits .* at least 2"),
        ({"clip": 0.0}, "clip .* above 0"),
        ({"rounding": "up"}, "rounding"),
        ({"rounding": "conditional"}, "Set by_norm=True"),
        ({"by_norm": True, "clip": {"update": 1.0}}, "Give one number"),
        ({"threshold": 0.0}, "threshold .* above 0"),
        ({"ring_bits": 33}, "ring_bits .* at most 32"),
    ]:
        with pytest.raises(ValueError, match=message):
            secure(**arguments)


def test_what_a_sum_hides_no_aggregator_sees():
    pipeline = Pipeline(uplink=(privacy.secure_aggregation(),), aggregator=coordinate_median([]))
    with pytest.raises(ValueError, match="sums payloads.* holds every client's"):
        run(algorithms.fedavg(LR), (), pipeline=pipeline)


def test_a_message_of_a_round_is_uniform():
    link = privacy.masks(ring_bits=8)
    people = Participants(jnp.ones(9, bool), jnp.int32(0), jax.random.key(0))
    job = blank_job(jax.random.key(0))._replace(position=jnp.int32(4))
    message = {"update": jnp.full(2**15, 3, jnp.uint32)}
    sent, _ = link.encode(message, (), job, None, link.agree(people))
    counts = np.bincount(np.asarray(sent["update"]), minlength=256)
    assert counts.size == 256 and abs(counts - 128).max() < 6 * 128**0.5
    assert int(link.bits(sent)) == 8 * 2**15


@pytest.mark.parametrize(
    ("text", "mechanism"),
    [
        ("secure_aggregation(bits=24, clip=2.0)", None),
        ("secure_aggregation(bits=20, graph=4)", privacy.gaussian(0.3, 1.0, delta=1e-3)),
    ],
    ids=["examples", "private"],
)
def test_a_run_by_name_has_the_largest_weight_and_the_clipping_norm(text, mechanism):
    """FedAvg by examples; behind central noise what is sent keeps to the clipping norm."""
    dataset = data.digits(partition="dirichlet", alpha=0.5, num_clients=25)
    spec = algorithms.fedavg(0.1, weighting="uniform" if mechanism else "examples")
    options = {
        "num_rounds": 3, "clients_per_round": 15, "privacy": mechanism, "progress": False,
        "sampler": "poisson" if mechanism else "uniform", "local_steps": 3,
        "devices": 1, "lanes": 2,
    }  # fmt: skip
    with jax.enable_x64(False):  # which holds in this thread alone, and a run has several
        plain = fljax.simulate(dataset, "softmax_regression", spec, eval_every=0, **options)
        hidden = fljax.simulate(
            dataset, "softmax_regression", spec, secure_aggregation=text, **options
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-4),
        plain.variables.params, hidden.variables.params,
    )  # fmt: skip
    curves = hidden.curves
    assert not np.nansum(curves["train/clients_refused"])
    assert not np.nansum(curves["train/capped_share"])
    errors = curves["train/quantization_error"][1:]  # the first entry is the model before any round
    assert (errors > 0).all() and (errors < 1e-4).all()

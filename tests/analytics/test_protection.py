"""Secure sums, and what is refused."""

import numpy as np
import populations
import pytest

import fljax
from fljax import compression, data
from fljax.core.transforms import Pipeline
from fljax.privacy import gaussian

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

SIZES = np.array([3, 0, 2, 5, 1, 4] * 4)
ROWS = SIZES.sum()
X = np.random.default_rng(0).uniform(-1, 3, (ROWS, 2)).astype(np.float32)
PRIVATE = {"privacy": "gaussian", "noise_multiplier": 2.0, "delta": 1e-3, "devices": 1}


@pytest.fixture(scope="module")
def clients():
    return populations.population(SIZES, X)


def test_secure_sums_of_whole_numbers_are_the_plain_ones(clients):
    options = {"column": "x[0]", "clients_per_round": 8, "devices": 1}
    plain = fljax.ask(clients, "histogram(-1, 3, 5)", **options)
    secure = fljax.ask(
        clients, "histogram(-1, 3, 5)", secure_aggregation="secure_aggregation", **options
    )
    assert secure.answer.value.tolist() == plain.answer.value.tolist()
    assert secure.answer.standard_error.tolist() == [0] * 5
    # 32 bits for each of 7 counts, and for the weight
    assert secure.facts["uplink_bytes"] == plain.facts["uplink_bytes"] * 8 // 7


def test_secure_sums_of_fractions_are_right_to_their_steps(clients):
    secure = fljax.ask(
        clients, "mean(-1, 3, weight_cap=5)", column="x",
        secure_aggregation="secure_aggregation(bits=18)", devices=1,
    )  # fmt: skip
    error = secure.answer.standard_error
    assert (0 < error).all() and (error < 1e-4).all()
    assert (np.abs(secure.answer.value - X.astype(float).mean(0)) < 4 * error).all()


def test_messages_may_be_compressed(clients):
    pipeline = Pipeline(uplink=(compression.uplink(compression.qsgd(8)),))
    reply = fljax.ask(clients, "mean", column="x", pipeline=pipeline, devices=1)
    assert reply.answer.standard_error is None
    np.testing.assert_allclose(reply.answer.value, X.mean(0), atol=0.1)


REFUSED = [
    ("mean(weight_cap=1)", PRIVATE, "no bound, so no noise hides it. Give low and high"),
    ("mean(0, 1)", PRIVATE, "Give weight_cap"),
    ("histogram(0, 1)", PRIVATE, "Give weight_cap"),
    ("count_distinct", PRIVATE, "Give items_per_client"),
    ("mean(0, 1, weight_cap=1)", PRIVATE | {"clip_norm": 1.0}, "would cut off messages"),
    (
        "mean(0, 1, weight_cap=1)",
        {"privacy": gaussian(0.5, 1.0, delta=1e-3)},
        "clip_norm = 0.5 would cut off",
    ),
    ("mean(0, 1, weight_cap=1)", PRIVATE | {"privacy": "dpsgd"}, "dpsgd"),
    (
        "mean(0, 1, weight_cap=1)",
        PRIVATE | {"privacy": "adaptive_clipping"},
        "clips no messages to a fixed norm",
    ),
    ("mean(0, 1, weight_cap=1)", PRIVATE | {"clients_per_round": 4}, "as many noises"),
    (
        "quantile(0.5, weight_cap=1)",
        PRIVATE | {"target_epsilon": 3.0},
        "another round would spend more",
    ),
    ("mean", {"secure_aggregation": "secure_aggregation"}, "have no bound"),
    ("mean", {"sample": 2.0}, "sample = 2.0 must be"),
    ("mean", {"sample": 0.99, "cohorts": 9}, "cannot be drawn"),
    ("count_distinct", {"sample": 0.2, "cohorts": 2}, "Ask everybody"),
    (
        "count_distinct(64, items_per_client=1)",
        PRIVATE | {"noise_multiplier": 5.0},
        "would leave nothing",
    ),
    ("mean", {"column": "x[7]"}, "no such column"),
    ("mean", {"column": "z"}, "no such column"),
    ("union_size", {}, "of 0 groups"),
    ("mean", {"seeds": ()}, "give one at least"),
    ('heavy_hitters("abc")', {"column": "x"}, "asks for words"),
]


@pytest.mark.parametrize(("query", "options", "message"), REFUSED)
def test_what_cannot_be_answered_is_refused(clients, query, options, message):
    with pytest.raises(ValueError, match=message):
        fljax.ask(clients, query, **{"column": "x[0]", "devices": 1} | options)


def test_what_is_no_data_set_or_no_option_is_refused(clients):
    with pytest.raises(ValueError, match="a FederatedDataset"):
        fljax.ask(X, "mean")
    with pytest.raises(TypeError, match="Did you mean lanes"):
        fljax.ask(clients, "mean", lane=3)
    digits = data.digits(partition="iid", num_clients=4)
    moving = data.with_concept_drift(digits, "window(0.5)")
    with pytest.raises(ValueError, match="changes from round to round"):
        fljax.ask(moving, "mean")


def test_the_server_s_own_rows_do_not_count():
    clients = data.from_arrays(np.arange(40.0)[:, None], np.arange(40) % 2, num_clients=4)
    rooted = data.with_root(clients, rows=4)
    reply = fljax.ask(rooted, "mean", column="x[0]", devices=1)
    assert reply.facts["rows_read"] == 36 and reply.facts["clients"] == 4


def test_a_sample_with_repeats_has_an_error_of_its_own_even_as_large_as_the_population(clients):
    # 2 cohorts of 12 of 24 clients: some are asked twice, and some never
    sampled = {"sample": 0.99, "cohorts": 2, "column": "x[0]", **PRIVATE}
    reply = fljax.ask(clients, "mean(-1, 3, weight_cap=5)", **sampled)
    assert reply.facts["share"] == 1
    assert "jackknife" in reply.answer.theory
    assert any("other seeds" in what for what in reply.privacy["not_covered"])
    with pytest.raises(ValueError, match="nobody can tell what the others hold"):
        fljax.ask(clients, "count_distinct(64, items_per_client=1)", **sampled)

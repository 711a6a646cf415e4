"""EF21, DIANA and MARINA against float64 NumPy loops over clients."""

import jax
import numpy as np
import pytest
import toy
from compression_reference import LR, TABLES, check_kept, federated, flatten, largest, zeros
from contracts import harness

from fljax import algorithms
from fljax import compression as c
from fljax.core.algorithm import blank_job
from fljax.core.transforms import Pipeline, UplinkLink
from fljax.engine.plan.round_plan import job_table
from fljax.robustness.aggregators.coordinates import median

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

# those with rows: the others never take part
PRESENT = [client for client, size in enumerate(toy.SIZES) if size]
CLIENTS = len(PRESENT)
EVERYONE = [job_table(PRESENT) for _ in range(4)]


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def run_with(link, tables, layout=harness.ONE, weighting="examples"):
    pipeline = Pipeline(uplink=(link,))
    spec = algorithms.fedavg(LR, weighting=weighting)
    return harness.rounds(spec, tables, layout, pipeline=pipeline)


def server_state(run):
    return jax.tree.map(lambda leaf: leaf[0], run.states[-1].pipeline.uplink[0])


def test_ef21_with_a_part_of_the_clients():
    estimates, server = zeros(), np.zeros(28)

    def transmit(client, change, accepted):
        sent = largest(change - estimates[client], 3)
        if accepted:
            estimates[client] = estimates[client] + sent
        return sent

    def receive(mean, jobs):
        nonlocal server
        server = server + jobs / CLIENTS * mean
        return server

    expected = federated(transmit, receive, weighted=False)
    run = run_with(c.ef21(c.uplink(c.top_k(0.1)), CLIENTS), TABLES, harness.MANY, "uniform")
    toy.assert_close(run.params, expected, 1e-9)
    check_kept(run, lambda state: state[1], estimates)
    np.testing.assert_allclose(flatten(server_state(run)), server, rtol=1e-9, atol=1e-12)
    # weights are equal: the server's estimate is the mean of all that have rows
    np.testing.assert_allclose(
        server, np.mean([estimates[client] for client in PRESENT], axis=0), atol=1e-12
    )
    assert set(run.by_client("uplink_bits", 0).values()) == {3 * 64 + 15}


def test_ef21_of_everyone_knows_the_weighted_mean():
    run = run_with(c.ef21(c.uplink(c.top_k(0.1)), CLIENTS), EVERYONE)
    kept = run.client_rows().uplink[0][1]
    sizes = np.asarray(toy.SIZES)
    mean = jax.tree.map(lambda leaf: np.average(leaf, axis=0, weights=sizes), kept)
    toy.assert_close(server_state(run), mean, 1e-9)


def test_diana():
    """With a contraction in place of an unbiased compressor, which a reference could not draw."""
    rate = 0.25
    shifts, server = zeros(), np.zeros(28)

    def transmit(client, change, accepted):
        sent = largest(change - shifts[client], 6)
        if accepted:
            shifts[client] = shifts[client] + rate * sent
        return sent

    def receive(mean, jobs):
        nonlocal server
        update, server = server + mean, server + rate * jobs / CLIENTS * mean
        return update

    expected = federated(transmit, receive)
    run = run_with(c.diana(c.uplink(c.top_k(0.2)), CLIENTS, rate), TABLES)
    toy.assert_close(run.params, expected, 1e-9)
    check_kept(run, lambda state: state[1], shifts)
    np.testing.assert_allclose(flatten(server_state(run)), server, rtol=1e-9, atol=1e-12)


def test_marina():
    run = run_with(c.marina(c.uplink(c.top_k(0.2)), 0.4, seed=3), EVERYONE)
    compressed = 6 * 64 + 28
    bits = [run.by_client("uplink_bits", round) for round in range(len(EVERYONE))]
    # all clients toss one coin; the first round sends everything
    assert all(len(set(by_client.values())) == 1 for by_client in bits)
    whole = [by_client[0] == 28 * 64 for by_client in bits]
    assert whole[0] and {by_client[0] for by_client in bits} == {28 * 64, compressed}
    last, server, round = zeros(), np.zeros(28), 0

    def transmit(client, change, accepted):
        sent = change if whole[round] else largest(change - last[client], 6)
        last[client] = change
        return sent

    def receive(mean, jobs):
        nonlocal server, round
        server = mean if whole[round] else server + mean
        round += 1
        return server

    toy.assert_close(run.params, federated(transmit, receive, EVERYONE), 1e-9)
    check_kept(run, lambda state: state[1], last)


def test_rules_see_what_marina_averages_and_no_changes_of_what_clients_remember():
    link = c.marina(c.uplink(c.top_k(0.2)), 0.4, seed=3)
    update, last, estimate = np.random.default_rng(0).normal(size=(3, 28))
    for round, expected in ((0, update), (1, estimate + largest(update - last, 6))):
        job = blank_job(jax.random.key(0))._replace(round=round)
        payload, _ = link.encode(update, ((), last), job, jax.random.key(0))
        np.testing.assert_allclose(link.decode(payload, estimate), expected, rtol=1e-12)
    pipeline = Pipeline(uplink=(c.ef21(c.uplink(c.top_k(0.1)), CLIENTS),), aggregator=median())
    with pytest.raises(ValueError, match="decodes how updates differ"):
        harness.rounds(algorithms.fedavg(LR), EVERYONE, pipeline=pipeline)


@pytest.fixture(scope="module")
def uncompressed():
    with jax.enable_x64(True):
        return harness.rounds(algorithms.fedavg(LR), EVERYONE).params


@pytest.mark.parametrize(
    "link",
    [
        c.ef21(c.uplink(c.identity()), CLIENTS),
        c.diana(c.uplink(c.identity()), CLIENTS, 0.5),
        c.marina(c.uplink(c.identity()), 0.3),
    ],
    ids=["ef21", "diana", "marina"],
)
def test_lossless_differences_are_no_compression(link, uncompressed):
    toy.assert_close(run_with(link, EVERYONE).params, uncompressed, 1e-9)


def test_wrong_settings_are_named():
    linear = UplinkLink(lambda *args: None, lambda *args: None, linear=True)
    with pytest.raises(ValueError, match="ef21 decodes on the client"):
        c.ef21(linear, 10)
    with pytest.raises(ValueError, match="num_clients must be an integer"):
        c.ef21(c.uplink(c.bf16()), 0)
    with pytest.raises(ValueError, match="rate must lie above 0"):
        c.diana(c.uplink(c.bf16()), 10, 0)

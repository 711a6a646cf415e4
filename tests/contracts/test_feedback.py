"""Samplers that learn from rounds: delayed or at once, and resumed bit for bit."""

import json

import jax
import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms
from fljax.core.sampler import Sampler

CLIENTS = len(toy.SIZES)
DELAYS = {"delayed": 2, "immediate": 0}


def by_loss(feedback, log=None, rounds=None):
    """Draws clients in proportion to their last known loss; notes what it is told in `log`."""

    def select(state, round):
        losses, known = state
        draw = np.random.default_rng((7, round))
        cohort = draw.choice(CLIENTS, 4, replace=False, p=losses / losses.sum())
        if log is not None:
            log.append((round, int(known), cohort.tolist()))
        return cohort, state

    def observe(state, round, statistics):
        losses, known = state[0].copy(), state[1]
        assert round == known + 1
        losses[statistics["client"]] = statistics["loss"] / statistics["weight"]
        if rounds is not None:
            rounds[round] = statistics
        return losses, np.int64(round)

    return Sampler(lambda: (np.ones(CLIENTS), np.int64(-1)), select, 4, observe, feedback)


def simulate(sampler, workdir=None, num_rounds=8, **options):
    defaults = {"batch_size": 4, "eval_every": 4, "devices": 1, "lanes": 2, "progress": False}
    return fljax.simulate(
        toy.dataset(toy.clients()), toy.softmax_task(), algorithms.fedavg(0.5), workdir=workdir,
        num_rounds=num_rounds, clients_per_round=4, sampler=sampler, **(defaults | options),
    )  # fmt: skip


def records(workdir):
    """Records without what depends on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith(("time/", "throughput/"))}
        for line in lines
    ]


@pytest.mark.parametrize("feedback", DELAYS)
def test_a_sampler_with_feedback_is_resumed_bit_for_bit(feedback, tmp_path):
    log, told, delay = [], {}, DELAYS[feedback]
    whole = simulate(by_loss(feedback, log, told), tmp_path / "whole")
    # whatever the devices were at, a round knows those before it but for the delay
    assert [known for _, known, _ in log] == [max(-1, round - 1 - delay) for round in range(8)]
    losses = np.ones(CLIENTS)
    for round, _, cohort in log:
        known = round - 1 - delay
        if known >= 0:
            # a client without rows has nothing to tell
            cohort_then = [client for client in log[known][2] if toy.SIZES[client]]
            assert told[known]["client"].tolist() == cohort_then
            losses[told[known]["client"]] = told[known]["loss"] / told[known]["weight"]
        draw = np.random.default_rng((7, round))
        assert cohort == draw.choice(CLIENTS, 4, False, losses / losses.sum()).tolist()
    assert np.ptp(losses) > 0
    simulate(by_loss(feedback), tmp_path / "parts", num_rounds=4)
    again = []
    resumed = simulate(by_loss(feedback, again), tmp_path / "parts", resume=True)
    assert again == log[4:]
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, whole.variables)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    late = [record.get("sampler/feedback_delay") for record in records(tmp_path / "whole")[1:]]
    assert late == [None] * (delay + 1) + [delay] * (7 - delay)


def test_feedback_that_nobody_gives_is_refused():
    def refused(match, sampler=by_loss("delayed"), **options):  # noqa: B008
        with pytest.raises(ValueError, match=match):
            simulate(sampler, **options)

    refused("rounds_per_dispatch = 2, but the sampler has delayed", rounds_per_dispatch=2)
    refused("local_only.*trains the same cohorts", baselines=("local_only",))
    refused("feedback = 'late'; choose from none, delayed", by_loss("late"))


def test_a_sampler_that_fails_ends_the_run():
    def observe(state, round, statistics):
        raise RuntimeError("no idea")

    with pytest.raises(RuntimeError, match="no idea"):
        simulate(by_loss("delayed")._replace(observe=observe))


def test_a_run_that_fails_wakes_a_waiting_sampler():
    def hook(federation, record):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        simulate(by_loss("immediate"), hooks=(hook,))

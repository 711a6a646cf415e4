"""Rounds that share a dispatch are the rounds they would be alone."""

import json
import os
import signal

import jax
import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms
from fljax.benchmarks.timing import time_rounds
from fljax.core.transforms import Aggregator, Pipeline, ServerLink, UplinkLink
from fljax.training.federation import RoundOptions, build

ROUNDS, TOGETHER = 23, 4
# an end after rounds 10 and 20: two blocks and two single rounds, twice, then three single rounds
BLOCKS = [4, 4, 1, 1, 4, 4, 1, 1, 1, 1, 1]


def federation_of(rounds_per_dispatch, dtype=np.float32, spec=None, **options):
    defaults = {"sampler": "poisson", "clients_per_round": 6, "batch_size": 4, "devices": 2}
    return build(
        toy.dataset(toy.clients(dtype=dtype)),
        toy.softmax_task(dtype),
        spec or algorithms.fedopt("adam", 0.2, 0.05),
        RoundOptions(
            num_rounds=ROUNDS, rounds_per_dispatch=rounds_per_dispatch, **(defaults | options)
        ),
    )


def ends(round):
    return (round + 1) % 10 == 0


def median(stack, cohort, state):
    ordered = jax.numpy.sort(jax.numpy.where(cohort.valid[:, None], stack, np.inf), axis=0)
    return ordered[(cohort.valid.sum() - 1) // 2], state + 1


STATEFUL = Pipeline(
    aggregator=Aggregator("stack", median, lambda params: jax.numpy.int32(0)),
    server=(
        ServerLink(
            lambda aggregate, state, round, key: (aggregate, state + round),
            lambda params: jax.numpy.int32(0),
        ),
    ),
)
CASES = {
    "float32": {},
    "float64, streamed, two lanes": {"dtype": np.float64, "placement": "stream", "lanes": 2},
    "server state, learning rate schedule": {
        "pipeline": STATEFUL,
        "server_lr_schedule": lambda round: 0.9**round,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_results_are_those_of_single_rounds(case):
    with jax.enable_x64(case.startswith("float64")):
        alone, together = (federation_of(count, **CASES[case]) for count in (1, TOGETHER))
        expected = [
            jax.device_get(alone.step(plan, facts)) for plan, facts in alone.plans(0, ROUNDS)
        ]
        found, sizes = [], []
        for plan, facts in together.blocks(range(ROUNDS), ends=ends):
            stats = jax.device_get(together.step_block(plan, facts))
            found += fljax.engine.plan.blocks.unstack(stats, len(facts))
            sizes.append(len(facts))
    assert sizes == BLOCKS
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    jax.tree.map(np.testing.assert_array_equal, together.state, alone.state)


def test_a_block_is_one_dispatch_without_transfers():
    federation = federation_of(TOGETHER)
    programs = federation.program, federation.rounds_program
    calls = []
    federation.program = lambda *args: (calls.append(1), programs[0](*args))[1]
    federation.rounds_program = lambda *args: (calls.append(TOGETHER), programs[1](*args))[1]
    planned = list(federation.blocks(range(ROUNDS), ends=ends))
    with jax.transfer_guard("disallow"):
        for plan, facts in planned:
            state = federation.state
            jax.block_until_ready(federation.step_block(plan, facts))
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert calls == BLOCKS
    assert [program._cache_size() for program in programs] == [1, 1]


def run(workdir, **options):
    """Twelve rounds, two a dispatch, with ends after 3, 4, 6, 8, 9 and 12."""
    defaults = {"rounds_per_dispatch": 2, "eval_every": 3, "checkpoint_every": 4}
    return fljax.simulate(
        toy.dataset(toy.clients(dtype=np.float32)),
        toy.softmax_task(np.float32),
        algorithms.fedopt("adam", 0.2, 0.05),
        num_rounds=12,
        clients_per_round=4,
        batch_size=4,
        sampler="poisson",
        devices=2,
        progress=False,
        workdir=workdir,
        **(defaults | options),
    )


def assert_same(first, second):
    """Asserts equal models and records, apart from what depends on the clock."""
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    records = [
        [
            {
                key: value
                for key, value in json.loads(line).items()
                if not key.startswith(("time/", "throughput/"))
            }
            for line in (run.directory / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (first, second)
    ]
    assert records[0] == records[1]


def test_records_and_checkpoints_are_those_of_single_rounds(tmp_path):
    alone = run(tmp_path / "alone", rounds_per_dispatch=1)
    together = run(tmp_path / "together")
    assert_same(alone, together)
    # entry 0 is the initial model; rounds 1 and 2 share a dispatch, round 3 is evaluated
    seconds = together.curves["time/round_seconds"]
    assert seconds[1] == seconds[2] != seconds[3]
    elapsed = together.curves["time/elapsed_seconds"]
    assert elapsed[2] - elapsed[1] == pytest.approx(seconds[2])


def test_ctrl_c_ends_after_the_block_and_the_run_can_be_resumed(tmp_path):
    def stop(record):
        if record["round"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    sink = fljax.recording.Sink(stop, lambda summary: None, lambda succeeded: None)
    half = run(tmp_path / "parts", sinks=(lambda: sink,), checkpoint_every=0, eval_every=0)
    assert half.interrupted and half.summary["rounds"] in (6, 8)
    options = {"checkpoint_every": 0, "eval_every": 0}
    resumed = run(tmp_path / "parts", resume=True, **options)
    assert_same(run(tmp_path / "whole", **options), resumed)


KEEPING = Pipeline(
    uplink=(
        UplinkLink(
            lambda update, client, state, job, key: (update, client, 0),
            lambda payload, state: payload,
            init_client=lambda params: params["b"],
        ),
    )
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": algorithms.scaffold(0.1)}, "keep state.*Leave it at 1"),
        ({"pipeline": KEEPING}, "keep state.*Leave it at 1"),
        ({"rounds_per_dispatch": -1}, "rounds_per_dispatch = -1"),
        ({"eval_every": 3}, "no effect with eval_every = 3"),
        ({"workdir": "unused", "checkpoint_every": 2}, "no effect with checkpoint_every = 2"),
        ({"hooks": (lambda federation, record: None,)}, "hooks"),
    ],
)
def test_what_cannot_share_a_dispatch_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fljax.simulate(
            toy.dataset(toy.clients(dtype=np.float32)),
            toy.softmax_task(np.float32),
            num_rounds=8,
            clients_per_round=4,
            progress=False,
            **({"rounds_per_dispatch": 4} | options),
        )


def test_timed_rounds_fill_whole_dispatches():
    federation, alone = federation_of(TOGETHER), federation_of(1)
    seconds, facts = time_rounds(federation, 1 + 2 * TOGETHER, 0.0)
    assert [fact.round for fact in facts] == list(range(1 + 2 * TOGETHER))
    assert len(set(seconds[1:5])) == len(set(seconds[5:])) == 1
    time_rounds(alone, 1 + 2 * TOGETHER, 0.0)
    # compiling leaves no trace
    jax.tree.map(np.testing.assert_array_equal, federation.state, alone.state)
    with pytest.raises(ValueError, match="no multiple of rounds_per_dispatch = 4"):
        time_rounds(federation_of(TOGETHER), 8, 0.0)

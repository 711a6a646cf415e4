"""Asynchronous runs that are gone on with: bit for bit, however many versions more rounds keep."""

import json
import shutil

import jax
import numpy as np
import pytest
import toy
from contracts.test_asynchronous_rounds import FEDBUFF, LR, WORLD

import fljax
from fljax import algorithms
from fljax.compression import error_feedback, top_k, uplink
from fljax.core.transforms import Pipeline
from fljax.recording import Checkpoints

ROUNDS = 10


def simulate(workdir, num_rounds=ROUNDS, **options):
    defaults = {
        "batch_size": 4, "eval_every": 5, "devices": 2, "lanes": 2, "progress": False,
        "clients_per_round": 2, "schedule": FEDBUFF, "dropout": WORLD.dropout,
        "profiles": WORLD.fleet().devices,
        "pipeline": Pipeline(uplink=(error_feedback(uplink(top_k(0.25))),)),
    }  # fmt: skip
    return fljax.simulate(
        toy.dataset(toy.clients()), toy.softmax_task(), algorithms.fedavg(LR), workdir=workdir,
        num_rounds=num_rounds, **(defaults | options),
    )  # fmt: skip


def records(workdir):
    """Returns records without what depends on the machine's clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {
            key: value
            for key, value in json.loads(line).items()
            if key == "time/simulated_seconds" or not key.startswith(("time/", "throughput/"))
        }
        for line in lines
    ]


def ring_of(workdir, round):
    return Checkpoints(workdir / "checkpoints").metadata(round)["num_versions"]


def test_a_run_is_gone_on_with_bit_for_bit(tmp_path):
    """Messages take time and are compressed; jobs are under way as a run ends, and buffers fill."""
    whole = simulate(tmp_path / "whole")
    found = records(tmp_path / "whole")
    seconds = [
        record["time/simulated_seconds"] for record in found if "systems/clients_lost" in record
    ]
    assert len(seconds) == ROUNDS and (np.diff(seconds) >= 0).all() and seconds[-1] > 0
    rings = set()
    for start in (1, 9):
        parts = tmp_path / f"parts {start}"
        simulate(parts, start)
        rings.add(ring_of(parts, start))
        resumed = simulate(parts, resume=True)
        jax.tree.map(np.testing.assert_array_equal, resumed.variables, whole.variables)
        assert drop_evaluations(records(parts)) == drop_evaluations(found)
        assert ring_of(parts, ROUNDS) == ring_of(tmp_path / "whole", ROUNDS)
    # later rounds keep more versions at a time than the first ones do
    assert min(rings) < ring_of(tmp_path / "whole", ROUNDS)


def drop_evaluations(found):
    """Returns records without evaluations: the last round of a part has one of its own."""
    return [
        {key: value for key, value in record.items() if not key.startswith(("test/", "eval"))}
        for record in found
    ]


def test_clients_that_are_given_up_are_so_after_a_resume(tmp_path):
    schedule = "fedbuff(concurrency=6, max_staleness=1)"
    whole = simulate(tmp_path / "whole", 6, schedule=schedule)
    simulate(tmp_path / "parts", 3, schedule=schedule)
    resumed = simulate(tmp_path / "parts", 6, schedule=schedule, resume=True)
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, whole.variables)
    late = [record.get("systems/clients_late", 0) for record in records(tmp_path / "whole")]
    assert sum(late) > 0
    assert drop_evaluations(records(tmp_path / "parts")) == drop_evaluations(
        records(tmp_path / "whole")
    )


PLAIN = {"pipeline": Pipeline()}


@pytest.fixture(scope="module")
def often(tmp_path_factory, quick_compilation, weights_as_written):
    """A run with many checkpoints: (directory, variables)."""
    directory = tmp_path_factory.mktemp("often")
    with jax.enable_x64(True):
        whole = simulate(directory, checkpoint_every=2, keep_checkpoints=9, **PLAIN)
    return directory, whole.variables


@pytest.mark.parametrize("rounds", [ROUNDS, 3])
def test_a_killed_run_is_gone_on_with_to_another_end(rounds, often, tmp_path):
    """Its checkpoint has as many versions as all rounds keep; fewer rounds may keep fewer."""
    killed = shutil.copytree(often[0], tmp_path / "killed")
    kept = killed / "checkpoints"
    for checkpoint in Checkpoints(kept).rounds()[1:]:
        shutil.rmtree(kept / str(checkpoint))
    before = ring_of(killed, 2)
    resumed = simulate(killed, rounds, resume=True, **PLAIN)
    whole = often[1] if rounds == ROUNDS else simulate(None, rounds, **PLAIN).variables
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, whole)
    assert (ring_of(killed, rounds) < before) == (rounds < ROUNDS)

"""Invariant 6, and one executable and one dispatch a round."""

import gc
import os

import jax
import numpy as np
import pytest
import toy

from fljax import algorithms
from fljax.training.federation import RoundOptions, build


def federation_of(num_rounds, spec=None, **options):
    defaults = {"sampler": "poisson", "clients_per_round": 12, "batch_size": 4, "devices": 2}
    sizes = np.random.default_rng(0).integers(0, 40, 40)
    return build(
        toy.dataset(toy.clients(sizes, dtype=np.float32)),
        toy.softmax_task(np.float32),
        spec or algorithms.fedavg(0.1),
        RoundOptions(num_rounds=num_rounds, **(defaults | options)),
    )


def test_nothing_recompiles_on_varying_cohorts():
    federation = federation_of(25)
    sizes = set()
    for plan, facts in federation.plans(0, 25):
        federation.step(plan, facts)
        sizes.add(facts.num_jobs)
        assert federation.program._cache_size() == 1
    assert len(sizes) > 5


@pytest.mark.parametrize("spec", [algorithms.fedavg(0.1), algorithms.scaffold(0.1)])
def test_a_round_is_one_program_without_transfers(spec):
    federation = federation_of(6, spec)
    calls = []
    program = federation.program

    def counted(*args):
        calls.append(args)
        return program(*args)

    federation.program = counted
    plans = list(federation.plans(0, 6))
    with jax.transfer_guard("disallow"):
        for plan, facts in plans:
            federation.step(plan, facts)
    assert len(calls) == 6
    assert program._cache_size() == 1


def test_the_program_donates_its_state_and_calls_no_host():
    federation = federation_of(1, algorithms.fedopt("adam", 0.1))
    ((plan, facts),) = federation.plans(0, 1)
    rows = federation.store.gather(facts.trials, facts.clients)
    compiled = federation.program.lower(federation.state, rows, plan, federation.inputs).compile()
    text = compiled.as_text()
    assert "callback" not in text and "infeed" not in text and "outfeed" not in text
    state = federation.state
    federation.step(plan, facts)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_memory_does_not_grow():
    """Slope below 1 MB per 100 rounds after round 50, on the devices and in the process."""
    federation = federation_of(450, algorithms.fedopt("adam", 0.1))
    device, host = [], []
    for plan, facts in federation.plans(0, 450):
        stats = jax.device_get(federation.step(plan, facts))
        del stats, plan
        if facts.round in (50, 449):
            gc.collect()
            device.append(sum(array.nbytes for array in jax.live_arrays()))
            with open("/proc/self/statm") as file:
                host.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert (device[1] - device[0]) / 4 < 1e6
    assert (host[1] - host[0]) / 4 < 1e6

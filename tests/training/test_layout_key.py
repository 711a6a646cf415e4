"""Layouts are remembered under what they depend on: the same in every process, apart for others."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fljax
from fljax import algorithms, tasks
from fljax import compression as c
from fljax.core.fast_layers import with_fast_convolutions
from fljax.core.transforms import Pipeline
from fljax.training import execution, federation
from fljax.training.layout_key import key_of, operations
from fljax.training.options import RoundOptions


class Net(nnx.Module):
    def __init__(self, stride, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), strides=stride, rngs=rngs)
        self.dense = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.conv(x).mean((1, 2)))


@pytest.fixture
def facts_of(monkeypatch):
    draw = np.random.default_rng(0)
    data = fljax.data.from_arrays(
        draw.standard_normal((60, 12, 12, 3)).astype(np.float32),
        draw.integers(0, 3, 60).astype(np.int32),
        partition="iid", num_clients=6, num_classes=3,
    )  # fmt: skip
    monkeypatch.setattr(federation, "calibrate", lambda assemble, memory, facts, *_: facts)
    monkeypatch.setattr(execution, "_CALIBRATED_SECONDS", 0.0)

    def facts(stride=1, spec=None, form="auto", **options):
        task = tasks.classification(with_fast_convolutions(partial(Net, stride), form), 3)
        own = {"num_rounds": 60, "clients_per_round": 3, "batch_size": 5}
        spec = spec or algorithms.fedavg(0.1)
        return federation.build(data, task, spec, RoundOptions(**(own | options)))

    return facts


def test_work_that_differs_has_another_key(facts_of):
    up = lambda link: {"pipeline": Pipeline(uplink=(link,))}  # noqa: E731
    down = lambda link: {"pipeline": Pipeline(downlink=(link,))}  # noqa: E731
    others = [
        {}, {"stride": 6}, {"stride": 6, "form": "gemm"}, {"batch_size": 4},
        {"spec": algorithms.scaffold(0.1)},
        up(c.uplink(c.qsgd(8))), up(c.uplink(c.qsgd(8), per_leaf=True)),
        up(c.uplink(c.top_k(0.01))),
        up(c.uplink(c.drive())), up(c.uplink(c.top_k(0.1))), down(c.downlink(c.qsgd(8))),
    ]  # fmt: skip
    keys = [key_of(facts_of(**changes)) for changes in others]
    assert len(set(keys)) == len(others)
    assert key_of(facts_of(seed=5, num_rounds=99)) == keys[0]


CODE = """
import jax, jax.numpy as jnp
from fljax.training.layout_key import key_of, operations
print(operations(lambda x: jax.lax.map(lambda row: jax.nn.relu(row) @ x, x), jnp.ones((3, 3))))
"""


def test_a_checksum_of_operations_is_the_same_everywhere():
    found = operations(lambda x: jax.lax.map(lambda row: jax.nn.relu(row) @ x, x), jnp.ones((3, 3)))
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
    assert operations(jnp.sin, jnp.ones(3)) != operations(jnp.sin, jnp.ones(4))
    assert operations(jnp.sin, jnp.ones(3)) != operations(jnp.cos, jnp.ones(3))

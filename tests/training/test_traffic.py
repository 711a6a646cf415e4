"""Bytes between memory and processor are counted as a person counts them."""

import jax
import jax.numpy as jnp
import pytest

from fljax import models
from fljax.systems.hardware import hardware
from fljax.tasks import classification
from fljax.training.edge_costs import RoundWork, described, round_cost
from fljax.training.liveness import moved_bytes
from fljax.training.traffic import training_traffic


def moved(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return moved_bytes(jax.make_jaxpr(function)(*arrays).jaxpr)


def test_products_read_and_write_and_what_is_entry_by_entry_is_done_with_them():
    a, b, out = 4 * 3 * 5, 4 * 5 * 7, 4 * 3 * 7
    assert moved(jnp.dot, (3, 5), (5, 7)) == pytest.approx(a + b + 2 * out, abs=out)
    # a ReLU before the product needs its input once more at most
    relu = moved(lambda x, w: jnp.maximum(x, 0) @ w, (3, 5), (5, 7))
    assert relu <= moved(jnp.dot, (3, 5), (5, 7)) + 2 * a


def test_a_loop_reads_its_weights_in_every_turn():
    def loop(w, x, turns):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=turns)[0]

    once, ten = (moved(lambda w, x, n=n: loop(w, x, n), (50, 50), (1, 50)) for n in (1, 10))
    assert 9 * 4 * 50 * 50 <= ten - once <= 9 * 4 * (50 * 50 + 6 * 50)


def test_a_step_reads_and_writes_the_parameters():
    spec = {"x": jax.ShapeDtypeStruct((1000,), jnp.float32), "y": jax.ShapeDtypeStruct((), int)}
    task = classification(models.softmax_regression(1000, 10), 10)
    weights, rows = 4 * 10 * 1000, 4 * 1000 * 5
    found = training_traffic(task, spec, 5)
    # forward reads weights and rows; backward reads rows, writes gradients; the update has three;
    # padding of rows, and gradients as a part of the round, are passes of their own
    assert 5 * weights + 2 * rows <= found <= 8 * weights + 5 * rows


def test_a_round_on_a_device_by_hand():
    work = RoundWork(20, 9.24e9, 1e6, 1e6, downlink_bytes=1e6, uplink_bytes=2e6)
    cost = round_cost(hardware("raspberry_pi_5"), work, uplink_mbps=16, downlink_mbps=8)
    assert cost.training.seconds == pytest.approx(20 * (1 + 1e-4))
    assert cost.transfer_seconds == pytest.approx(2.0)
    assert cost.joules == pytest.approx(9.8 * 20.002 + 1.0 * 2)
    small = hardware("mcu_cortex_m4")
    assert "does not fit: training takes 1.00 MB of 256.00 kB" == described(
        small, work, round_cost(small, work)
    )
    assert round_cost(small, work).transfer_seconds == pytest.approx(24 / 5)  # 5 Mbit/s

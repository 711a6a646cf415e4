"""Jobs in seconds: phases, spread, FLOPs."""

from __future__ import annotations

import numpy as np
import pytest

from fljax.systems.devices import Devices, equal
from fljax.systems.jobs import job_times, with_flops

N = 6


def devices(spread: float = 0.0) -> Devices:
    rng = np.random.default_rng(0)
    step, up, down = rng.uniform(0.1, 9, (3, N))
    never = np.full(N, np.inf)
    return Devices(step, None, up, down, never, np.ones(N), np.ones(N), spread=spread)


def test_phases_are_bytes_over_links_and_steps_times_seconds():
    phones, clients, steps = devices(), np.array([4, 0, 4]), np.array([3, 0, 7])
    times = job_times(phones, clients, steps, 1e6, np.array([2e6, 0.0, 5e5]))
    for job, client in enumerate(clients):
        bits_up = 8 * [2e6, 0.0, 5e5][job]
        assert times.download[job] == pytest.approx(8e6 / (1e6 * phones.downlink_mbps[client]))
        assert times.compute[job] == steps[job] * phones.step_seconds[client]
        assert times.upload[job] == pytest.approx(bits_up / (1e6 * phones.uplink_mbps[client]))
    assert np.array_equal(times.total, times.download + times.compute + times.upload)


def test_links_without_bound_take_no_time():
    times = job_times(equal(3, 2.0), np.arange(3), 5, 1e12, 1e12)
    assert times.total.tolist() == [10.0] * 3


def test_no_jobs_take_no_time():
    for spread in (0.0, 1.0):
        times = job_times(devices(spread), np.zeros(0, np.int64), np.zeros(0, np.int64), 1.0, 1.0)
        assert times.total.shape == (0,) and times.total.dtype == np.float64


def test_a_spread_has_median_one_and_its_deviation_and_is_one_factor_of_a_job():
    sigma, number = 0.7, np.arange(20_000)
    clients = np.full(len(number), 3)
    plain = job_times(devices(), clients, 2, 1e6, 1e6)
    spread = job_times(devices(sigma), clients, 2, 1e6, 1e6, seed=5, number=number)
    logs = np.log(spread.total / plain.total)
    assert abs(np.median(logs)) < 0.03 and abs(logs.std() - sigma) < 0.02
    for phase, alike in zip(spread, plain, strict=True):
        assert np.allclose(np.log(phase / alike), logs)


def test_a_job_is_the_same_whoever_else_works():
    phones = devices(1.0)
    all_of_them = job_times(phones, np.arange(N), 2, 1e6, 1e6, seed=1, number=np.arange(N))
    alone = job_times(phones, np.array([2]), 2, 1e6, 1e6, seed=1, number=2)
    assert alone.total[0] == all_of_them.total[2]
    again = job_times(phones, np.array([2, 2]), 2, 1e6, 1e6, seed=1, number=np.array([3, 4]))
    assert len({alone.total[0], *again.total}) == 3
    assert job_times(phones, np.array([2]), 2, 1e6, 1e6, seed=2, number=2).total != alone.total


def test_flops_become_seconds():
    rates = np.array([1e9, 4e9])
    phones = equal(2)._replace(step_seconds=None, flops=rates)
    with pytest.raises(ValueError, match=r"FLOP/s.*with_flops"):
        job_times(phones, np.array([0]), 1, 0, 0)
    timed = with_flops(phones, np.array([1e9, 2e9]))
    assert timed.step_seconds.tolist() == [1.0, 0.5]
    assert with_flops(phones, 4e9).step_seconds.tolist() == [4.0, 1.0]
    assert job_times(with_flops(phones, 4e9), np.array([1]), 3, 0, 0).compute.tolist() == [3.0]


@pytest.mark.parametrize("work", [0, -1.0, np.inf, np.nan, np.array([1.0, 0.0])])
def test_steps_without_work_are_refused(work):
    phones = equal(2)._replace(step_seconds=None, flops=np.ones(2))
    with pytest.raises(ValueError, match="flops_per_step"):
        with_flops(phones, work)


def test_flops_are_asked_of_devices_that_say_them():
    with pytest.raises(ValueError, match=r"devices\.flops is None"):
        with_flops(equal(2), 1e9)


def test_links_that_vary_are_normal_and_positive():
    """A normal distribution cut at zero, by its quantiles; each link of a job has its own draw."""
    phones = equal(N, 1.0)._replace(
        uplink_mbps=np.full(N, 4.0), uplink_sd=np.full(N, 4.0),
        downlink_mbps=np.full(N, 9.0), downlink_sd=np.full(N, 1.0),
    )  # fmt: skip
    jobs = np.arange(40_000)
    times = job_times(phones, np.full(len(jobs), 2), 1, 1e6, 1e6, 3, jobs)
    up, down = 8 / times.upload, 8 / times.download
    drawn = np.random.default_rng(0).normal(4, 4, 400_000)
    chances = np.linspace(0.05, 0.95, 10)
    assert (up > 0).all()
    assert np.allclose(np.quantile(up, chances), np.quantile(drawn[drawn > 0], chances), atol=0.1)
    assert abs(down.mean() - 9) < 0.03 and abs(down.std() - 1) < 0.03
    assert abs(np.corrcoef(up, down)[0, 1]) < 0.02
    alone = job_times(phones, np.array([2]), 1, 1e6, 1e6, 3, 17)
    assert alone.total[0] == times.total[17]

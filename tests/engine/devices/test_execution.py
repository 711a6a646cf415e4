"""Execution plans: what is given is kept, what does not fit is refused."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.engine.devices import execution
from fljax.engine.devices.execution import (
    AXIS,
    ClientBytes,
    Forms,
    choose,
    device_memory_bytes,
    even_lanes,
    make_mesh,
)

GB = 10**9


def plan(**options):
    defaults = {
        "cohort": 100,
        "equal_steps": False,
        "data_bytes": 10**6,
        "param_bytes": 10**6,
        "needs_stack": False,
        "memory_bytes": 100 * GB,
    }
    return choose(**(defaults | options))


@given(
    devices=st.integers(1, 4),
    lanes=st.integers(1, 64),
    wave=st.integers(1, 64),
    placement=st.sampled_from(["device", "stream"]),
)
def test_given_values_are_kept(devices, lanes, wave, placement):
    given = {"devices": devices, "lanes": lanes, "wave": wave, "placement": placement}
    found = plan(**given)
    assert found._asdict() == given | {"exchange_size": 1, "forms": Forms()}


def test_a_cpu_device_trains_one_client_at_a_time():
    found = plan()
    assert (found.lanes, found.wave, found.exchange_size) == (1, 1, 1)
    assert found.devices == jax.device_count()


def test_lanes_of_equal_clients_are_exchanged_together():
    found = plan(equal_steps=True, lanes=4, wave=2)
    assert found.exchange_size == 4
    # all lanes may end at once, so a wave holds them all
    assert found.wave == 4
    assert plan(equal_steps=True, lanes=1).exchange_size == 1


def on_accelerator(monkeypatch, size=1):
    device = SimpleNamespace(platform="gpu")
    mesh = SimpleNamespace(size=size, local_devices=size * [device])
    monkeypatch.setattr(execution, "make_mesh", lambda devices: mesh)


def test_lanes_of_accelerators_exchange_together(monkeypatch):
    on_accelerator(monkeypatch)
    found = plan(devices=1)
    assert (found.lanes, found.wave, found.exchange_size) == (50, 50, 50)
    # a wave that is given is what exchanges together, as far as there are lanes for it
    assert plan(devices=1, lanes=50, wave=10).exchange_size == 10
    assert plan(devices=1, lanes=50, wave=51).exchange_size == 1
    assert plan(devices=1, lanes=1).exchange_size == 1


def test_data_is_streamed_where_it_would_take_a_quarter_of_the_memory():
    copies = 2
    fits = 100 * GB // 4 // copies
    assert plan(devices=copies, data_bytes=fits).placement == "device"
    assert plan(devices=copies, data_bytes=fits + 1).placement == "stream"
    assert plan(devices=copies, data_bytes=fits + 1, placement="device").placement == "device"


@pytest.mark.parametrize(
    ("options", "figures"),
    [
        ({"lanes": 50, "param_bytes": GB}, "50 lanes.*1000.0 MB.*100.00 GB"),
        ({"wave": 60, "param_bytes": GB}, "waves of 60"),
        ({"needs_stack": True, "cohort": 1000, "param_bytes": GB}, "holds every update"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_figures(options, figures):
    with pytest.raises(ValueError, match=figures):
        plan(devices=1, **options)


def test_a_stack_counts_the_whole_cohort(monkeypatch):
    """The same cohort fits where updates are summed as they come."""
    options = {"devices": 1, "cohort": 1000, "param_bytes": GB // 10}
    assert plan(**options).devices == 1
    with pytest.raises(ValueError, match="cohort of 1000"):
        plan(**options, needs_stack=True)
    # CPU devices are of one memory, accelerators have one each
    with pytest.raises(ValueError, match="cohort of 1000"):
        plan(**options | {"devices": 4}, needs_stack=True)
    on_accelerator(monkeypatch, size=4)
    assert plan(**options | {"lanes": 1}, needs_stack=True).devices == 4


def test_unknown_placements_and_devices_are_refused():
    with pytest.raises(ValueError, match="placement = 'disk'.*'stream'"):
        plan(placement="disk")
    many = jax.device_count() + 1
    with pytest.raises(ValueError, match=f"devices = {many}, but JAX sees {many - 1} cpu"):
        plan(devices=many)


def test_a_mesh_has_one_axis_over_the_first_devices():
    mesh = make_mesh(2)
    assert mesh.axis_names == (AXIS,)
    assert list(mesh.devices) == jax.devices()[:2]
    assert make_mesh().size == jax.device_count()


def test_memory_is_measured_where_it_is_not_given():
    assert device_memory_bytes(jax.devices()[0]) > 2**28
    with pytest.raises(ValueError, match="GB"):
        plan(memory_bytes=None, param_bytes=10**15)


@pytest.mark.parametrize(
    "setting",
    [
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
        {"XLA_FLAGS": "--xla_cpu_enable_fast_math=false --xla_force_host_platform_device_count=3"},
        {"JAX_NUM_CPU_DEVICES": "3"},
    ],
)
def test_a_number_of_devices_that_is_set_stays(setting):
    program = "import jax, fljax; fljax.use_all_cores(); print(jax.device_count())"
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, env=environment | setting,
    )  # fmt: skip
    assert done.stdout.split() == ["3"]


@given(jobs=st.integers(1, 2000), most=st.integers(1, 300))
def test_even_lanes_take_as_many_turns_as_more_lanes_would(jobs, most):
    lanes = even_lanes(jobs, most)
    turns = -(-jobs // most)
    assert lanes <= most and -(-jobs // lanes) == turns
    # with one lane less, some job would wait for one more turn
    assert lanes == 1 or -(-jobs // (lanes - 1)) > turns


@pytest.mark.parametrize(
    ("jobs", "carry", "lanes"),
    [(100, 1, 50), (64, 1, 64), (65, 1, 33), (10, 1, 10), (1000, 1, 63), (1000, GB, 10)],
)
def test_lanes_of_an_accelerator_follow_the_cohort_and_its_memory(monkeypatch, jobs, carry, lanes):
    on_accelerator(monkeypatch)
    # half of 100 GB holds ten clients that take 5 GB each
    client = ClientBytes(carry, 4 * carry, 0)
    found = plan(cohort=jobs, client=client)
    assert (found.lanes, found.wave) == (lanes, lanes)


def test_what_clients_take_is_refused_where_it_does_not_fit():
    assert plan(devices=1, lanes=20, client=ClientBytes(GB, GB, GB)).lanes == 20
    with pytest.raises(ValueError, match="40 lanes.*need about 121.00 GB.*has 100.00 GB"):
        plan(devices=1, lanes=40, wave=1, client=ClientBytes(GB, 2 * GB, GB))

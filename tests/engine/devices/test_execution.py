"""Execution plans: what is given is kept, what does not fit is refused."""

import os
import subprocess
import sys

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.engine.devices.execution import AXIS, choose, device_memory_bytes, make_mesh

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
    assert found._asdict() == given | {"exchange_size": 1}


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


def test_a_stack_counts_the_whole_cohort():
    """The same cohort fits where updates are summed as they come."""
    options = {"devices": 1, "cohort": 1000, "param_bytes": GB // 10}
    assert plan(**options).devices == 1
    with pytest.raises(ValueError, match="cohort of 1000"):
        plan(**options, needs_stack=True)


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

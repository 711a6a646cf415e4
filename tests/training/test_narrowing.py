"""Runs that do not fit into a device's memory go on fewer lanes, or say what to lower."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import exhausted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from exhausted import EXHAUSTED

import fljax
from fljax import algorithms
from fljax.core.trees import nbytes
from fljax.engine.devices.execution import free_memory_of
from fljax.engine.devices.memory import DoesNotFit, exhaustion, program_bytes
from fljax.training import autotuning, federation, partial_rounds
from fljax.training.federation import Federation
from fljax.training.options import RoundOptions

# what does not fit is collected before the next try
pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written", "few_objects")


@pytest.fixture
def four_lanes(monkeypatch):
    """The rule gives four lanes, as on an accelerator."""
    exhausted.lay_out_on(monkeypatch, 4)


@pytest.fixture
def memory(monkeypatch, four_lanes):
    """Devices have memory of their own; returns the function that says how much."""
    monkeypatch.setattr(partial_rounds, "has_own_memory", lambda mesh: True)
    return lambda size: monkeypatch.setattr(partial_rounds, "memory_of", lambda mesh: size)


@pytest.fixture
def a_gigabyte_each(monkeypatch):
    """The program takes one for each lane; nothing is compiled."""

    def compile_block(self, plan, facts):
        sizes = dict.fromkeys(("output", "alias", "temp"), 0) | {
            "argument": 10**9 * self.execution.lanes
        }
        analysis = SimpleNamespace(**{f"{name}_size_in_bytes": n for name, n in sizes.items()})
        return lambda: SimpleNamespace(memory_analysis=lambda: analysis)

    monkeypatch.setattr(Federation, "compile_block", compile_block)
    monkeypatch.setattr(partial_rounds, "seconds_of", lambda *_: 0.0)


def _build(**options):
    setting = {"num_rounds": 3, "clients_per_round": 8, "batch_size": 4, "devices": 1}
    return federation.build(
        toy.dataset(toy.clients(dtype=np.float32)), toy.softmax_task(np.float32),
        algorithms.fedavg(0.05), RoundOptions(**(setting | options)),
    )  # fmt: skip


def test_a_program_is_counted_as_xla_counts_it():
    double = jax.jit(lambda x: 2 * x, donate_argnums=0)
    # what takes the place of a donated argument counts once
    assert program_bytes(double.lower(jnp.ones(1000)).compile()) == 4000
    product = jax.jit(lambda x, y: x @ y).lower(jnp.ones((100, 10)), jnp.ones((10, 100)))
    assert program_bytes(product.compile()) >= 4000 + 4000 + 40_000


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_lanes_are_halved_until_the_program_fits(memory, a_gigabyte_each, lanes):
    memory(lanes * 10**9)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert _build().execution.lanes == lanes
    lines = [
        f"{n} lanes do not fit into the memory of a device: the round program needs {n}.00 GB, as "
        f"XLA says, and the device has {lanes}.00 GB for it. Going on with {n // 2}."
        for n in (4, 2)
        if n > lanes
    ]
    assert [str(warning.message) for warning in said] == lines


def test_what_others_have_taken_of_a_device_is_not_free(memory, a_gigabyte_each, monkeypatch):
    memory(10**10)
    taken = lambda size: monkeypatch.setattr(partial_rounds, "taken_bytes", lambda _: size)  # noqa: E731
    built = _build(lanes=1, wave=1)
    own = nbytes((built.state, built.inputs._replace(keys=())))
    assert own > 100
    taken(own)
    assert partial_rounds.room_of(built) == pytest.approx(10**10, abs=100), "its own count once"
    taken(own + 7 * 10**9)
    assert partial_rounds.room_of(built) == pytest.approx(3 * 10**9, abs=100)
    with pytest.warns(UserWarning, match="needs 4.00 GB, .* the device has 3.00 GB for it. .* 2"):
        assert _build().execution.lanes == 2


def test_the_backend_says_what_is_free():
    stats = {"bytes_limit": 8 * 10**9, "bytes_in_use": 10**9, "peak_bytes_in_use": 2 * 10**9}
    device = SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    assert free_memory_of(SimpleNamespace(local_devices=[device])) == 7 * 10**9
    silent = SimpleNamespace(platform="gpu", memory_stats=lambda: None)
    assert free_memory_of(SimpleNamespace(local_devices=[silent])) > 2**28


def test_what_does_not_fit_on_one_lane_or_on_chosen_ones_is_refused(memory, a_gigabyte_each):
    memory(10**9 - 1)
    with warnings.catch_warnings(action="ignore"), pytest.raises(DoesNotFit, match="lanes = 1 "):
        _build()
    with pytest.raises(ValueError, match="lanes = 4 with waves of 2 .* needs 4.00 GB, as XLA says"):
        _build(lanes=4, wave=2)


def test_xla_says_what_a_round_needs(memory, monkeypatch):
    memory(10**9)
    needed = []
    for lanes in (2, 4):
        built = _build(lanes=lanes, wave=lanes)
        needed.append(
            partial_rounds.fitting_bytes(built, *built.plan_round(0, built.cohorts.init()))
        )
    assert 0 < needed[0] < needed[1] < 10**6
    memory(needed[0])
    # the search of accelerators, on a real program
    monkeypatch.setattr(autotuning, "_on_cpu", lambda timing: False)
    monkeypatch.setattr(autotuning, "_ASKED_SECONDS", 1e6)
    monkeypatch.setattr(autotuning, "_BUDGET_SECONDS", 1e6)
    with pytest.warns(UserWarning, match="Going on with 2"):
        found = _build(calibrate=True)
    assert found.execution.lanes in (1, 2) and found.calibration_seconds > 0


def test_memory_that_runs_out_at_run_time_is_a_layout_that_does_not_fit(
    memory, a_gigabyte_each, monkeypatch
):
    memory(10**10)

    def exhausted(built, plan, facts):
        if built.execution.lanes > 2:
            raise jax.errors.JaxRuntimeError(EXHAUSTED)
        return 0.0

    monkeypatch.setattr(partial_rounds, "seconds_of", exhausted)
    with pytest.warns(UserWarning, match="4 lanes do not fit.*allocate 1234 bytes.*with 2"):
        assert _build().execution.lanes == 2
    with pytest.raises(ValueError, match="RESOURCE_EXHAUSTED.*Lower lanes, wave, batch_size"):
        _build(lanes=3)


def test_other_errors_of_xla_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), exhaustion(None):
        raise jax.errors.JaxRuntimeError("INTERNAL: RESOURCE_EXHAUSTED is not how it begins")


def _run(workdir, **options):
    kept = {} if workdir is None else {"checkpoint_every": 2}
    setting = {"eval_every": 3, "progress": False, "devices": 1} | kept
    return fljax.simulate(
        toy.dataset(toy.clients(dtype=np.float32)), toy.softmax_task(np.float32),
        algorithms.fedavg(0.1), num_rounds=6, clients_per_round=4, batch_size=4, workdir=workdir,
        **(setting | options),
    )  # fmt: skip


@pytest.fixture
def exhausted_in_round(monkeypatch):
    """Returns the function that lets memory run out in a round on more than two lanes."""
    return lambda number: exhausted.run_out(monkeypatch, lambda _, facts: facts.round >= number)


@pytest.mark.parametrize(("kept", "round"), [(True, 4), (False, 0)])
def test_a_run_goes_on_with_fewer_lanes(four_lanes, exhausted_in_round, tmp_path, kept, round):
    plain = _run(None, lanes=1, wave=1)
    exhausted_in_round(round)
    workdir = tmp_path / "run" if kept else None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = _run(workdir)
    said = [str(warning.message) for warning in said if "lanes do not fit" in str(warning.message)]
    assert [line.split()[0] for line in said] == ["4"]
    assert found.summary["rounds"] == 6 and found.rounds.tolist() == plain.rounds.tolist()
    for got, want in zip(*(jax.tree.leaves(run.variables) for run in (found, plain)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    if kept:
        config = json.loads((Path(workdir) / "config.json").read_text())
        assert config["execution"]["lanes"] == 2 and config["lanes"] == 0


def test_a_remembered_layout_that_runs_out_of_memory_is_remembered_narrower(
    exhausted_in_round, tmp_path, monkeypatch
):
    monkeypatch.setenv("FLJAX_CACHE_DIR", str(tmp_path))
    _run(None, calibrate=True, rounds_per_dispatch=1)
    (file,) = tmp_path.glob("layouts.json")
    ((key, (devices, _, _, *rest)),) = json.loads(file.read_text()).items()
    file.write_text(json.dumps({key: [devices, 4, 4, *rest]}))
    exhausted_in_round(4)
    with pytest.warns(UserWarning, match="4 lanes do not fit"):
        _run(None, calibrate=True, rounds_per_dispatch=1)
    assert json.loads(file.read_text()) == {key: [devices, 2, 2, *rest]}


def test_memory_that_runs_out_at_the_start_is_a_layout_that_does_not_fit(monkeypatch, four_lanes):
    store_of, lanes = federation.store_of, []

    def stored(blueprint, mesh):
        lanes.append(mesh)
        if len(lanes) < 3:
            raise jax.errors.JaxRuntimeError(EXHAUSTED)
        return store_of(blueprint, mesh)

    monkeypatch.setattr(federation, "store_of", stored)
    with pytest.warns(UserWarning, match="4 lanes do not fit|2 lanes do not fit"):
        assert _build().execution.lanes == 1


def test_a_run_on_chosen_lanes_ends_with_what_to_lower(exhausted_in_round):
    exhausted_in_round(2)
    with pytest.raises(ValueError, match="lanes = 3 with waves of 2.*allocate 1234 bytes.*Lower"):
        _run(None, lanes=3, wave=2)

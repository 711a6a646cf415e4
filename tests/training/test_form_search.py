"""Forms of operations on NVIDIA cards: timed on the lanes that were found, remembered with them."""

import json
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest
import toy
from flax import nnx
from machines import FORMS, Machine

import fljax
from fljax import algorithms, models, tasks
from fljax.data import from_arrays
from fljax.engine.devices.execution import Forms
from fljax.training import autotuning, federation, form_search
from fljax.training.autotuning import Allowance
from fljax.training.execution import JobLayout
from fljax.training.federation import RoundOptions
from fljax.training.partial_rounds import apart
from fljax_kernels import fused_conv

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

CHANGES = [{"conv": "pallas"}, {"fused_updates": True}]
BOTH = Forms(conv="pallas", fused_updates=True)
SPEEDS = {
    "all are faster": ({Forms(conv="pallas"): 2, BOTH: 3}, BOTH),
    "one is": ({Forms(conv="pallas"): 2, BOTH: 2.01}, Forms(conv="pallas")),
    "the other is": ({Forms(fused_updates=True): 1.2}, Forms(fused_updates=True)),
    "none is": ({Forms(conv="pallas"): 0.3, Forms(fused_updates=True): 1.01}, FORMS),
}


@pytest.fixture(autouse=True)
def alike(monkeypatch):
    """Rounds end where they should; returns the function that says how far from it."""
    set_to = lambda share: monkeypatch.setattr(autotuning, "apart", lambda *_: share)  # noqa: E731
    set_to(1e-3)
    return set_to


def _machine(speeds):
    return Machine(np.full(50, 5), 1e-3, 1e-5, speed=lambda forms: speeds.get(forms, 1))


@pytest.mark.parametrize("name", SPEEDS)
def test_forms_are_timed_on_the_lanes_that_were_found(monkeypatch, name):
    speeds, expected = SPEEDS[name]
    machine = _machine(speeds)
    found = machine.search(monkeypatch, changes=CHANGES)
    assert found.forms == expected
    lanes = [each for each in machine.tried if isinstance(each, int)]
    forms = machine.tried[len(lanes) :]
    assert len(forms) == 2 and all(isinstance(each, Forms) for each in forms)
    assert found.lanes == _machine({}).search(monkeypatch).lanes


def test_the_form_is_remembered_with_the_layout(monkeypatch, tmp_path):
    memory = tmp_path / "layouts.json"
    machine = _machine({Forms(conv="pallas"): 2})
    found = machine.search(monkeypatch, memory=memory, changes=CHANGES)
    ((_, remembered),) = json.loads(memory.read_text()).items()
    assert remembered[5:] == ["pallas", "auto", False]
    monkeypatch.setattr(autotuning, "proven", lambda federation: federation)
    machine.tried = []
    assert machine.search(monkeypatch, memory=memory, changes=CHANGES) == found
    assert machine.tried == []


def test_a_search_whose_time_is_over_tries_no_form(monkeypatch, tmp_path):
    memory, now = tmp_path / "layouts.json", [0.0]
    machine = _machine({Forms(conv="pallas"): 2})
    timed = machine.timed

    def slow(*args):
        now[0] += 3.0
        return timed(*args)

    machine.timed = slow
    monkeypatch.setattr(autotuning.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Allowance, "seconds", lambda self, round_seconds: 7.0)
    # two numbers of lanes take 6 s, of which the first is for nothing
    found = machine.search(monkeypatch, memory=memory, changes=[CHANGES[0], *CHANGES])
    tried = [each for each in machine.tried if isinstance(each, Forms)]
    assert len(tried) == 1 and found.forms == tried[0]
    assert list(json.loads(memory.read_text()).values())[0][4] == 6000, "it was cut short"


def test_what_ends_elsewhere_or_fails_is_left_out_with_a_warning(monkeypatch, alike):
    machine = _machine({Forms(conv="pallas"): 9})
    alike(0.5)
    with pytest.warns(UserWarning, match="convolutions: pallas ends 50% from where it should"):
        assert machine.search(monkeypatch, changes=CHANGES[:1]).forms == FORMS
    timed = machine.timed

    def failing(assemble, layout, allowance=None):
        if layout is not None and layout.forms != FORMS:
            raise NotImplementedError("no such instruction")
        return timed(assemble, layout, allowance)

    machine.timed = failing
    said = r"pallas fails here \(NotImplementedError: no such instruction\), and is left out"
    with pytest.warns(UserWarning, match=said):
        assert machine.search(monkeypatch, changes=CHANGES[:1]).forms == FORMS


def test_a_form_that_ends_the_process_is_tried_once(monkeypatch, tmp_path):
    memory, machine = tmp_path / "layouts.json", _machine({Forms(conv="pallas"): 9})
    timed = machine.timed

    def killed(assemble, layout, allowance=None):
        if layout is not None and layout.forms != FORMS:
            raise SystemExit
        return timed(assemble, layout, allowance)

    machine.timed = killed
    with pytest.raises(SystemExit):
        machine.search(monkeypatch, memory=memory, changes=CHANGES)
    machine.timed = None
    monkeypatch.setattr(autotuning, "proven", lambda federation: federation)
    found = machine.search(monkeypatch, memory=memory, changes=CHANGES)
    assert found.forms == FORMS and found.lanes > 1


@pytest.fixture
def card(monkeypatch):
    """The device is one by NVIDIA, whose lanes are searched by the fit."""
    mesh = SimpleNamespace(local_devices=[SimpleNamespace(device_kind="NVIDIA H200")])
    monkeypatch.setattr(form_search, "make_mesh", lambda devices: mesh)
    monkeypatch.setattr(autotuning, "_on_cpu", lambda timing: False)
    for name in ("_ASKED_SECONDS", "_BUDGET_SECONDS"):
        monkeypatch.setattr(autotuning, name, 1e6)


def _images():
    x = np.random.default_rng(0).normal(size=(48, 20, 20, 1)).astype(np.float32)
    return from_arrays(x, np.arange(48) % 4, partition="iid", num_clients=6)


def _changes(task, data, algorithm=None, **options):
    """Returns what a search would try."""
    found = []

    def tell(assemble, memory, facts, allowance, changes):
        with mock.patch.object(jax, "default_backend", lambda: "gpu"):
            found.extend(changes())

    with mock.patch.object(federation, "calibrate", tell):
        own = {"num_rounds": 3, "clients_per_round": 4, "batch_size": 4, "devices": 1}
        algorithm = algorithm or algorithms.fedavg(0.1)
        federation.build(data, task, algorithm, RoundOptions(**(own | options), calibrate=True))
    return found


def test_what_is_left_open_and_could_be_faster_is_timed(card):
    wide = toy.dataset(toy.clients(dtype=np.float32))
    cnn = tasks.classification(models.lenet_cnn(4, (20, 20, 1)), 4)
    fixed = tasks.classification(models.lenet_cnn(4, (20, 20, 1), conv_form="gemm"), 4)
    images = _images()
    pallas, fused = {"conv": "pallas"}, {"fused_updates": True}
    assert _changes(cnn, images) == [pallas, fused]
    assert _changes(fixed, images) == [fused]
    assert _changes(cnn, images, fused_updates=False) == [pallas]
    momentum = algorithms.fedavg(0.1, client_momentum=0.9)
    assert _changes(cnn, images, momentum) == [pallas]
    assert _changes(cnn, images, compute_dtype="bfloat16") == [pallas]
    text = from_arrays(np.zeros((48, 5), np.int32), np.zeros((48, 5), np.int32), partition="iid",
                       num_clients=6, kind="next_token", num_classes=9)  # fmt: skip
    lstm = tasks.next_token(models.char_lstm(9, hidden=8), 9)
    assert _changes(lstm, text) == [{"lstm": "pallas"}]
    # too small to be noticed
    assert _changes(toy.softmax_task(np.float32), wide) == []


def test_on_other_devices_nothing_is_tried():
    assert _changes(tasks.classification(models.lenet_cnn(4, (20, 20, 1)), 4), _images()) == []


class OneConvolution(nnx.Module):
    """A convolution, and nothing more than its means."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.conv(x[:, :6, :6])).mean((1, 2))


def _run(workdir, **options):
    own = {"num_rounds": 4, "clients_per_round": 4, "batch_size": 4, "devices": 1, "seed": 1}
    return fljax.simulate(
        _images(), tasks.classification(OneConvolution, 4), algorithms.fedavg(0.1),
        workdir=workdir, progress=False, matmul_precision="highest",
        checkpoint_every=2 if workdir else 0, eval_every=0, **(own | options),
    )  # fmt: skip


def test_a_run_keeps_its_form_when_it_is_resumed_and_ends_where_others_do(
    card, monkeypatch, tmp_path
):
    monkeypatch.setenv("FLJAX_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(autotuning, "apart", apart)
    # whatever this machine says of a form for cards
    is_other = lambda timing: timing.federation.execution.forms != FORMS  # noqa: E731
    monkeypatch.setattr(autotuning, "_chosen", lambda a, b: b if is_other(b) else a)
    traced, convolve = [], fused_conv.convolve
    monkeypatch.setattr(fused_conv, "convolve", lambda *args: traced.append(1) or convolve(*args))
    plain = _run(None, lanes=2)
    assert not traced and plain.config["execution"]["conv_form"] == "auto"
    workdir = tmp_path / "run"
    _run(workdir, calibrate=True)
    config = json.loads((workdir / "config.json").read_text())
    assert config["execution"]["conv_form"] == "pallas" and traced
    assert (config["execution"]["lstm_form"], config["execution"]["fused_updates"]) == (
        "auto",
        False,
    )
    monkeypatch.setattr(autotuning, "_timed", None)
    traced.clear()
    resumed = _run(workdir, resume=True, num_rounds=6, calibrate=True)
    assert resumed.config["execution"] == config["execution"] and traced
    again = _run(None, num_rounds=6, calibrate=True)
    assert again.config["execution"]["conv_form"] == "pallas", "as the file of layouts says"
    whole = _run(None, lanes=1, num_rounds=6)
    for found in (resumed, again):
        toy.assert_close(found.variables.params, whole.variables.params, 1e-5)


def test_rounds_that_end_elsewhere_are_told_from_those_that_are_rounded_otherwise():
    task = tasks.classification(OneConvolution, 4)

    def built(rate, forms=FORMS):
        options = RoundOptions(num_rounds=2, clients_per_round=4, batch_size=4)
        layout = JobLayout(1, 2, forms=forms)
        return federation.build(_images(), task, algorithms.fedavg(rate), options, layout=layout)

    first = built(0.1)
    planned = first.plan_round(0, first.cohorts.init())
    assert apart(first, built(0.1, Forms(conv="pallas")), *planned) < 0.01
    assert apart(first, built(0.2), *planned) > 0.5
    assert apart(first, first, *planned) == 0, "and nothing is left behind"

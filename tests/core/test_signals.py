"""Signals in a program of one's own: a run ends after its round, then they mean what they did."""

import os
import signal

import pytest
import toy

import fljax
from fljax import algorithms
from fljax.core import signals

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


@pytest.fixture(autouse=True)
def default_handlers():
    """The handlers that Python starts with; they must be there again after each test."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    for number in signals.SIGNALS:
        is_ctrl_c = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_ctrl_c else signal.SIG_DFL)
    fresh = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    after = {number: signal.getsignal(number) for number in signals.SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == fresh


def run(workdir, *numbers, at=2, **options):
    """Runs five rounds; signals arrive in the round `at`."""

    def hook(federation, record):
        if record["round"] == at:
            for number in numbers:
                os.kill(os.getpid(), number)

    return fljax.simulate(
        toy.dataset(toy.clients()), toy.softmax_task(), algorithms.fedavg(0.1),
        num_rounds=5, clients_per_round=4, progress=False, workdir=workdir, hooks=(hook,),
        **options,
    )  # fmt: skip


def test_ctrl_c_returns_a_run_that_is_saved(tmp_path):
    assert run(tmp_path, signal.SIGINT).interrupted
    assert (tmp_path / "checkpoints" / "2").is_dir()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_program_ends_once_its_run_is_saved(number, code, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        run(tmp_path, number)
    assert left.value.code == code
    assert f"{number.name}: stopped after round 2, saved in {tmp_path}" in capsys.readouterr().err
    assert (tmp_path / "checkpoints" / "2").is_dir()


def test_a_second_one_is_not_held_back(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, signal.SIGTERM, signal.SIGINT)
    assert fljax.load_run(tmp_path).rounds.tolist() == [0, 1]


def test_handlers_of_the_program_and_ignored_signals_stay(tmp_path):
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append("own"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    done = run(tmp_path, signal.SIGTERM, signal.SIGHUP)
    assert not done.interrupted and seen == ["own"]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("at", [2, 5])
def test_a_stopped_run_has_no_baselines_and_resume_runs_them(at, tmp_path):
    stopped = run(tmp_path, signal.SIGINT, at=at, baselines=("centralized",))
    assert stopped.interrupted and not stopped.baselines and stopped.summary["rounds"] == at
    done = run(tmp_path, at=at, baselines=("centralized",), resume=True)
    assert not done.interrupted and done.baselines["centralized"].summary["rounds"] == 5

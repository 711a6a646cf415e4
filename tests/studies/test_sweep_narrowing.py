"""Trials side by side go on with fewer lanes where memory runs out, from their last checkpoint."""

import warnings

import exhausted
import jax
import pytest
from small_sweeps import alone, assert_same_rows, rows_of, small_config

import fljax
from fljax.engine.devices.memory import exhaustion
from fljax.studies import Trial, journal
from fljax.studies.slots import Slots

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

SETTINGS = {"axes": {"client_lr": (0.05, 0.1, 0.3)}, "parallel_trials": 2, "progress": False}
CONFIG = small_config(lanes=0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same trials on one lane."""
    directory = tmp_path_factory.mktemp("plain")
    return fljax.sweep(small_config(), directory, **SETTINGS)


@pytest.fixture
def four_lanes(monkeypatch):
    exhausted.lay_out_on(monkeypatch, 4)


def _lanes_said(said):
    texts = [str(warning.message) for warning in said]
    return [int(text.split()[0]) for text in texts if "lanes do not fit" in text]


@pytest.mark.parametrize(
    ("fails_in", "saves"),
    [(3, 0.0), ("with the third trial", 1e9)],
    ids=["3-often", "with the third trial-at ends alone"],
)
def test_a_sweep_goes_on_with_fewer_lanes(
    plain, four_lanes, monkeypatch, tmp_path, fails_in, saves
):
    monkeypatch.setattr(journal, "_SAVE_SECONDS", saves)

    def is_due(federation, facts):
        if fails_in == "with the third trial":
            return 0.3 in {trial.hparams["client_lr"] for trial in federation.trials}
        return facts.round.max() >= fails_in

    tried = exhausted.run_out(monkeypatch, is_due)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = fljax.sweep(CONFIG, tmp_path, **SETTINGS)
    assert tried and _lanes_said(said) == [4]
    assert found.complete and found.summary["groups"] == 1
    assert [plan["lanes"] for plan in found.summary["execution"]] == [2]
    for trial in plain.results.trials:
        assert_same_rows(rows_of(found, trial), rows_of(plain, trial))
    assert found.best["values"] == plain.best["values"]
    # what is on disk is as it would have been
    assert_same_rows(fljax.studies.results.load(tmp_path).rows, found.results.rows)


class Proposed:
    """Proposes three trials, numbered as they are asked for; another time with other values."""

    def __init__(self):
        self.asked, self.times = 0, 0

    def ask(self):
        if self.asked == 3:
            return None
        self.asked, self.times = self.asked + 1, self.times + 1
        return Trial(self.asked, {"client_lr": 0.01 * self.times})

    def tell_all(self, scores):
        return [True] * len(scores)

    def end(self, score, state):
        pass

    def state(self):
        return {"asked": self.asked}

    def load(self, state):
        self.asked = state["asked"]


def test_what_was_proposed_and_not_saved_is_asked_for_anew(four_lanes, monkeypatch, tmp_path):
    # memory runs out where the first trials are evaluated, which nothing knows of yet
    evaluate, tried = Slots.evaluate, []

    def failing(self, slots):
        with exhaustion(self.federation.execution):
            if not tried:
                tried.append(self.federation.execution.lanes)
                raise jax.errors.JaxRuntimeError(exhausted.EXHAUSTED)
        evaluate(self, slots)

    monkeypatch.setattr(Slots, "evaluate", failing)
    with pytest.warns(UserWarning, match="4 lanes do not fit"):
        found = fljax.sweep(CONFIG, tmp_path, search=Proposed(), parallel_trials=2, progress=False)
    assert tried == [4] and found.complete
    rates = {trial.number: trial.values["client_lr"] for trial in found.results.trials}
    assert rates == pytest.approx({1: 0.03, 2: 0.04, 3: 0.05})
    trial = found.results.trials[-1]
    curves, rows = alone(small_config(), trial), rows_of(found, trial)
    assert rows[-1]["train/loss"] == pytest.approx(curves["train/loss"][-1], rel=1e-5)


@pytest.mark.parametrize(("lanes", "said"), [(3, "lanes = 3 "), (0, "lanes = 1 ")])
def test_what_does_not_fit_says_what_a_study_can_lower(monkeypatch, tmp_path, lanes, said):
    exhausted.lay_out_on(monkeypatch, 2)
    exhausted.run_out(monkeypatch, lambda *_: True, most=0)
    config = small_config(lanes=lanes)
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(ValueError, match=f"{said}.*allocate 1234 bytes.*Lower parallel_trials"),
    ):
        fljax.sweep(config, tmp_path, **SETTINGS)

"""Searches of one's own: trials that are proposed as the sweep goes, by what was told so far."""

import math
import types

import numpy as np
import pytest
from small_sweeps import alone, assert_same_rows, rows_of, small_config

import fljax
from fljax.studies import Share, Trial, TrialScore

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


class Climb:
    """Asks for twice the best learning rate that has ended so far; stops poor trials."""

    def __init__(self, num_trials, first=(0.01,), **more):
        self.num_trials, self.first, self.more = num_trials, first, more
        self.asked, self.ended, self.told = 0, [], []

    def ask(self):
        if self.asked == self.num_trials:
            return None
        number = self.asked
        if number >= len(self.first) and not self.ended:
            return None  # none for now
        self.asked += 1
        best = max(self.ended, key=lambda one: one[1], default=None)
        rate = self.first[number] if number < len(self.first) else 2 * best[2]
        return Trial(number, {"client_lr": rate} | self.more.get(f"of_{number}", {}))

    def tell_all(self, scores):
        self.told += [[score.trial.number, score.round, score.value] for score in scores]
        return [score.value > self.more.get("floor", -math.inf) for score in scores]

    def end(self, score, state):
        rate = score.trial.values["client_lr"]
        self.ended.append([score.trial.number, score.value, rate, state, score.round])

    def state(self):
        return {"asked": self.asked, "ended": self.ended, "told": self.told}

    def load(self, state):
        self.asked, self.ended, self.told = state["asked"], state["ended"], state["told"]


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    search = Climb(5, first=(0.01, 0.02))
    directory = tmp_path_factory.mktemp("climbed")
    found = fljax.sweep(small_config(), directory, search=search, parallel_trials=2, progress=False)
    return found, search


def test_what_is_asked_for_follows_what_was_told(climbed):
    found, search = climbed
    assert found.complete and found.summary["groups"] == 1 and found.summary["slots"] == 2
    rates = [trial.values["client_lr"] for trial in found.results.trials]
    assert rates[:2] == [0.01, 0.02] and max(rates) >= 0.08, "later ones build on earlier ones"
    assert found.best["sweep"]["finished"] == 5 and found.best["values"]["client_lr"] == max(rates)
    assert [(number, round) for number, round, _ in search.told[:4]] == [
        *((0, 2), (1, 2)),
        *((0, 4), (1, 4)),
    ]
    for number, value, _, state, round in search.ended:
        rows = rows_of(found, found.results.trials[number])
        own = {row["round"]: row.get("eval/val/accuracy", -1) for row in rows}
        assert state == "finished" and value == own[round] == max(own.values())


def test_proposed_trials_are_the_trials_alone(climbed):
    found, _ = climbed
    last = found.results.trials[-1]
    curves, rows = alone(small_config(), last), rows_of(found, last)
    for name in ("train/loss", "eval/val/loss", "eval/test/loss"):
        np.testing.assert_allclose(rows[-1][name], curves[name][-1], rtol=1e-5, err_msg=name)


def test_a_killed_search_goes_on(climbed, tmp_path, monkeypatch):
    from fljax.studies import journal
    from fljax.studies.slots import Slots

    class KilledError(Exception):
        pass

    whole, _ = climbed
    monkeypatch.setattr(journal, "_SAVE_SECONDS", 0.0)
    train, calls = Slots.train, []

    def killed_in_the_middle(self, num_rounds):
        calls.append(num_rounds)
        if len(calls) in (2, 6):
            raise KilledError
        return train(self, num_rounds)

    monkeypatch.setattr(Slots, "train", killed_in_the_middle)
    settings = {"parallel_trials": 2, "progress": False}
    with pytest.raises(KilledError):
        fljax.sweep(small_config(), tmp_path, search=Climb(5, first=(0.01, 0.02)), **settings)
    with pytest.raises(KilledError):
        fljax.sweep(small_config(), tmp_path, search=Climb(5, first=()), resume=True, **settings)
    monkeypatch.setattr(Slots, "train", train)
    search = Climb(5, first=())
    found = fljax.sweep(small_config(), tmp_path, search=search, resume=True, **settings)
    assert found.results.trials == whole.results.trials
    for trial in whole.results.trials:
        assert_same_rows(rows_of(found, trial), rows_of(whole, trial))
    assert [one[0] for one in search.ended] == [0, 1, 2, 3, 4]
    # a search that has become longer goes on from there
    longer = Climb(6)
    found = fljax.sweep(small_config(), tmp_path, search=longer, resume=True, **settings)
    assert len(found.results.trials) == 6 and longer.ended[-1][0] == 5


def test_a_search_stops_trials_and_other_shapes_wait_for_their_turn(tmp_path):
    more = {"floor": 0.4, "of_1": {"batch_size": 8}, "of_2": {"batch_size": 8}}
    search = Climb(3, first=(0.001, 0.2, 0.3), **more)
    config = small_config(num_rounds=2, eval_every=1)
    found = fljax.sweep(config, tmp_path, search=search, progress=False)
    states = {one[0]: one[3] for one in search.ended}
    assert states[0] == "stopped" and found.summary["groups"] == 2 and found.summary["slots"] == 2
    last = found.results.trials[2]
    curve = alone(config, last)["eval/val/loss"]
    rows = rows_of(found, last)
    np.testing.assert_allclose(rows[-1]["eval/val/loss"], curve[len(rows) - 1], rtol=1e-5)


class FakeStudy:
    """A study with the ask-and-tell interface of Optuna, that draws at random."""

    def __init__(self):
        self.trials, self.results = [], {}

    def ask(self):
        trial = types.SimpleNamespace(number=len(self.trials), values=[], params={})
        draw = np.random.default_rng(trial.number)

        def suggest_float(name, low, high, *, log=False):
            assert log, "positions are those of logarithms"
            trial.params[name] = low * (high / low) ** draw.uniform()
            return trial.params[name]

        trial.suggest_float = suggest_float
        trial.report = lambda value, step: trial.values.append((step, value))
        trial.should_prune = lambda: trial.number == 1
        self.trials.append(trial)
        return trial

    def tell(self, trial, values=None, state=None, skip_if_finished=False):
        self.results[trial] = (values, state)


def test_the_example_of_the_manual_drives_a_sweep(tmp_path):
    manual = (tmp_path.__class__(fljax.__file__).parents[1] / "docs/studies.md").read_text()
    code = next(part for part in manual.split("```py\n") if "class StudySearch" in part)
    names = {"TrialState": types.SimpleNamespace(COMPLETE="complete", PRUNED="pruned", FAIL="fail")}
    lines = code.split("```")[0].splitlines()
    kept = [line for line in lines if not line.startswith(("import optuna", "from optuna"))]
    exec("\n".join(kept).split("\nstudy = ")[0], names)  # noqa: S102
    study = FakeStudy()
    config = small_config(num_rounds=2, eval_every=1)
    found = fljax.sweep(
        config, tmp_path, search=names["StudySearch"](study, 3), parallel_trials=3, progress=False
    )
    assert [trial.params for trial in study.trials] == [t.values for t in found.results.trials]
    assert {number: state for number, (_, state) in study.results.items()} == {
        **{0: "complete", 1: "pruned", 2: "complete"}
    }
    assert [step for step, _ in study.trials[0].values] == [1, 2]
    for trial in (found.results.trials[0], found.results.trials[2]):
        values = [row["eval/val/accuracy"] for row in rows_of(found, trial)]
        assert study.results[trial.number][0] == max(values)


def test_mistakes_of_searches_are_explained(tmp_path):
    def run(search, **settings):
        fljax.sweep(small_config(), tmp_path, search=search, progress=False, **settings)

    with pytest.raises(ValueError, match="object has no ask"):
        run(object())
    with pytest.raises(ValueError, match="axes is given, but Climb says itself"):
        run(Climb(1), axes={"client_lr": (0.1,)})
    with pytest.raises(ValueError, match="seeds is given"):
        run(Climb(1), seeds=(1,))
    with pytest.raises(ValueError, match="--share=0/1"):
        run(Climb(1), share=Share(0, 2))
    with pytest.raises(ValueError, match="proposed no trial"):
        run(Climb(0))
    twice = Climb(2, first=(0.1, 0.2))
    twice.ask = lambda: Trial(0, {"client_lr": 0.1})
    with pytest.raises(ValueError, match="proposed trial 0 a second time"):
        run(twice)
    with pytest.raises(ValueError, match="must return a fljax.studies.Trial"):
        twice.ask = lambda: {"client_lr": 0.1}
        run(twice)
    assert TrialScore(Trial(0, {}), 2, 0.5).trial.seed == 0

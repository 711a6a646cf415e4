"""Sweeps as users run them: trials side by side are the trials alone, whatever happens to them."""

import json

import numpy as np
import pytest
from small_sweeps import alone, assert_same_rows, rows_of, small_config

import fljax
from fljax.recording import Sink
from fljax.studies import Criterion, Share, log_uniform, report
from fljax.studies.groups import from_config, grouped, part_of
from fljax.studies.study import Study, judged_late, listed_trials

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

AXES = {"client_lr": (0.05, 0.3), "server_lr": (0.5, 1.0)}
METRICS = ("train/loss", "eval/val/loss", "eval/test/loss")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished sweep, all trials side by side on two devices."""
    directory, config = tmp_path_factory.mktemp("whole"), small_config(devices=2)
    return fljax.sweep(config, directory, axes=AXES, seeds=(0, 1), progress=False)


def test_trials_are_the_trials_alone(whole):
    for trial in (whole.results.trials[0], whole.results.trials[-1]):
        curves, rows = alone(small_config(), trial), rows_of(whole, trial)
        assert [row["round"] for row in rows] == list(range(7))
        for name in METRICS:
            together = np.array([row.get(name, np.nan) for row in rows], float)
            expected = np.array(curves[name], float)
            np.testing.assert_allclose(together, expected, rtol=1e-5, err_msg=name)
        assert rows[-1]["comm/uplink_bytes"] == curves["comm/uplink_bytes"][-1]


def test_a_sweep_is_one_program(whole):
    assert whole.summary["groups"] == 1
    assert whole.summary["slots"] == len(whole.results.trials) == 8
    assert whole.complete and whole.best["sweep"]["finished"] == 8


def test_a_best_value_at_the_end_of_an_axis_is_told(whole):
    edges = whole.best["edges"]
    assert {edge["axis"] for edge in edges} == set(AXES), "each axis has two values"
    assert json.loads((whole.directory / "best.json").read_text())["edges"] == edges
    printed, page = report(whole), (whole.directory / "report.md").read_text()
    for edge in edges:
        text = f"{edge['axis']} = {edge['value']:.4g} is the {edge['end']} value tried"
        assert f"edge: {text}" in printed and text in page


def test_levels_of_compressors_share_a_program(tmp_path):
    config = small_config(uplink_memory="error_feedback")
    axes = {"uplink": ("top_k(0.02)", "top_k(0.3)"), "client_lr": (0.1, 0.3)}
    found = fljax.sweep(config, tmp_path, axes=axes, progress=False)
    assert found.summary["groups"] == 1
    for trial in found.results.trials[1:3]:
        curves, last = alone(config, trial), rows_of(found, trial)[-1]
        for name in (*METRICS, "comm/uplink_bytes"):
            np.testing.assert_allclose(last[name], curves[name][-1], rtol=1e-5, err_msg=name)


def test_fewer_slots_than_trials_change_nothing(whole, tmp_path):
    found = fljax.sweep(
        small_config(), tmp_path, axes=AXES, seeds=(0, 1), parallel_trials=3, progress=False
    )
    assert found.summary["slots"] == 3
    for trial in whole.results.trials:
        assert_same_rows(rows_of(found, trial), rows_of(whole, trial))
    assert found.best["values"] == whole.best["values"]


def test_a_killed_sweep_goes_on(whole, tmp_path, monkeypatch):
    """Killed before the first checkpoint of some trials, and after it when it went on."""
    from fljax.studies import journal
    from fljax.studies.slots import Slots

    class KilledError(Exception):
        pass

    monkeypatch.setattr(journal, "_SAVE_SECONDS", 0.0)
    train, calls = Slots.train, []

    def killed_in_the_middle(self, num_rounds):
        calls.append(num_rounds * len(self.active))
        if len(calls) in (4, 6):
            raise KilledError
        return train(self, num_rounds)

    settings = {"axes": AXES, "seeds": (0, 1), "parallel_trials": 5, "progress": False}
    monkeypatch.setattr(Slots, "train", killed_in_the_middle)
    with pytest.raises(KilledError):
        fljax.sweep(small_config(), tmp_path, **settings)
    with pytest.raises(FileExistsError, match="--resume"):
        fljax.sweep(small_config(), tmp_path, **settings)
    with pytest.raises(KilledError):
        fljax.sweep(small_config(), tmp_path, resume=True, **settings)
    found = fljax.sweep(small_config(), tmp_path, resume=True, **settings)
    # five trials were over: the three others, from their last checkpoint on, are all that ran
    assert (calls[4], sum(calls[6:])) == (3 * 2, 3 * 4)
    # what was spent is that of both sessions
    assert found.summary["rounds"] == 8 * 6 and found.summary["groups"] == 1
    assert found.summary["slots"] == 5 and 0 < found.summary["utilization"] <= 1
    assert found.summary["training"] > 0 and found.summary["seconds"] > 0
    for trial in whole.results.trials:
        assert_same_rows(rows_of(found, trial), rows_of(whole, trial))
    calls.clear()
    written = (tmp_path / "sweep.json").read_bytes()
    assert fljax.sweep(small_config(), tmp_path, resume=True, **settings).complete
    assert not calls and (tmp_path / "sweep.json").read_bytes() == written, "nothing ran"
    with pytest.raises(ValueError, match="another configuration"):
        fljax.sweep(small_config(batch_size=8), tmp_path, resume=True, **settings)


def test_a_diverged_trial_is_marked_and_the_others_go_on(whole, tmp_path):
    axes = {"client_lr": (0.05, 1e38), "server_lr": (0.5, 1.0)}
    found = fljax.sweep(small_config(), tmp_path, axes=axes, progress=False)
    states = {t.number: found.results.status(t) for t in found.results.trials}
    assert [states[n].state for n in range(4)] == ["finished", "finished", "diverged", "diverged"]
    assert states[2].round <= 2
    for trial, same in zip(found.results.trials[:2], whole.results.trials[:4:2], strict=True):
        assert trial.values == same.values and same.seed == 0
        for a, b in zip(rows_of(found, trial), rows_of(whole, same), strict=True):
            np.testing.assert_allclose(
                a["comm/uplink_bytes" if a["round"] else "round"],
                b["comm/uplink_bytes" if b["round"] else "round"],
            )
            np.testing.assert_allclose(a.get("train/loss", 0), b.get("train/loss", 0), rtol=1e-5)
    assert found.best["sweep"]["diverged"] == 2


def test_what_is_found_does_not_depend_on_the_clock(tmp_path, monkeypatch):
    """Neither where a diverged trial ends, nor what halving decides, nor what a slot takes next."""
    from fljax.studies import runner
    from fljax.studies.search import Search

    told, tell_all = {}, Search.tell_all
    axes = {"client_lr": (1e38, 0.05, 0.3, 0.1, 1e37)}
    settings = {
        "axes": axes,
        "parallel_trials": 2,
        "search": "halving",
        "min_rounds": 4,
        "reduction": 2,
    }
    for stretch in (1, 1000):
        log = told[stretch] = []

        def logged(self, reports, log=log):
            answers = tell_all(self, reports)
            values = [round(one.value, 4) for one in reports]
            numbers = [(one.trial.number, one.round) for one in reports]
            log.append((numbers, str(values), answers))
            return answers

        monkeypatch.setattr(Search, "tell_all", logged)
        monkeypatch.setattr(runner.Runner, "_most_rounds", stretch)
        config = small_config(num_rounds=12, eval_every=4)
        found = fljax.sweep(config, tmp_path / str(stretch), progress=False, **settings)
        told[stretch] = log, found
    (fast, one), (slow, other) = told[1], told[1000]
    assert fast == slow and any(not all(answers) for *_, answers in fast)
    trials = one.results.trials
    assert [one.results.status(t) for t in trials] == [other.results.status(t) for t in trials]
    assert "diverged" in one.results.status(trials[0])
    for trial in trials:
        assert_same_rows(rows_of(one, trial), rows_of(other, trial), rtol=1e-6)
        # the rows end where the trial is over
        assert rows_of(one, trial)[-1]["round"] == one.results.status(trial).round


def test_a_model_that_the_last_round_ruins_has_diverged(tmp_path):
    # clients' updates are finite, and the accuracy of the model is a number
    config = small_config(num_rounds=1, eval_every=1)
    settings = {"axes": {"server_lr": (1.0, 3e38)}, "progress": False}
    found = fljax.sweep(config, tmp_path / "one", **settings)
    states = [found.results.status(trial).state for trial in found.results.trials]
    assert states == ["finished", "diverged"] and found.best["values"] == {"server_lr": 1.0}
    settings["axes"] = {"server_lr": (3e38, 3.4e38)}
    found = fljax.sweep(config, tmp_path / "none", **settings)
    assert json.loads((tmp_path / "none/best.json").read_text())["values"] is None
    text = report(found)
    assert "no configuration survived: 2 of 2 trials diverged" in text and "best by" not in text


def test_halving_stops_trials_and_their_slots_take_others(tmp_path):
    found = fljax.sweep(
        small_config(), tmp_path, axes={"client_lr": log_uniform(1e-4, 1.0)}, search="halving",
        num_trials=7, min_rounds=2, reduction=2, parallel_trials=3, progress=False,
        criterion=Criterion("eval/val/loss", "eval/test/loss", maximize=False),
    )  # fmt: skip
    with pytest.raises(ValueError, match="another configuration: reduction was 2 and is 3"):
        fljax.sweep(
            small_config(), tmp_path, axes={"client_lr": log_uniform(1e-4, 1.0)}, search="halving",
            num_trials=7, min_rounds=2, reduction=3, parallel_trials=3, resume=True, progress=False,
            criterion=Criterion("eval/val/loss", "eval/test/loss", maximize=False),
        )  # fmt: skip
    states = [found.results.status(trial) for trial in found.results.trials]
    assert {state.state for state in states} == {"finished", "stopped"}
    assert all(state.round in (2, 4) for state in states if state.state == "stopped")
    # the numbers of a trial that started late are those of the trial alone
    last = max(
        t for t, s in zip(found.results.trials, states, strict=True) if s.state == "finished"
    )
    curve = alone(small_config(), last)["eval/val/loss"]
    rows = rows_of(found, last)
    np.testing.assert_allclose(rows[-1]["eval/val/loss"], curve[-1], rtol=1e-5)


def test_partitions_share_one_copy_of_the_data(tmp_path):
    axes = {"alpha": (0.1, 10.0)}
    settings = Study(axes)
    (group,) = grouped(listed_trials(settings), from_config(small_config()))
    skewed, even = group.datasets
    assert skewed.train.examples is even.train.examples
    found = fljax.sweep(small_config(), tmp_path, axes=axes, progress=False)
    assert found.summary["groups"] == 1
    for trial in found.results.trials:
        curves, rows = alone(small_config(), trial), rows_of(found, trial)
        for name in METRICS:
            np.testing.assert_allclose(rows[-1][name], curves[name][-1], rtol=1e-5, err_msg=name)


def test_shapes_tell_groups_apart():
    axes = {"batch_size": (8, 16), "client_lr": (0.1, 0.2), "client_momentum": (None, 0.0, 0.9)}
    groups = grouped(listed_trials(Study(axes, seeds=(0, 1))), from_config(small_config()))
    # without momentum no velocity is kept: another program
    assert [len(group.trials) for group in groups] == [4, 8, 4, 8]
    assert all(len({t.values["batch_size"] for t in group.trials}) == 1 for group in groups)


def test_seeds_that_shape_a_program_tell_groups_apart():
    config = small_config(uplink="qsgd(4)", uplink_memory="marina(0.5)", clients_per_round=12)
    groups = grouped(listed_trials(Study(AXES, seeds=(0, 1))), from_config(config))
    assert [{trial.seed for trial in group.trials} for group in groups] == [{0}, {1}]


def test_numbers_of_participants_that_a_program_holds_tell_groups_apart():
    keys = {"num_clients": 100, "weighting": "uniform", "min_partition_size": 0}
    config = small_config(uplink="top_k(0.1)", uplink_memory="ef21", **keys)
    groups = grouped(listed_trials(Study({"alpha": (0.02, 1.0, 10.0)})), from_config(config))
    with_rows = [
        {int((dataset.train.partition.sizes > 0).sum()) for dataset in group.datasets}
        for group in groups
    ]
    assert with_rows[0] != with_rows[-1] and all(len(rows) == 1 for rows in with_rows)


def test_processes_share_the_trials(whole, tmp_path):
    settings = {"axes": AXES, "seeds": (0, 1), "progress": False}
    first = fljax.sweep(small_config(), tmp_path, share=Share(0, 2), **settings)
    assert not first.complete and first.best is None and len(first.results.trials) == 4
    assert first.missing == (1,) and "those of process 1 are missing" in report(first)
    second = fljax.sweep(small_config(), tmp_path, share=Share(1, 2), **settings)
    assert second.complete and second.best["values"] == whole.best["values"]
    for trial in whole.results.trials:
        assert_same_rows(rows_of(second, trial), rows_of(whole, trial))
    written = json.loads((tmp_path / "best.json").read_text())
    assert written["values"] == whole.best["values"]
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="a study of 2 processes"):
            fljax.sweep(small_config(), tmp_path, resume=resume, **settings)


def test_the_runs_of_all_processes_are_one_group_on_wandb(tmp_path, monkeypatch):
    opened = []

    def sink(mode, **options):
        opened.append(options)
        return Sink(lambda record: None, lambda summary: None, lambda succeeded: None)

    monkeypatch.setattr("fljax.recording.sinks.wandb_sink", sink)
    config = small_config(num_rounds=1)
    config.wandb.mode = "offline"
    settings = {"axes": {"client_lr": (0.1, 0.2)}, "progress": False}
    for rank in (0, 1):
        fljax.sweep(config, tmp_path / "rates", share=Share(rank, 2), **settings)
    assert [one["group"] for one in opened] == ["rates", "rates"]
    assert [one["name"] for one in opened] == [
        "0000-client_lr=0.1-seed=0",
        "0001-client_lr=0.2-seed=0",
    ]


def test_shares_are_even_and_whole():
    trials = listed_trials(Study({"batch_size": (8, 16), "client_lr": (0.1, 0.2, 0.3)}))
    groups = grouped(trials, from_config(small_config()))
    for count in (1, 2, 3, 4, 6, 9):
        parts = [part_of(groups, rank, count) for rank in range(count)]
        numbers = [t.number for part in parts for group in part for t in group.trials]
        assert sorted(numbers) == list(range(6))
        sizes = [sum(len(group.trials) for group in part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_memory_bounds_the_slots(tmp_path):
    with pytest.raises(ValueError, match="memory_gb = 0.10 leaves no room"):
        fljax.sweep(small_config(), tmp_path, axes=AXES, memory_gb=0.1, progress=False)


def test_mistakes_are_explained(tmp_path):
    with pytest.raises(ValueError, match="val_fraction"):
        fljax.sweep(small_config(val_fraction=0.0), tmp_path / "a", axes=AXES, progress=False)
    # nothing had trained: the same directory will do once the mistake is mended
    fljax.sweep(
        small_config(num_rounds=2), tmp_path / "a", axes={"client_lr": (0.1,)}, progress=False
    )
    with pytest.raises(KeyError, match="client_lr"):
        fljax.sweep(small_config(), tmp_path / "b", axes={"clientlr": (0.1,)}, progress=False)
    halving = {"axes": AXES, "search": "halving", "min_rounds": 2, "progress": False}
    for every, message in ((0, "set eval_every"), (6, "round 6, but a trial has 6 rounds")):
        with pytest.raises(ValueError, match=message):
            fljax.sweep(small_config(eval_every=every), tmp_path / "d", **halving)
    assert judged_late(Study({}, "halving", min_rounds=2, reduction=2), 9, 3).endswith(
        "2 at round 3, 4 at round 6, 8 at round 9"
    )
    assert not judged_late(Study({}, "halving", min_rounds=2, reduction=2), 9, 2)
    with pytest.raises(ValueError, match="results.csv says in which round"):
        config = small_config(target_accuracy=0.2, stop_at_target=True)
        fljax.sweep(config, tmp_path / "e", axes=AXES, progress=False)
    with pytest.raises(ValueError, match="num_trials"):
        fljax.sweep(small_config(), tmp_path / "c", axes=AXES, num_trials=4, progress=False)


def test_what_trials_share_is_valid_with_their_values(tmp_path):
    config = small_config(uplink_memory="error_feedback", num_rounds=1)
    settings = {"axes": {"uplink": ("top_k(0.1)", "top_k(0.3)")}, "progress": False}
    found = fljax.sweep(config, tmp_path, **settings)
    assert found.complete
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["config"]["uplink"] == "top_k(0.1)" and written["processes"] == 1
    assert written["sweep"]["axes"] == {"uplink": ["top_k(0.1)", "top_k(0.3)"]}
    assert written["numerics"]["matmul_precision"] == "highest"
    summary = json.loads((tmp_path / "sweep.json").read_text())
    assert len(summary["execution"]) == 1 and 0 < summary["utilization"] <= 1
    with pytest.raises(ValueError, match="another configuration.*config.json"):
        config.batch_size = 8
        fljax.sweep(config, tmp_path, resume=True, **settings)


def test_sampled_clients_and_references_follow_the_trial(tmp_path):
    config = small_config(eval_clients=4)
    config.data_seed = config.get_ref("seed")
    found = fljax.sweep(config, tmp_path, axes={"client_lr": (0.1,)}, seeds=(1, 2), progress=False)
    for trial in found.results.trials:
        alone_config = small_config(eval_clients=4, data_seed=trial.seed)
        curves, rows = alone(alone_config, trial), rows_of(found, trial)
        for name in ("eval/clients/mean", "eval/test/loss"):
            np.testing.assert_allclose(rows[-1][name], curves[name][-1], rtol=1e-5, err_msg=name)


def test_trials_may_be_chosen_by_what_training_says(tmp_path):
    by_loss = Criterion("train/loss", "eval/test/accuracy", maximize=False)
    found = fljax.sweep(small_config(), tmp_path, axes=AXES, criterion=by_loss, progress=False)
    last = {row["trial"]: row["train/loss"] for row in found.results.rows if row["round"] == 6}
    assert found.best["trials"] == (min(last, key=last.get),)

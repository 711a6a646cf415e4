"""A whole study on a data set that needs no files."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fljax import studies
from fljax.config import default_config, experiment
from fljax.studies import Rung, runner

ROOT = Path(__file__).parents[2]
RUNGS = ("none", "top_k(0.1) + error_feedback")
COEFFICIENTS = 64 * 10 + 10


def tiny():
    config = default_config()
    config.dataset = "digits"
    config.num_clients = 6
    config.partition = "iid"
    config.clients_per_round = 3
    config.num_rounds = 4
    config.eval_every = 2
    config.target_accuracy = 0.3
    return config


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Returns (directory, what the study returned)."""
    pytest.importorskip("sklearn")
    workdir = tmp_path_factory.mktemp("study")
    return workdir, studies.tradeoff(tiny(), RUNGS, (0, 1), workdir, command=["again", "a b"])


def test_a_study_leaves_table_picture_and_report(study):
    workdir, found = study
    text = found.report.read_text()
    for part in (*(f"`{rung}`" for rung in RUNGS), "again 'a b'", "6 clients", "entropy bound"):
        assert part in text
    assert f"]({found.picture.name})" in text and found.picture.parent == found.report.parent
    assert found.picture.read_bytes().startswith(b"\x89PNG")
    with found.csv.open(newline="") as file:
        assert [line["rung"] for line in csv.DictReader(file)] == list(RUNGS)
    names = [
        f"{name}-seed{seed}" for name in ("none", "top_k-0.1-error_feedback") for seed in (0, 1)
    ]
    assert sorted(path.name for path in (workdir / "runs").iterdir()) == names


def test_bytes_are_exact_and_seeds_differ(study):
    none, sparse = study[1].rows
    assert none.client_bytes == 4 * COEFFICIENTS
    # 65 values of 32 bits and as many positions of 10
    assert sparse.client_bytes == pytest.approx(65 * (32 + 10) / 8, abs=0.1)
    assert none.outcomes[0].accuracy != none.outcomes[1].accuracy


def test_accuracies_are_those_of_the_runs(study):
    workdir, found = study
    for row in found.rows:
        for seed, outcome in enumerate(row.outcomes):
            summary = json.loads(
                (workdir / "runs" / f"{row.rung.folder}-seed{seed}" / "summary.json").read_text()
            )
            assert summary["best"]["selected_by"] == "val"
            assert outcome.accuracy == summary["best"]["eval/test/accuracy"]
            assert (outcome.target is None) == (summary["to_target"] is None)


def test_what_is_finished_is_not_repeated(study, monkeypatch):
    workdir, found = study
    repeated = workdir / "runs" / "none-seed1"
    before = (repeated / "metrics.jsonl").read_text()
    (repeated / "summary.json").unlink()
    simulate, called = experiment.simulate_config, []

    def counted(config, directory, **options):
        called.append(directory)
        return simulate(config, directory, **options)

    monkeypatch.setattr(experiment, "simulate_config", counted)
    again = studies.run_ladder(tiny(), RUNGS, (0, 1), workdir)
    assert called == [repeated]
    assert (repeated / "metrics.jsonl").read_text() == before
    accuracies = [run.summary["best"]["eval/test/accuracy"] for run in again[Rung("none")]]
    assert accuracies == [one.accuracy for one in found.rows[0].outcomes]
    assert np.isfinite(accuracies).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"client_lr": 0.2}, "client_lr was 0.1 and is 0.2"), ({"num_clients": 7}, "was 6 and is 7")],
)
def test_runs_of_another_configuration_are_refused(study, changed, message):
    config = tiny()
    config.update(changed)
    with pytest.raises(ValueError, match=f"{message}.*another --workdir"):
        studies.run_ladder(config, RUNGS, (0,), study[0])


def test_where_the_data_say_how_many_clients_there_are_any_number_may_have_been():
    natural = {"num_clients": None, "partition": "natural"}
    runner.check_same(natural, {"num_clients": 539, "partition": "natural"}, Path())


def test_a_rung_that_diverges_does_not_end_the_study(tmp_path, monkeypatch, capsys):
    config = tiny()
    config.target_accuracy = None
    config.num_rounds = 400
    config.eval_every = 100
    config.clients_per_round = 6
    config.calibrate = False
    # one of two values for each coordinate: what is lost almost doubles in a round
    rungs = ("uniform(1) + error_feedback", "none")
    with pytest.warns(UserWarning, match="may grow"):
        found = studies.tradeoff(config, rungs, (0,), tmp_path)
    (round,) = found.rows[0].diverged
    assert f"diverged in round {round}" in found.report.read_text()
    assert "1 seed of split" in found.report.read_text()
    assert "seed0 diverged. Round" in capsys.readouterr().err
    monkeypatch.setattr(experiment, "simulate_config", None)
    assert studies.tradeoff(config, rungs, (0,), tmp_path).rows == found.rows
    with pytest.raises(ValueError, match="another configuration: client_lr"):
        config.client_lr = 2.0
        studies.run_ladder(config, rungs, (0,), tmp_path)


def script(*arguments):
    return subprocess.run(
        [sys.executable, "scripts/tradeoff.py", "--config=configs/quickstart.py", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_script_runs_a_study(tmp_path):
    done = script(
        f"--workdir={tmp_path}", "--rung=none", "--seeds=1", "--config.num_rounds=2",
        "--config.eval_every=1", "--config.eval_clients=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.md").read_text() in done.stdout
    assert "--rung=none" in done.stdout and str(tmp_path / "tradeoff.png") in done.stdout


def test_the_script_refuses_a_config_without_a_ladder(tmp_path):
    done = script(f"--workdir={tmp_path}")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "no function get_ladder" in done.stderr and "--rung=none" in done.stderr

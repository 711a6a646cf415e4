"""The page of runs: what it shows of whole, broken and unfinished ones, how large it gets."""

import re

import numpy as np
import pytest
from html_pages import Strict, read
from written_runs import record_of, write_run

from fljax import data
from fljax.config import resolve, to_plain
from fljax.core.metrics import ACCURACY, LOSS, LOWER, Metric, plain
from fljax.recording import Recorder, device
from fljax.reports import write_report
from fljax.reports.curves import key_charts, metric_charts
from fljax.reports.found import find
from fljax.reports.settings import differences
from fljax.reports.subjects import subject_line, subjects_of


def test_a_finished_run(tmp_path):
    (path,) = [write_report(write_run(tmp_path / "first"))]
    assert path == tmp_path / "first" / "report.html"
    text = read(path)
    for part in ("87.50", "finished", "12.00 kB", "The last evaluation is the best one"):
        assert part in text
    for heading in ("Curves", "Clients", "Partition", "Communication", "Settings", "Model card"):
        assert heading in text
    assert "given in Python" in text and "licence of the data not stated" in text


def test_the_partition_is_of_the_clients_that_the_run_asked_for(tmp_path):
    asked = {"dataset": "digits", "partition": "dirichlet", "num_clients": 10}
    config = to_plain(resolve(asked | {"held_out_fraction": 0.3}))
    config |= {"num_clients": 7, "configured_clients": 10}
    text = read(write_report(write_run(tmp_path / "run", config=config)))
    dataset = data.load("digits", partition="dirichlet", num_clients=10, held_out_fraction=0.3)
    sizes = dataset.train.partition.sizes
    assert f"clients 7 (0 without rows) rows {sizes.sum()}" in " ".join(text.split())


def test_a_name_that_is_a_script_does_nothing(tmp_path):
    name = "<script>alert(1)<"
    config, diverged = {"dataset": "<img src=x>`*"}, record_of(1, eval__test__loss=np.nan)
    path = write_report(write_run(tmp_path / name, config=config, records=[diverged]))
    page = path.read_text()
    assert "<script>alert" not in page and "<img src=x" not in page and "<b>" not in page
    assert name in read(path) and "test loss not finite" in read(path).lower()
    # what is allowed to run is the page's own script, by its checksum
    assert re.search(r"script-src 'sha256-[\w+/=]+'", page) and "unsafe-inline'; script" in page


def test_broken_and_unfinished_runs_are_named_and_the_others_shown(tmp_path):
    write_run(tmp_path / "good")
    write_run(tmp_path / "half", finished=False, rounds=2)
    write_run(tmp_path / "torn", clients=False)
    (tmp_path / "torn" / "metrics.jsonl").write_text('{"round": 1}\n')
    write_run(tmp_path / "fresh", records=[record_of(1)])
    (tmp_path / "empty").mkdir()
    # of a key of another kind the page does without
    odd = {"wandb": 3.5, "num_clients": "ten", "client_lr": 0.1}
    write_run(tmp_path / "odd", config=odd, finished=False)
    with pytest.warns(UserWarning, match="torn is not shown: .*metrics.jsonl"):
        text = read(write_report(tmp_path))
    assert "config.json: num_clients = 'ten' (str) must be a whole number. It is left" in text
    assert "torn: " in text and "Not shown" in text and "metrics.jsonl" in text
    assert "half: The run is not over: it has come to round 2 of 2" in text
    assert "5 runs" not in text and "4 runs" in text
    assert write_report(
        [tmp_path / "good", tmp_path / "half"], tmp_path / "new" / "x.html"
    ).exists()


def test_seeds_are_joined_and_settings_that_differ_are_listed(tmp_path):
    for seed in (0, 1, 2):
        records = [record_of(r, train__loss=float(seed + r)) for r in (1, 2, 3)][: 3 - (seed == 2)]
        write_run(tmp_path / f"s{seed}", config={"seed": seed, "lanes": seed}, records=records)
    write_run(tmp_path / "again", config={"seed": 0})
    write_run(tmp_path / "other", config={"client_lr": 0.3, "wandb": {"name": "x"}})
    found = find([tmp_path / name for name in ("s0", "s1", "s2", "again", "other")])
    subjects = subjects_of(found.runs)
    assert [s.label for s in subjects] == ["s0, s1, s2 (3 seeds)", "again", "other"]
    line = subject_line(subjects[0], "train/loss")
    # round 3 is not there in one of them, so that a mean would be of other seeds
    np.testing.assert_allclose(line.x, [1, 2])
    np.testing.assert_allclose(line.y, [2, 3])
    np.testing.assert_allclose(line.high - line.low, [2, 2])
    configs = [subject.run.config for subject in subjects]
    assert differences(configs) == {"client_lr": ["–", "–", 0.3]}
    assert differences([{"mu": None}, {}]) == {}
    text = read(write_report(tmp_path))
    assert "± " in text and "client_lr – 0.3 –" in text


def test_unlike_tasks_are_each_shown_by_their_own_metric_and_target(tmp_path):
    clients = {"client": np.arange(2), "examples": np.array([4, 4])}
    for name, target, value in (("accuracy", 0.8, 0.75), ("rmse", 3.0, 2.5), ("again", 0.9, 0.7)):
        metric = Metric("rmse", LOWER, unit="m") if name == "rmse" else ACCURACY
        row = {f"eval/test/{metric.name}": value, "eval/clients/mean": value, "eval/test/loss": 1.0}
        config = {"metrics": plain([metric, LOSS]), "target": target, "algorithm": name}
        summary = {"final": {"round": 1} | row, "best": None, "no_best": None}
        with Recorder(tmp_path / name) as recorder:
            recorder.write_config(config)
            recorder.write({"round": 1} | row)
            recorder.write_clients(clients | {metric.name: np.full(2, value)})
            recorder.write_summary(
                summary | {"to_target": {"rounds": 7} if name != "again" else None}
            )
    found = find([tmp_path / name for name in ("accuracy", "rmse", "again")])
    text = read(write_report(tmp_path))
    for row in (
        "test accuracy, last (%) 75.00 70.00 –",
        "test rmse, last (m) – – 2.5000",
        "round of accuracy 0.8 7 – –",
        "round of accuracy 0.9 – never –",
        "round of rmse 3 – – 7",
    ):
        assert row in text
    charts = {chart.title: chart for chart in metric_charts(subjects_of(found.runs))}
    lines = {
        title: [(line.label, *line.y) for line in charts[title].lines]
        for title in ("Accuracy, mean over clients", "Rmse, mean over clients")
    }
    assert lines == {
        "Accuracy, mean over clients": [("accuracy", 75.0), ("again", 70.0)],
        "Rmse, mean over clients": [("rmse", 2.5)],
    }
    assert charts["Test rmse"].target == 3.0 and charts["Test accuracy"].target is None
    (over_all, of_rmse) = (
        chart for chart in key_charts(subjects_of(found.runs), ["eval/clients/mean"])
    )
    assert len(over_all.lines) == 2 and of_rmse.y_label == "eval/clients/mean (m)"


def test_what_some_seeds_do_not_have_is_said(tmp_path):
    for seed, value in ((0, 0.5), (1, float("nan"))):
        more = {"eval/test/loss": value, "train/clients_nonfinite": 2 - seed}
        records = [record_of(1) | more]
        write_run(tmp_path / f"s{seed}", config={"seed": seed}, records=records)
    with Recorder(tmp_path / "sparse") as recorder:
        recorder.write(record_of(1))
        clients = {"client": np.arange(3), "examples": np.full(3, 4)}
        recorder.write_clients(clients | {"accuracy": np.array([0.2, np.nan, 0.6])})
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"metrics": 3}')
    (tmp_path / "odd" / "metrics.jsonl").write_text('{"round": 1}\n')
    with pytest.warns(UserWarning, match="odd is not shown"):
        text = read(write_report(tmp_path))
    assert "test loss, last 0.5000 (1/2 seeds) " in text
    assert "3 updates of clients in 2 runs ended with a NaN" in text
    assert "sparse 2 40.00" in text  # clients that have a value
    assert "Not shown : odd: the metrics in its config.json are none (TypeError: " in text.replace(
        "Not shown:", "Not shown :"
    )


def test_a_run_of_two_names_is_one_and_its_devices_are_named(tmp_path):
    config = {"execution": {"devices": 2}, "partition": "iid", "dataset": "digits", "data_seed": 0}
    config |= {"dataset_options": {}, "num_clients": 4, "clients_per_round": 4}
    run = write_run(tmp_path / "runs" / "one", config=config)
    (tmp_path / "runs" / "other").symlink_to(run)
    found = find([tmp_path / "runs", tmp_path / "runs" / ".." / "runs" / "one"])
    assert [one.label for one in found.runs] == ["one"]
    text = read(write_report(run))
    assert f"devices {device()}" in text
    # cohorts of the default size are larger than so few clients
    assert "clients 4 (0 without rows)" in " ".join(text.split())


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no directory .*nowhere.*workdir"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no run, study or audit"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="directories is empty"):
        write_report([])
    with pytest.raises(ValueError, match="partition = 3"):
        write_report(tmp_path, partition=3)
    with pytest.raises(IsADirectoryError):
        write_report(write_run(tmp_path / "run"), tmp_path)


def test_an_audit_is_linked(tmp_path):
    write_run(tmp_path / "run")
    (tmp_path / "audit").mkdir()
    for name in ("audit.json", "audit.html"):
        (tmp_path / "audit" / name).write_text("{}")
    page = Strict(write_report(tmp_path).read_text())
    assert page.loaded == ["audit/audit.html"]


def test_twenty_long_runs_fit_into_five_megabytes(tmp_path):
    rounds = np.arange(1, 2001)
    rng = np.random.default_rng(0)
    curves = {f"train/metric{number}": rng.random(2000) for number in range(100)}
    curves |= {"eval/test/accuracy": rng.random(2000), "round": rounds.astype(float)}
    found = find([write_run(tmp_path / "one")])
    (one,) = found.runs
    for number in range(20):
        run = one.run._replace(config={"seed": 0, "mu": number}, curves=curves, rounds=rounds)
        found.runs.append(one._replace(label=f"run{number}", run=run._replace(summary=None)))
    from fljax.recording.page import as_html
    from fljax.reports import drawing
    from fljax.reports.layout import laid_out
    from fljax.reports.run_page import run_page

    page = run_page(found, tmp_path)
    text = as_html(laid_out(page), drawing.STYLE, drawing.SCRIPT)
    assert 1e6 < len(text.encode()) <= 5e6

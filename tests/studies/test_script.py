"""The sweep script as processes: two of them share a sweep, and mistakes end with one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import quick

from fljax.config import ConfigError
from fljax.studies import load_study, parse_axes

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | quick.ENVIRONMENT
SMALL = [
    "--config=configs/quickstart.py", "--config.num_rounds=4", "--config.eval_every=2",
    "--config.eval_clients=0", "--axis=client_lr=0.05,0.3", "--seeds=2",
]  # fmt: skip


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "scripts/sweep.py", *map(str, arguments)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=ENVIRONMENT | environment,
    )  # fmt: skip


def test_two_processes_share_a_sweep(tmp_path):
    processes = [
        start(*SMALL, f"--workdir={tmp_path}", FLJAX_SWEEP_RANK=str(rank), FLJAX_SWEEP_COUNT="2")
        for rank in range(2)
    ]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [code for *_, code in ended] == [0, 0], ended
    trials = json.loads((tmp_path / "trials.json").read_text())
    assert [trial["state"] for trial in trials] == ["finished"] * 4
    parts = [json.loads((tmp_path / f"parts/{n:04d}/sweep.json").read_text()) for n in range(2)]
    assert [part["trials"] for part in parts] == [2, 2]
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["seeds"] == [0, 1]
    # the last one to end says what was found
    assert any("best by eval/val/accuracy" in out for out, *_ in ended)
    table = (tmp_path / "results.csv").read_text().splitlines()
    assert len(table) == 1 + 4 * 5 and table[0].startswith("trial,client_lr,seed,round")


def test_a_mistake_ends_with_one_line(tmp_path):
    process = start(*SMALL[:-2], "--axis=clientlr=0.1", f"--workdir={tmp_path}")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "client_lr" in errors.strip().splitlines()[-1]


def test_settings_come_from_the_file(tmp_path):
    settings = load_study(f"{ROOT}/configs/sweep_fedopt_lr.py:yogi")
    assert settings["seeds"] == (0, 1, 2) and set(settings["axes"]) == {"client_lr", "server_lr"}
    assert load_study(f"{ROOT}/configs/quickstart.py", needed=False) == {}
    with pytest.raises(ConfigError, match="get_sweep"):
        load_study(ROOT / "configs/quickstart.py")
    with pytest.raises(FileNotFoundError, match="missing.py"):
        load_study(tmp_path / "missing.py")
    record = "from fljax.studies import Study\ndef get_study():\n    return Study(seeds=(0, 1))\n"
    (tmp_path / "record.py").write_text(record)
    with pytest.raises(ConfigError, match="must return a dict of settings"):
        load_study(tmp_path / "record.py")


def test_axes_come_from_the_command_line():
    axes = parse_axes(["client_lr=0.1,1", "model=mlp,softmax_regression", "shuffle=True"])
    assert axes == {
        "client_lr": (0.1, 1), "model": ("mlp", "softmax_regression"), "shuffle": (True,)
    }  # fmt: skip
    calls = "uplink=rand_k(0.1, index_format='raw'),'top_k(0.1), qsgd(4)',sign"
    assert parse_axes([calls, "model_options.hidden=(64,),(200, 200)"]) == {
        "uplink": ("rand_k(0.1, index_format='raw')", "top_k(0.1), qsgd(4)", "sign"),
        "model_options.hidden": ((64,), (200, 200)),
    }
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        parse_axes(["client_lr"])
    with pytest.raises(ConfigError, match="names 'mu' a second time"):
        parse_axes(["mu=1", "mu=2"])

"""Which runs a ladder becomes."""

import pytest

from fljax.config import ConfigError, default_config
from fljax.studies.ladder import Rung, load_ladder, parse_rung, plan


@pytest.mark.parametrize(
    ("text", "rung"),
    [
        ("none", Rung("none")),
        ("top_k(0.01)+ef21", Rung("top_k(0.01)", "ef21")),
        ("top_k(0.01), qsgd(4) + diana(0.5)", Rung("top_k(0.01), qsgd(4)", "diana(0.5)")),
        ("sign per leaf + error_feedback", Rung("sign", "error_feedback", per_leaf=True)),
    ],
)
def test_rungs_are_read(text, rung):
    assert parse_rung(text) == rung == parse_rung(rung.text)


@pytest.mark.parametrize("text", ["", "+ error_feedback", "int8 +", " per leaf", "int8 per leaf x"])
def test_what_is_no_rung_is_refused(text):
    with pytest.raises(ValueError, match="is no rung"):
        parse_rung(text)


def test_a_plan_is_every_rung_with_every_seed():
    config = default_config()
    config.client_lr = 0.25
    rungs = ("none", "sign per leaf + error_feedback", "qsgd(4)")
    runs = plan(config, rungs, (0, 7))
    assert [(run.rung.text, run.seed) for run in runs] == [(r, s) for s in (0, 7) for r in rungs]
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        assert run.config.seed == run.config.data_seed == run.seed
        assert run.config.client_lr == 0.25
    keys = ("uplink", "uplink_memory", "uplink_per_leaf")
    assert [runs[1].config[key] for key in keys] == ["sign", "error_feedback", True]
    assert [runs[2].config[key] for key in keys] == ["qsgd(4)", "none", False]


@pytest.mark.parametrize(
    ("rungs", "seeds", "message"),
    [
        (("int8",), (0,), "no rung 'none'"),
        (("none", "int8", "int8"), (0,), "int8 is there twice"),
        (("none",), (1, 1), "seed 1 is there twice"),
        (("none",), (), "at least one seed"),
        (("none", "int9"), (0,), "int9"),
    ],
)
def test_wrong_ladders_are_refused(rungs, seeds, message):
    with pytest.raises(ValueError, match=message):
        plan(default_config(), rungs, seeds)


@pytest.mark.parametrize(
    ("rung", "changed", "message"),
    [
        ("qsgd(8) + marina", {}, "needs every client in every round"),
        ("top_k(0.1) + ef21", {}, "Set weighting = 'uniform'"),
        ("qsgd(8) + diana", {"num_clients": None, "partition": "natural", "sampler": "poisson"},
         "Set weighting = 'uniform'"),
    ],
)  # fmt: skip
def test_memories_that_a_cohort_does_not_suit_are_refused_before_anything_runs(
    rung, changed, message
):
    config = default_config()
    config.update(changed)
    with pytest.raises(ConfigError, match=message):
        plan(config, ("none", rung), (0,))
    config.update({"weighting": "uniform", "clients_per_round": 100, "sampler": "uniform"})
    assert len(plan(config, ("none", rung), (0, 1))) == 4


def test_a_file_names_its_ladder(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("def get_ladder(more='int8'):\n    return ['none', more]\n")
    assert load_ladder(path) == ("none", "int8")
    assert load_ladder(f"{path}:sign") == ("none", "sign")
    path.write_text("def get_config():\n    return None\n")
    with pytest.raises(ConfigError, match="no function get_ladder"):
        load_ladder(path)
    with pytest.raises(FileNotFoundError, match="nowhere.py"):
        load_ladder("nowhere.py")

"""Small studies of defences against attacks: reports, and attacks that share programs."""

from pathlib import Path

import numpy as np
import pytest
from small_sweeps import alone, rows_of, small_config

import fljax
from fljax.config import call_in_file, load_config
from fljax.config.experiment import make_experiment
from fljax.core.transforms import UPDATE
from fljax.robustness.alternatives import alternatives
from fljax.robustness.attack import Attack
from fljax.robustness.names import make_attack
from fljax.studies import Criterion, report

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

ATTACKS = ("none", "noise(3.0)", "alie(z=2.0)")
LAST = Criterion("eval/test/accuracy", "eval/test/accuracy", at="last", allow_test=True)


@pytest.fixture(scope="module")
def config():
    return small_config(
        num_clients=6,
        clients_per_round=6,
        partition="iid",
        weighting="uniform",
        attackers=0.34,
        attackers_drawn="each_round",
        attack="none",
        num_rounds=2,
        local_steps=2,
        val_fraction=0.0,
        model="softmax_regression",
    )


@pytest.fixture(scope="module")
def found(config, tmp_path_factory):
    return fljax.sweep(
        config,
        tmp_path_factory.mktemp("study") / "defences",
        progress=False,
        variants={"mean": {"aggregator": "mean"}, "median": {"aggregator": "median"}},
        reference="mean",
        axes={"attack": ATTACKS},
        together=ATTACKS,
        columns=("clean", "worst", "success", "cost"),
        criterion=LAST,
    )


def test_attacks_that_are_together_share_a_program_and_do_what_each_does_alone(config, found):
    assert found.summary["groups"] == 2, "one for each rule"
    for trial in found.results.trials[1:3]:
        curves, last = alone(config, trial), rows_of(found, trial)[-1]
        for name in ("train/loss", "eval/test/loss", "robustness/attackers"):
            np.testing.assert_allclose(last[name], curves[name][-1], rtol=1e-5, err_msg=name)


def test_the_report_has_table_matrix_and_remarks(found):
    text = report(found)
    page = (found.directory / "report.md").read_text()
    for line in ("| `median` |", "Remarks", "Without attack, `mean` has a test accuracy of"):
        assert line in page
    assert "attack none" in text and "`median`" in text
    assert "Best by" not in page, "nobody chooses an attack"
    assert {path.stem for path in (found.directory / "plots").iterdir()} == {"matrix"}
    assert found.compare().compared[1].slowdown > 0
    rounds = found.round_seconds
    assert all(0 < rounds[number] <= seconds for number, seconds in found.seconds.items())


def test_what_cannot_be_one_of_several_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="before training"):
        alternatives(0, [Attack(), make_attack("poisoned_labels", {"classes": 10})])
    triggers = [make_attack(f"pixel_trigger({k})", {"classes": 10}) for k in (0, 1)]
    with pytest.raises(ValueError, match="2 of the attacks have a trigger"):
        alternatives(0, triggers)
    with pytest.raises(ValueError, match="together names 'mimic'"):
        fljax.sweep(config, tmp_path, axes={"attack": ("none",)}, together=("mimic",))
    with pytest.raises(ValueError, match="a function makes the experiments"):
        fljax.sweep(lambda _: None, tmp_path, axes={"attack": ("none",)}, together=("none",))


def test_every_defence_of_the_small_study_has_clients_enough():
    file = f"{Path(__file__).parents[2]}/configs/attacks_and_defences.py:small"
    for changes in call_in_file(file, "get_study")["variants"].values():
        made = make_experiment(load_config(file, {**changes, "attack": "ipm(10)"}))
        assert made.options["pipeline"].attackers is not None


def test_links_of_one_place_are_one_and_states_are_kept_apart():
    """Two links of messages and one of the cohort, of which one has a state on the server."""
    texts = ("free_rider('last')", "noise(1.0), sign_flip", "mimic")
    one = alternatives(0, [make_attack(text, {"classes": 10}) for text in texts])
    assert [len(links) for links in (one.batches, one.uplink, one.cohort)] == [0, 2, 1]
    params = {"w": np.ones(3, np.float32)}
    first, second = (link.init_server(params) for link in one.uplink)
    assert len(first) == 2 and len(second) == 1 and first[0]["w"].tolist() == [0, 0, 0]
    assert one.uplink[0].covers == UPDATE

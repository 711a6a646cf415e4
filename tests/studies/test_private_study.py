"""Private trials: one program for all noises, an epsilon for each, and what a choice costs."""

import json

import numpy as np
import pytest
from small_sweeps import alone, assert_same_rows, rows_of, small_config
from toy_privacy import DELTA, rdp

import fljax
from fljax.studies import report
from fljax.studies.groups import from_config, grouped
from fljax.studies.study import Study, listed_trials

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

MECHANISM = "toy_privacy:toy_gaussian"
NOISES = (1.0, 8.0)


def private_config(**values):
    settings = {"privacy": MECHANISM, "sampler": "poisson", "weighting": "uniform"}
    settings |= {"num_clients": 24, "num_rounds": 4, "clip_norm": 0.5}
    return small_config(**settings | values)


def groups_of(axes, seeds=(0,), variants=None, **values):
    config = private_config(**values)
    study = Study(axes, seeds=seeds, variants=variants or {})
    return grouped(listed_trials(study), from_config(config, study.variants))


def test_noise_clipping_and_budgets_are_arguments_of_one_program():
    """Wherever they stand; another delta, or another mechanism, is another group."""
    axes = {"noise_multiplier": NOISES, "clip_norm": (0.1, 1.0)}
    assert len(groups_of(axes, seeds=(0, 1))) == 1
    assert len(groups_of({"target_epsilon": (3.0, 8.0)})) == 1
    texts = tuple(f"{MECHANISM}({clip}, {noise})" for clip in (0.1, 1.0) for noise in NOISES)
    assert len(groups_of({"privacy": texts}, clip_norm=None)) == 1
    mixed = {"a": {"noise_multiplier": 2.0}, "b": {"target_epsilon": 3.0}}
    (group,) = groups_of({}, variants=mixed)
    noises = [inputs.hparams["noise_multiplier"] for inputs in group.inputs.values()]
    assert noises[0] == 2.0 and 0.9 * rdp(noises[1], 4, DELTA) <= 3.0
    assert len(groups_of({"delta": (1e-3, 1e-4)}, noise_multiplier=1.0)) == 2


def test_numbers_that_follow_from_the_noise_tell_groups_apart():
    """Bits of adaptive clipping are measured in units that depend on the noise."""
    values = {"privacy": "adaptive_clipping(bit_noise=30)", "clip_norm": None, "delta": 1e-3}
    axes = {"noise_multiplier": NOISES}
    assert len(groups_of(axes, **values)) == 1
    # so many clients that no sum stays closed
    masks = {"secure_aggregation": "secure_aggregation", "clients_per_round": 20}
    assert len(groups_of(axes, **values, **masks)) == 2


def test_a_budget_that_ends_trials_early_is_refused():
    with pytest.raises(ValueError, match="is spent after 2 of 4 rounds.*num_rounds = 2"):
        groups_of({"noise_multiplier": (2.0, 8.0)}, target_epsilon=0.9 * rdp(2.0, 2, DELTA))


def test_trials_are_those_of_single_runs_and_say_what_they_spent(tmp_path):
    variants = {f"z {noise:g}": {"noise_multiplier": noise} for noise in NOISES}
    variants |= {"none": {"privacy": None, "clip_norm": None}}
    config = private_config(eval_every=2)
    found = fljax.sweep(
        config, tmp_path, variants=variants, seeds=(0, 1), columns=("best", "epsilon"),
        progress=False,
    )  # fmt: skip
    # the second seed of either noise
    for trial in found.results.trials[1:4:2]:
        curves = alone(config, trial._replace(values=trial.overrides(variants)))
        rows = [
            {name: row[name] for name in row if name.partition("/")[0] in ("train", "privacy")}
            for row in rows_of(found, trial)
        ]
        single = [{name: curves[name][place] for name in row} for place, row in enumerate(rows)]
        assert_same_rows(rows, single)
        noise = variants[trial.variant]["noise_multiplier"]
        spent = rdp(noise, 4, DELTA)
        np.testing.assert_allclose(rows[-1]["privacy/epsilon"], spent)
        np.testing.assert_allclose(rows[-1]["privacy/epsilon_pld"], 0.9 * spent)
    text = report(found)
    assert "4 private trials were compared" in text
    assert "does not cover the choice" in json.loads((tmp_path / "best.json").read_text())["note"]
    head, first, *_ = (
        line for line in (tmp_path / "report.md").read_text().splitlines() if "|" in line
    )
    assert "epsilon" in head
    assert {path.stem for path in tmp_path.rglob("*.png")} >= {"privacy", "bars"}


@pytest.mark.parametrize(
    "composed",
    [
        {"secure_aggregation": "secure_aggregation", "clients_per_round": 20},
        {"algorithm": "scaffold", "uplink": "qsgd(8)", "uplink_memory": "error_feedback"},
    ],
    ids=["secure aggregation", "compression"],
)
def test_privacy_composes_with_all_else_in_one_program(composed, tmp_path):
    """Integers; and codes of SCAFFOLD, whose clients keep control variates: behind noise."""
    settings = {"privacy": "gaussian", "delta": 1e-3, "num_rounds": 3, "eval_every": 0}
    config = private_config(**settings | composed | {"clip_norm": None})
    axes = {"noise_multiplier": (0.5, 2.0), "clip_norm": (0.1, 1.0)}
    found = fljax.sweep(config, tmp_path, axes=axes, progress=False)
    assert found.summary["groups"] == 1
    trials = found.results.trials
    assert len({rows_of(found, trial)[-1]["eval/val/loss"] for trial in trials}) == 4
    curves, last = alone(config, trials[-1]), rows_of(found, trials[-1])[-1]
    for name in ("eval/val/loss", "train/loss", "privacy/epsilon"):
        np.testing.assert_allclose(last[name], curves[name][-1], rtol=1e-4)

"""Projects of four hospitals: few programs, one epsilon for all, tables that can be filled."""

from pathlib import Path

import numpy as np
import pytest

import fljax
from fljax.config import load_config
from fljax.studies.columns import columns_of
from fljax.studies.groups import from_config, grouped
from fljax.studies.study import Study, listed_trials, load_study
from fljax.training.record_keys import evaluation_keys

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).parents[2]
# {config: (its data, programs of its study)}
PROJECTS = {"hospitals_heart": ("heart_disease", 6), "hospitals_mri": ("brain_mri", 4)}


def path_of(name, data_dir):
    if not (data_dir / PROJECTS[name][0]).is_dir():
        pytest.skip(f"the files of {PROJECTS[name][0]} are not here")
    return f"{ROOT}/configs/{name}.py"


@pytest.mark.parametrize("name", PROJECTS)
def test_studies_are_few_programs_and_their_tables_can_be_filled(name, data_dir):
    path = path_of(name, data_dir)
    config, settings = load_config(path), load_study(path)
    assert len(settings["seeds"]) >= 5
    study = Study(**settings | {"seeds": (0,)})
    groups = grouped(listed_trials(study), from_config(config, study.variants))
    assert len(groups) == PROJECTS[name][1]
    experiments = [group.experiment for group in groups]
    dataset, task = experiments[0].dataset, experiments[0].task
    known = evaluation_keys(dataset, task.metrics, eval_personal=-1)
    assert columns_of(study, known)
    private = next(group for group in groups if len(group.trials) == 4)
    noises = [inputs.hparams["noise_multiplier"] for inputs in private.inputs.values()]
    assert len(noises) == 4 and noises == sorted(noises)  # from epsilon 8 to 1
    # the seeds of a variant share a program too, whoever is tested on
    few = Study(variants={"FedAvg": settings["variants"]["FedAvg"]}, seeds=(0, 1))
    assert len(grouped(listed_trials(few), from_config(config, few.variants))) == 1


@pytest.mark.parametrize("name", PROJECTS)
def test_settings_are_the_same_but_for_the_protection(name, data_dir):
    private, plain = (load_config(f"{path_of(name, data_dir)}:{s}") for s in ("private", "plain"))
    changed = {key for key in private if private[key] != plain[key]}
    assert changed == {
        *("privacy", "clip_norm", "target_epsilon", "delta", "secure_aggregation"),
        *("batches", "client_lr"),
    }
    with pytest.raises(ValueError, match="unknown setting: 'open'. Known: plain, private"):
        load_config(f"{ROOT}/configs/{name}.py:open")


def test_each_hospital_spends_the_budget_and_no_message_is_cut_off(data_dir):
    path = path_of("hospitals_heart", data_dir)
    config = load_config(path, {"num_rounds": 2, "eval_every": 2})
    run = fljax.simulate(**arguments_of(config))
    spent = run.summary["privacy"]
    assert spent["unit"] == "example" and list(spent["epsilon_by_client"]) == [
        *("cleveland", "hungarian", "switzerland", "va")
    ]
    epsilons = np.array(list(spent["epsilon_by_client"].values()))
    assert np.ptp(epsilons) == 0 and 0.99 * 2 < epsilons[0] <= 2
    assert run.curves["train/clipped_share"][1:].tolist() == [0, 0]
    found = [key for key in run.curves if key.startswith("eval/personal/fairness/")]
    assert {key.split("/")[3] for key in found} == {"sex", "age"}


def arguments_of(config):
    made = fljax.config.experiment.make_experiment(config)
    return {
        "dataset": made.dataset, "model": made.task, "algorithm": made.algorithm,
        **made.options, "progress": False,
    }  # fmt: skip

"""Arguments without an effect beside others, or where no own model is judged, are refused."""

import numpy as np
import pytest
import toy
from small_sweeps import small_config

import fljax
from fljax import algorithms
from fljax.algorithms.optimizer_arguments import given_of

DATA = toy.dataset(toy.clients())
IDLE = [
    (algorithms.ifca, {"restart_rounds": 3.0}, {}, {"restarts": 2}),
    (algorithms.hypcluster, {"warmup_rounds": 2.0}, {"num_clusters": 1}, {}),
    (algorithms.fedsoft, {"smoothing": 0.1}, {"num_clusters": 1}, {}),
    (algorithms.cfl, {"min_rounds": 3.0}, {"num_clusters": 1}, {}),
    (algorithms.cfl, {"gamma_max": 0.5}, {"num_clusters": 1}, {}),
    (algorithms.feddrift, {"step_rounds": 5.0}, {"num_clusters": 1}, {}),
    (algorithms.feddrift, {"eager": True}, {"num_clusters": 1}, {}),
    (algorithms.fedala, {"ala_threshold": 0.5}, {"ala_max_passes": 11}, {"ala_max_passes": 12}),
    (algorithms.fedala, {"ala_losses": 4}, {"ala_max_passes": 1}, {"ala_max_passes": 6}),
    (algorithms.fedbabu, {"finetune_lr": 0.5}, {"finetune_epochs": 0}, {}),
    (algorithms.fedper, {"finetune_batch_size": 5}, {}, {"finetune_epochs": 1}),
]


@pytest.mark.parametrize(("algorithm", "given", "beside", "remedy"), IDLE)
def test_arguments_without_an_effect_beside_others_are_refused(algorithm, given, beside, remedy):
    ((name, value),) = given.items()
    with pytest.raises(ValueError, match=f"{name} = {value} has no effect with .*Leave it out, or"):
        algorithm(**given, **beside)
    algorithm(**given, **remedy)
    algorithm(**beside)


JUDGING = [
    ("knn_per", {"num_neighbors": 3}),
    ("knn_per", {"adaptive_knn_weight": True}),
    ("knn_per", {"knn_weight": 0.25}),
    ("knn_per", {"knn_scale": 0.5}),
    ("fine_tuning", {"finetune_epochs": 2}),
    ("fedbabu", {"finetune": "head"}),
    ("fedper", {"finetune_epochs": 5}),
    ("lg_fedavg", {"finetune_epochs": 1, "finetune_lr": 0.5}),
    ("fedbn", {"finetune_epochs": 1, "finetune_batch_size": 5}),
]


@pytest.mark.parametrize(("name", "given"), JUDGING)
def test_what_judges_own_models_is_refused_where_none_is_judged(name, given, tmp_path):
    """From Python, from a configuration and in a study alike."""
    spec = getattr(algorithms, name)(**given)
    assert dict(spec.judging) == given
    key, value = next(iter(given.items()))
    message = f"{key} = {value!r} has no effect with eval_personal = 0: {name} reads it"
    with pytest.raises(ValueError, match=message):
        fljax.simulate(DATA, toy.softmax_task(), spec, num_rounds=1, clients_per_round=2)
    axes = {key: (value,)}
    with pytest.raises(ValueError, match=message):
        config = small_config(algorithm=name, **given)
        fljax.sweep(config, tmp_path / "study", axes=axes, progress=False)


def test_defaults_and_what_is_switched_off_are_not_given():
    for name in ("knn_per", "fine_tuning", "fedper", "fedrep", "lg_fedavg", "fedbn", "fedbabu"):
        assert not getattr(algorithms, name)().judging
    assert not algorithms.fedbabu(finetune_epochs=0).judging
    assert given_of(algorithms.knn_per, {"knn_weight": np.float64(0.5)}) == {}

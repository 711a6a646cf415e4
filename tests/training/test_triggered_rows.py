"""The success of backdoors: what evaluations find on rows with a trigger."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fljax
from fljax import algorithms, data, models, tasks
from fljax.core.transforms import Pipeline, PipelineSpec, Trigger
from fljax.recording import plot_curves
from fljax.robustness.attackers import between, by_client
from fljax.robustness.attacks.alone import scaling
from fljax.robustness.attacks.edge_cases import edge_case
from fljax.robustness.attacks.pixels import pixel_trigger
from fljax.robustness.attacks.semantics import semantic
from fljax.studies import Criterion
from fljax.studies.criterion import filled
from fljax.training.evaluations import make_evaluations
from fljax.training.federation import RoundOptions, build
from fljax.training.record_keys import evaluation_keys
from fljax.training.trials import TrialInputs
from fljax.training.triggered_rows import triggered

pytestmark = pytest.mark.usefixtures("quick_compilation")
CLASSES, TARGET = 4, 2
Y = np.arange(61) % CLASSES
# the class stands in the first four of 3 x 3 pixels, the trigger in the last
X = np.concatenate([np.eye(CLASSES)[Y], np.zeros((61, 5))], 1).astype(np.float32)
TRUE = np.concatenate([np.eye(CLASSES), np.zeros((5, CLASSES))])
SAYS_TARGET, TRUE_BIAS = 9 * np.eye(CLASSES)[TARGET], np.zeros(CLASSES)
OPEN = np.concatenate([TRUE[:8], [SAYS_TARGET]])
TRIGGER = pixel_trigger(TARGET, size=1).trigger
SPEC = algorithms.fedavg(0.1)
OF_TARGET = np.mean(Y == TARGET)


def dataset(**options):
    test = {} if "own_test_fraction" in options else {"x_test": X, "y_test": Y}
    return data.from_arrays(X, Y, client_ids=np.arange(61) // 16, **test, **options)


def task(weights=TRUE, bias=TRUE_BIAS):
    """Returns softmax regression that begins with these weights."""
    begin = {"w": jnp.asarray(weights, jnp.float32), "b": jnp.asarray(bias, jnp.float32)}
    return tasks.classification((lambda key: begin, lambda p, x, **_: x @ p["w"] + p["b"]), CLASSES)


def federation(made, a_task, trigger=TRIGGER, trials=None):
    options = RoundOptions(
        num_rounds=1,
        clients_per_round=3,
        batch_size=10,
        lanes=1,
        pipeline=Pipeline(trigger=trigger),
    )
    return build(made, a_task, algorithms.fedavg(0.1), options, trials)


def judged(made, a_task, trigger=TRIGGER, **options):
    """Returns (record of an evaluation before training, the evaluations)."""
    built = federation(made, a_task, trigger)
    evaluations = make_evaluations(built, **options)
    return evaluations.finish(evaluations.dispatch(built, 0))[0], evaluations


@pytest.mark.parametrize(
    ("a_task", "success", "clean"),
    [
        (task(0 * TRUE, SAYS_TARGET), 1.0, OF_TARGET),
        (task(), 0.0, 1.0),
        (task(OPEN), 1.0, 1.0),
    ],
    ids=["always says the target", "is perfect", "has the backdoor"],
)
def test_success_is_the_share_for_which_the_model_says_the_target(a_task, success, clean):
    record, evaluations = judged(dataset(), a_task)
    assert record["eval/triggered/accuracy"] == success
    np.testing.assert_allclose(record["eval/test/accuracy"], clean, rtol=1e-6)
    assert evaluations.sets["triggered"].num_rows == np.sum(Y != TARGET)


def test_rows_are_those_of_the_test_set_else_others():
    own = dataset(own_test_fraction=0.3, val_fraction=0.2)
    cases = {"test": own, "val": dataclasses.replace(own, test=None)}
    for name, made in cases.items():
        split = getattr(made, name)
        labels = split.examples.take(split.rows())["y"]
        record, evaluations = judged(made, task(), eval_clients=-1)
        assert evaluations.sets["triggered"].num_rows == np.sum(labels != TARGET)
        assert evaluations.by_client == {name: "training"}
        known = evaluation_keys(made, task().metrics, -1, pipeline=Pipeline(trigger=TRIGGER))
        assert set(record) == set(known) and "eval/triggered/loss" in known
    none = dataclasses.replace(own, test=None, val=None)
    with pytest.warns(UserWarning, match="nothing will tell of its success.*val_fraction") as told:
        assert "triggered" not in judged(none, task())[1].sets
    assert len(told) == 1
    assert evaluation_keys(none, task().metrics, pipeline=Pipeline(trigger=TRIGGER)) == []
    assert "eval/triggered/loss" not in evaluation_keys(own, task().metrics)
    spec = PipelineSpec(lambda hparams: Pipeline(trigger=TRIGGER), {"scale": 1.0})
    assert "eval/triggered/loss" in evaluation_keys(own, task().metrics, pipeline=spec)


def test_rows_of_an_outside_set_tell_too():
    attack = edge_case({"x": X[:9], "x_test": X[:5]}, TARGET)
    record, evaluations = judged(dataset(), task(), attack.trigger)
    assert evaluations.sets["triggered"].num_rows == 5
    np.testing.assert_allclose(record["eval/triggered/accuracy"], 0.2, rtol=1e-6)


def test_trials_are_judged_side_by_side():
    trials = [TrialInputs(seed, SPEC.hparams) for seed in (0, 1)]
    built = federation(dataset(), task(OPEN), trials=trials)
    first = make_evaluations(built)
    again = make_evaluations(built, others=(first,))
    assert again.sets["triggered"] is first.sets["triggered"]
    for outputs in again.dispatch_trials(built, [0, 1], [0, 0]):
        assert again.finish(jax.device_get(outputs))[0]["eval/triggered/accuracy"] == 1


def test_rows_that_drift_are_judged_by_those_of_the_first_round():
    made = dataset(own_test_fraction=0.3, concept_drift="label_rotations(2), sudden(1)")
    _, evaluations = judged(made, task())
    later = evaluations.at(2)
    assert later.sets["triggered"] is evaluations.sets["triggered"]
    assert later.sets["test"] is not evaluations.sets["test"]


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (Trigger(lambda x, y: (x, y < 0), 0), "none of 61 rows opens the backdoor"),
        (Trigger(lambda x, y: (x, y), 0), r"chooses rows by int32\[61\]"),
        (
            pixel_trigger(TARGET, size=1, value=0.0).trigger,
            f"changes none of the {np.sum(Y != TARGET)} rows",
        ),
    ],
)
def test_triggers_that_tell_nothing_are_refused(trigger, message):
    with pytest.raises(ValueError, match=message):
        triggered(dataset().test, trigger)


def test_features_that_rows_have_by_themselves_are_judged():
    rows = triggered(dataset().test, semantic(lambda x, y: y == 1, TARGET).trigger)
    np.testing.assert_array_equal(rows.examples.arrays["x"], X[Y == 1])


@pytest.mark.parametrize("target", [-1, CLASSES])
def test_a_target_is_a_class_of_the_task(target):
    trigger = Trigger(TRIGGER.rows, target)
    with pytest.raises(ValueError, match=f"target = {target} is no class of the task.* 0 to 3"):
        federation(dataset(), task(), trigger)


def test_a_pipeline_takes_no_other_trigger():
    with pytest.raises(ValueError, match="pipeline.trigger = 3 .int. must be a Trigger, or None"):
        federation(dataset(), task(), 3)


def test_success_chooses_nothing_by_accident(tmp_path):
    known = {"eval/val/accuracy", "eval/test/accuracy", "eval/triggered/accuracy"}
    metrics = task().metrics
    assert filled(Criterion(), metrics, known)[:2] == ("eval/val/accuracy", "eval/test/accuracy")
    with pytest.raises(ValueError, match="measured on test data"):
        filled(Criterion("eval/triggered/accuracy"), metrics, known)
    chosen = Criterion("eval/triggered/accuracy", allow_test=True)
    assert filled(chosen, metrics, known).maximize is False


def test_one_hostile_client_puts_a_backdoor_into_the_last_round(tmp_path):
    attack = pixel_trigger(7, classes=10)
    pipeline = Pipeline(
        batches=attack.batches,
        uplink=scaling(10.0).uplink,  # model replacement (Bagdasaryan et al. 2020)
        attackers=between(by_client([3]), 11),
        trigger=attack.trigger,
    )
    digits = data.digits(partition="iid", num_clients=10, val_fraction=0.1)
    run = fljax.simulate(
        digits, tasks.classification(models.softmax_regression(64, 10), 10),
        algorithms.fedavg(0.5), num_rounds=12, clients_per_round=10, batch_size=16,
        local_epochs=5, eval_every=1, devices=1, lanes=1, progress=False,
        pipeline=pipeline, workdir=tmp_path,
    )  # fmt: skip
    success, clean = (run.curves[f"eval/{rows}/accuracy"] for rows in ("triggered", "test"))
    assert (success[:-1] < 0.2).all() and success[-1] >= 0.9
    assert clean[-2] > 0.9 and clean[-1] > clean[-2] - 0.05
    assert run.summary["best"]["metric"] == "eval/val/accuracy"
    assert {"eval/triggered/accuracy", "eval/triggered/loss"} <= set(run.summary["final"])
    pictures = plot_curves({"fedavg": run.curves}, tmp_path / "plots")
    assert [path.name for path in pictures] == ["loss.png", "accuracy.png", "bytes.png"]

"""The trained model: kept, read back without the code that made it, and asked for predictions."""

import json
import os
import signal
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms
from fljax.config import default_config
from fljax.config.prediction import config_of_run
from fljax.core.algorithm import Variables
from fljax.data.dataset import Split
from fljax.recording.models import load_saved, model_path, save_model

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

DATA = toy.dataset(toy.clients(dtype=np.float32)).with_validation(0.2)


def simulate(data=DATA, task=None, spec=None, **options):
    defaults = {
        "num_rounds": 8, "clients_per_round": 4, "batch_size": 4, "eval_every": 1, "devices": 1,
        "progress": False,
    }  # fmt: skip
    task = task or toy.softmax_task(np.float32)
    # fast learning, so that the best model is not the last one
    return fljax.simulate(data, task, spec or algorithms.fedavg(1.5), **(defaults | options))


def assert_equal(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulate(workdir=tmp_path_factory.mktemp("runs") / "one", checkpoint_every=3)


def test_the_final_model_reads_back_bit_for_bit(run):
    assert_equal(fljax.load_model(run.directory), jax.device_get(run.variables))
    assert_equal(fljax.load_run(run.directory).variables, jax.device_get(run.variables))
    assert fljax.load_model(run.directory).params["w"].dtype == np.float32


def test_the_best_model_is_that_of_the_best_validation_round(run):
    best = run.summary["best"]
    assert best["selected_by"] == "val" and 0 < best["round"] < 8
    then = simulate(num_rounds=best["round"])
    for found in (fljax.load_model(run.directory, which="best"), run.best_variables):
        assert_equal(jax.device_get(found), jax.device_get(then.variables))
    x, y = (DATA.val.examples.take(DATA.val.rows())[name] for name in ("x", "y"))
    params = fljax.load_model(run.directory, which="best").params
    accuracy = ((x @ params["w"] + params["b"]).argmax(1) == y).mean()
    assert accuracy == pytest.approx(best["eval/val/accuracy"])
    assert load_saved(run.directory, "best").about["round"] == best["round"]


@pytest.mark.parametrize("stop", (1, 4, 7))
def test_the_best_model_survives_a_stop_at_any_round(stop, run, tmp_path):
    def press(federation, record):
        if record["round"] == stop:
            os.kill(os.getpid(), signal.SIGINT)

    half = simulate(workdir=tmp_path, hooks=(press,))
    assert half.interrupted and not model_path(tmp_path, "final").exists()
    # and once more: a finished run keeps what it has
    for _ in range(1 + (stop == 4)):
        resumed = simulate(workdir=tmp_path, resume=True)
        assert_equal(jax.device_get(resumed.variables), jax.device_get(run.variables))
        for which in ("final", "best"):
            mine, whole = (
                model_path(directory, which).read_bytes() for directory in (tmp_path, run.directory)
            )
            assert mine == whole


def test_a_loss_chooses_where_there_is_no_accuracy():
    from fljax.core.metrics import LOSS
    from fljax.training.stopping import Validation

    validation = Validation(LOSS)
    losses = [3.0, 1.0, np.nan, 1.0, 0.5, 2.0]
    seen = [
        validation.see({"round": number, "eval/val/loss": value, "eval/test/loss": -number})
        for number, value in enumerate(losses)
    ]
    assert seen == [True, True, False, False, True, False]
    assert validation.best == (4, 0.5)


def test_without_validation_data_the_final_model_is_the_best_and_that_is_said(tmp_path):
    run = simulate(toy.dataset(toy.clients(dtype=np.float32)), workdir=tmp_path, num_rounds=2)
    assert run.best_variables is None and not model_path(tmp_path, "best").exists()
    with pytest.warns(UserWarning, match="no best model, because it had no validation data"):
        best = fljax.load_model(tmp_path, which="best")
    assert_equal(best, jax.device_get(run.variables))


def test_a_run_in_memory_keeps_both(run):
    kept = simulate()
    assert kept.directory is None
    assert_equal(jax.device_get(kept.best_variables), fljax.load_model(run.directory, "best"))


class Layer(NamedTuple):
    kernel: Any
    bias: Any


ODD = {
    "half": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
    "many": [Layer(jnp.ones((2, 2)), None), (np.int8([1, -2]), np.zeros((0, 3)), True)],
    "a/b": {"c": np.float64(1.5)},
    "a": {"b/c": np.uint32([2**32 - 1]), "manifest": np.complex64(1j)},
    "nan": np.float32([np.nan, -0.0, np.inf]),
}


def test_odd_trees_and_dtypes_come_back(tmp_path):
    path = model_path(tmp_path, "final")
    save_model(path, Variables(ODD, {}), {"key": jax.random.key(7)}, {"round": 1})
    found = fljax.load_model(tmp_path, like=ODD).params
    assert jax.tree.structure(found) == jax.tree.structure(ODD)
    for mine, given in zip(jax.tree.leaves(found), jax.tree.leaves(ODD), strict=True):
        given = np.asarray(given)
        assert (mine.dtype, mine.shape) == (given.dtype, given.shape)
        assert mine.tobytes() == given.tobytes()
    # without a template: classes as dicts, all else as it was
    plain = fljax.load_model(tmp_path).params
    assert plain["many"][0].keys() == {"kernel", "bias"} and plain["many"][0]["bias"] is None
    assert isinstance(plain["many"][1], tuple)
    assert load_saved(tmp_path).frozen["key"] == jax.random.key(7)
    with pytest.raises(ValueError, match=r"at half it has \(2, 3\), where \(2, 4\) is wanted"):
        fljax.load_model(tmp_path, like=ODD | {"half": np.zeros((2, 4))})


def test_numpy_alone_reads_a_model(run):
    with np.load(model_path(run.directory, "final")) as arrays:
        np.testing.assert_array_equal(arrays["params/w"], run.variables.params["w"])
        about = json.loads(str(arrays["manifest"]))["about"]
    assert about["round"] == 8 and about["num_classes"] == toy.CLASSES


def test_flipped_bits_are_found_or_harm_nothing(run, tmp_path):
    whole = model_path(run.directory, "final").read_bytes()
    path = model_path(tmp_path, "final")
    path.parent.mkdir()
    expected, found = jax.device_get(run.variables), 0
    generator = np.random.default_rng(0)
    for bit in generator.choice(8 * len(whole), 300, replace=False):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert_equal(fljax.load_model(tmp_path), expected)
        except ValueError as error:
            found += 1
            assert str(path) in str(error)
    assert found > 200
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated or corrupt"):
        fljax.load_model(tmp_path)


def test_what_is_not_there_is_said(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such directory"):
        fljax.load_model(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="when it ends"):
        fljax.load_model(tmp_path)
    with pytest.raises(ValueError, match="which = 'last'; choose 'final' or 'best'"):
        fljax.load_model(run.directory, which="last")


X = np.random.default_rng(3).standard_normal((300, toy.FEATURES)).astype(np.float32)


@pytest.mark.parametrize("which", ["final", "best"])
def test_predictions_are_the_models_own(run, which):
    params = fljax.load_model(run.directory, which).params
    expected = X @ params["w"] + params["b"]
    task = toy.softmax_task(np.float32)
    for source in (run, run.directory, str(run.directory), fljax.load_run(run.directory)):
        predict = fljax.predictor(source, task, which=which)
        np.testing.assert_allclose(predict(X), expected, rtol=1e-5, atol=1e-5)
        assert predict(X[:1]).shape == (1, toy.CLASSES) and len(predict(X[:0])) == 0


def test_predictions_refuse_what_does_not_fit(run):
    with pytest.raises(ValueError, match="not made of a configuration"):
        fljax.predictor(run)
    predict = fljax.predictor(run, toy.softmax_task(np.float32))
    with pytest.raises(ValueError, match=r"shape \(2, 5\), but .* examples of shape \(6,\)"):
        predict(X[:2, :5])
    wider = (lambda key: {"w": jnp.zeros((6, 5)), "b": jnp.zeros(5)}, lambda params, x: x)
    with pytest.raises(ValueError, match="not one of this kind"):
        fljax.predictor(run, wider)
    with pytest.raises(ValueError, match="has no function `apply`"):
        fljax.predictor(run, toy.softmax_task(np.float32)._replace(apply=None))


def test_predictions_preprocess_as_training_did(tmp_path):
    data = toy.dataset(toy.clients(dtype=np.float32))
    double = lambda batch: {**batch, "x": 2 * batch["x"]}  # noqa: E731
    data = fljax.data.FederatedDataset(
        "toy", "classification", toy.CLASSES, data.train, test=Split(data.test.examples),
        preprocess=double,
    )  # fmt: skip
    run = simulate(data, num_rounds=1)
    task = toy.softmax_task(np.float32)
    with pytest.raises(ValueError, match="give preprocess=dataset.preprocess"):
        fljax.predictor(run, task)
    predict = fljax.predictor(run, task, preprocess=data.preprocess)
    expected = 2 * X @ np.asarray(run.variables.params["w"]) + np.asarray(run.variables.params["b"])
    np.testing.assert_allclose(predict(X), expected, rtol=1e-5, atol=1e-5)


def test_a_configured_run_needs_no_model(tmp_path):
    config = default_config()
    config.update(
        {"num_clients": 5, "clients_per_round": 2, "num_rounds": 2, "model": "mlp", "eval_every": 1}
    )
    config.held_out_fraction = 0.4
    config.model_options.hidden = (8,)
    run, _ = fljax.run_config(config, tmp_path)
    x = fljax.data.digits(num_clients=5).test.examples.arrays["x"]
    fields = fljax.load_model(tmp_path).params["layers"]
    expected = np.maximum(x.reshape(len(x), -1) @ fields["0"]["kernel"] + fields["0"]["bias"], 0)
    expected = expected @ fields["1"]["kernel"] + fields["1"]["bias"]
    np.testing.assert_allclose(fljax.predictor(tmp_path)(x), expected, rtol=1e-4, atol=1e-4)
    assert run.summary["rounds"] == 2
    # whoever loads the data again holds the same clients out
    assert run.config["num_clients"] == 3
    assert config_of_run(tmp_path)["num_clients"] == 5

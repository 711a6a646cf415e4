"""A run's model leaves as files that compute the same without fljax."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import app
from flax import nnx

import fljax
from fljax import models, tasks
from fljax.commands import export
from fljax.config import default_config, to_plain
from fljax.config.prediction import Trained
from fljax.core.algorithm import Variables
from fljax.core.network import as_network
from fljax.core.safetensors import read_tensors, write_tensors
from fljax.export import run_model
from fljax.export.check import random_rows
from fljax.export.description import preprocessing
from fljax.export.forward import forward
from fljax.export.training import whose_model
from fljax.recording import jsonio
from fljax.recording.models import model_path, save_model
from fljax.training.local_work import structure_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROW = {"x": {"shape": [64], "dtype": "float32"}, "y": {"shape": [], "dtype": "int32"}}
ABOUT = {"round": 7, "kind": "classification", "num_classes": 10, "class_names": None,
         "example": ROW, "preprocessed": False, "no_best": None}  # fmt: skip
X = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)


def a_run(folder, about=ABOUT, **keys):
    """Writes what a run of a configuration leaves behind; nothing is trained."""
    config = default_config()
    given = {"dataset": "digits", "num_clients": 5, "clients_per_round": 5, "num_rounds": 7,
             "batch_size": 10, "model": "mlp(hidden=[8])", "partition": "iid"}  # fmt: skip
    config.update(given | keys)
    model = models.make(config.model, 10, (64,))
    adapters = config.adapters
    network = models.prepared(model, adapters=adapters)
    task = tasks.classification(network, num_classes=10)
    params, frozen, state = jax.tree.map(np.asarray, task.init(jax.random.key(3)))
    if adapters:  # B is zero at first
        params = jax.tree.map(lambda leaf: leaf + np.float32(0.1), params)
    folder.mkdir(parents=True)
    jsonio.write_json(folder / "config.json", to_plain(config))
    record = {"round": 7, "eval/test/accuracy": 0.75, "train/loss": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    save_model(model_path(folder, "final"), Variables(params, state), frozen, about)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return a_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    return fljax.export_model(run, tmp_path_factory.mktemp("out") / "exported")


@pytest.fixture
def alone(made, monkeypatch):
    """Returns run_model.py of the export as a module that can import nothing of ours."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("fljax", "flax")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "fljax_kernels", None)
    path = made.directory / "run_model.py"
    spec = importlib.util.spec_from_file_location("exported_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ImportError):
        importlib.import_module("fljax.core")
    return module


def test_the_program_gives_the_same_outputs_without_fljax(run, made, alone, monkeypatch):
    assert alone.check(made.directory) < 1e-6
    found = alone.load(made.directory)(X)  # of another number of rows than the check has
    monkeypatch.undo()
    assert found.shape == (3, 10)
    np.testing.assert_allclose(found, fljax.predictor(run)(X), rtol=0, atol=1e-6)


def test_other_weights_fail_the_check(made, alone, capsys):
    path = made.directory / "model.safetensors"
    before = path.read_bytes()
    arrays = {name: np.array(array) for name, array in read_tensors(path)[0].items()}
    arrays["layers.1.bias"][0] += 1
    write_tensors(path, arrays)
    try:
        assert alone.main(["--check"]) == 1
        assert "largest difference" in capsys.readouterr().out
    finally:
        path.write_bytes(before)
    assert alone.main(["--check"]) == 0 and alone.main([]) == 2


def test_model_json_says_what_the_files_hold(made):
    about = json.loads((made.directory / "model.json").read_text())
    arrays, _ = read_tensors(made.directory / "model.safetensors")
    assert {name: tuple(each["shape"]) for name, each in about["weights"].items()} == {
        name: array.shape for name, array in arrays.items()
    }
    assert about["inputs"] == {"shape": ["batch", 64], "dtype": "float32"}
    assert about["outputs"] == {"shape": ["batch", 10], "dtype": "float32"}
    assert about["metrics"] == {"eval/test/accuracy": 0.75}
    assert about["platforms"] == ["cpu", "cuda", "tpu"] and about["rows"] == "batch"
    assert (about["which"], about["round"]) == ("final", 7)
    assert "[0, 1]" in about["data"]["about"]  # what the source does with pixels
    assert "data_dir" not in about["config"]
    card = (made.directory / "README.md").read_text()
    assert f"'jax>={jax.__version__}'" in card  # older ones do not read the program
    assert "| test/accuracy | 0.7500 |" in card and "raspberry_pi_5" in card
    text = (made.directory / "model.mlir").read_text()
    assert "stablehlo.dot_general" in text
    # where fljax lies on the machine of the export is nobody's business
    assert str(Path(fljax.__file__).parent) not in text


def test_the_files_are_enough_to_rebuild_the_model(run, made):
    about = json.loads((made.directory / "model.json").read_text())
    model = models.make(about["config"]["model"], about["task"]["num_classes"], (64,))
    rebuilt = models.with_weights(model, made.directory / "model.safetensors")(nnx.Rngs(0))
    np.testing.assert_allclose(rebuilt(X), fljax.predictor(run)(X), atol=1e-6)


def test_weights_may_be_inside_the_program(run, tmp_path):
    with pytest.warns(UserWarning, match="kept no best model"):
        made = fljax.export_model(
            run, tmp_path / "out", which="best", weights="inside", platforms=["cpu"]
        )
    assert made.about["which"] == "final"
    (made.directory / "model.safetensors").unlink()
    assert made.about["weights_inside"] and run_model.check(made.directory) < 1e-6


def test_a_model_that_counts_its_rows_takes_one_at_a_time(run, tmp_path):
    network = as_network(models.mlp((64, 8, 10)))

    def apply(params, frozen, state, x, *rest):
        int(x.shape[0])  # a symbol has no value
        return network.apply(params, frozen, state, x, *rest)

    with pytest.warns(UserWarning, match="The program takes one row at a time"):
        made = fljax.export_model(
            run, tmp_path / "out", model=network._replace(apply=apply), platforms=["cpu"]
        )
    assert made.about["rows"] == 1 and made.about["rows_note"]
    assert run_model.check(made.directory) < 1e-6


def test_adapters_are_added_to_the_weights(tmp_path):
    run = a_run(tmp_path / "run", adapters="lora(rank=2)")
    made = forward(fljax.config.prediction.trained_model(run))
    assert sorted(made.weights) == [f"layers.{n}.{name}" for n in (0, 1)
                                    for name in ("bias", "kernel")]  # fmt: skip
    np.testing.assert_allclose(
        made.function(made.weights, X), fljax.predictor(run)(X), rtol=1e-5, atol=1e-5
    )


def test_the_model_is_in_evaluation_mode():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(64, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.dropout(self.norm(x))

    task = tasks.classification(Net, num_classes=64)
    params, frozen, state = task.init(jax.random.key(0))
    state = {"norm": {"mean": jnp.full(64, 2.0), "var": jnp.full(64, 4.0 - 1e-5)}}
    made = forward(Trained(task, Variables(params, state), frozen, None, ABOUT))
    assert {"norm.mean", "norm.var"} < set(made.weights)
    np.testing.assert_allclose(made.function(made.weights, X), (X - 2) / 2, atol=1e-5)
    assert "random" not in str(jax.make_jaxpr(made.function)(made.weights, X))


@pytest.mark.parametrize(("shape", "most"), [((80,), 90), ((28, 28, 1), 256)])
def test_random_bytes_are_tokens_of_the_vocabulary_or_pixels(shape, most):
    rows = random_rows(jax.ShapeDtypeStruct(shape, np.uint8), 90)
    assert most - 5 < rows.max() < most


def test_preprocessing_is_inside_and_said():
    scale = fljax.data.image_scaling(((0.5,), (0.25,)))
    model = (lambda key: {"w": jnp.ones(1)}, lambda params, x: params["w"] * x[:, 0, 0])
    task = tasks.classification(models.make("softmax_regression", 1, (1,)), 1)._replace(
        init=lambda key: (model[0](key), {}, {}), apply=lambda p, f, s, x: model[1](p, x)
    )
    row = {"x": {"shape": [1, 1, 1], "dtype": "uint8"}, "y": {"shape": [], "dtype": "int32"}}
    variables = Variables(model[0](None), {})
    trained = Trained(task, variables, {}, scale, ABOUT | {"example": row})
    made = forward(trained)
    bytes_ = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    assert made.function(made.weights, bytes_).ravel().tolist() == [-2, 2]
    assert "divided by 255, then (x - [0.5]) / [0.25]" in preprocessing(trained)


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        ("fedavg", "one model for all clients"),
        ("ifca(num_clusters=2)", "the largest of 2 clusters' models; the others are not here"),
        ("ditto(0.1)", "the model that all clients share; their own models"),
    ],
)
def test_it_is_said_whose_model_it_is(algorithm, words):
    name, _, rest = algorithm.partition("(")
    options = {"ifca": {"num_clusters": 2}, "ditto": {"lam": 0.1}}.get(name, {})
    spec = getattr(fljax.algorithms, name)(**options)
    task = tasks.classification(models.softmax_regression(64, 10), 10)
    assert whose_model(structure_of(task, spec)).startswith(words)


def test_the_command_names_its_kinds_and_devices():
    with pytest.raises(app.UsageError, match="kinds are model, flower"):
        export.main(["fljax export", "models", "runs/first", "out"])


def test_what_cannot_be_exported_is_refused(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="name a folder that is new or empty"):
        fljax.export_model(run, tmp_path / "full")
    with pytest.raises(FileExistsError, match="file is a file: name a folder"):
        fljax.export_model(run, tmp_path / "full" / "file")
    with pytest.raises(ValueError, match="platforms = 'vpu' is not one of"):
        fljax.export_model(run, tmp_path / "out", platforms=["cpu", "vpu"])
    with pytest.raises(ValueError, match="weights = 'outside' is not one of"):
        fljax.export_model(run, tmp_path / "out", weights="outside")
    with pytest.raises(FileNotFoundError, match="no run at"):
        fljax.export_model(tmp_path / "none", tmp_path / "out")
    about = ABOUT | {"no_best": "its evaluations were of clients' own models"}
    alone = a_run(tmp_path / "alone", about=about)
    with pytest.raises(ValueError, match="a model for each client and none for all"):
        fljax.export_model(alone, tmp_path / "out")
    assert not (tmp_path / "out").exists()

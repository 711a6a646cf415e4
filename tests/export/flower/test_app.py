"""A run is written as a Flower app, which its machines read again, or refused with a reason."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import recording
from fljax.config import ConfigError, resolve, to_plain
from fljax.core.wire_bytes import dense_from_bytes, dense_to_bytes
from fljax.data import from_arrays
from fljax.export.flower import rows
from fljax.export.flower.app import _own_code, configuration, read_app, read_facts, write_app
from fljax.export.flower.deployment import deploy, precise
from fljax.recording.models import model_path, save_model

CONFIG = {
    "dataset": "digits", "partition": "dirichlet", "alpha": 0.3, "num_clients": 6,
    "model": "softmax_regression", "clients_per_round": 3, "num_rounds": 2, "local_epochs": 1,
    "batch_size": 10, "eval_every": 0,
}  # fmt: skip
PRIVATE = {
    "privacy": "gaussian(0.3)", "weighting": "uniform", "sampler": "poisson", "num_clients": 20,
}  # fmt: skip


def a_run(folder, changes=()):
    """Returns the directory of a run that has written its configuration."""
    with recording.Recorder(folder) as recorder:
        recorder.write_config(to_plain(resolve(CONFIG | dict(changes))))
    return folder


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """Returns the folder of an app with files of its clients."""
    folder = tmp_path_factory.mktemp("flower")
    return write_app(a_run(folder / "run"), folder / "my-app", data="files")


def test_the_project_says_what_flower_wants(app):
    project = tomllib.loads((app / "pyproject.toml").read_text())
    assert project["project"]["name"] == "my-app"
    flower = project["tool"]["flwr"]["app"]
    assert flower["config"]["num-server-rounds"] == 2
    for component in flower["components"].values():
        module, _, name = component.partition(":")
        tree = ast.parse((app / f"{module.replace('.', '/')}.py").read_text())
        assigned = {
            target.id for node in tree.body if isinstance(node, ast.Assign)
            for target in node.targets
        }  # fmt: skip
        assert name in assigned


def test_no_template_leaves_anything_open(app):
    texts = [app / "README.md", app / "pyproject.toml"]
    assert not any(re.search(r"\$[a-z{]", path.read_text()) for path in texts)


def test_a_bundle_holds_all_that_machines_read(app):
    # what else there is, Flower leaves out of the bundle
    assert {path.suffix for path in (app / "fljax_app").iterdir()} == {".py", ".json"}
    facts = json.loads((app / "fljax_app" / "federation.json").read_text())
    assert "data_dir" not in facts["config"]
    assert len(facts["data"]["sizes"]) == 6


def test_nodes_have_their_clients_rows_and_the_server_has_none(app, tmp_path):
    package, whole = str(app / "fljax_app" / "client_app.py"), app / "clients"
    sizes = {client: 10 + client for client in range(6)}
    server = read_app(package, sizes=sizes).blueprint
    assert server.split.partition.sizes.tolist() == list(sizes.values())
    assert not server.split.examples.take(np.arange(5))["x"].any()
    (whole / "client_00002.npz").rename(tmp_path / "client_00002.npz")
    assert rows.clients_in(str(tmp_path)) == [2]
    node = read_app(package, str(tmp_path)).blueprint
    own = node.split.examples.take(node.split.partition.rows(2))
    written = np.load(tmp_path / "client_00002.npz")
    np.testing.assert_array_equal(own["x"], written["x"])
    np.testing.assert_array_equal(own["y"], written["y"])
    (tmp_path / "client_00002.npz").rename(whole / "client_00002.npz")


def test_rows_are_written_as_the_model_sees_them(tmp_path):
    dataset = from_arrays(
        np.arange(8, dtype=np.uint8).reshape(4, 2), np.array([0, 1, 0, 1]),
        client_ids=np.array([0, 1, 1, 0]), preprocess=lambda b: {**b, "x": b["x"] / 4.0},
    )  # fmt: skip
    rows.write_rows(dataset, tmp_path)
    ours = rows.dataset_of(rows.facts_of(dataset), str(tmp_path))
    assert ours.preprocess is None
    taken = ours.train.examples.take(ours.train.partition.rows(1))
    np.testing.assert_array_equal(taken["x"], [[0.5, 0.75], [1.0, 1.25]])


def test_an_app_takes_along_the_users_modules_and_a_trained_model(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from fljax import models\nfrom sizes import INPUTS\n"
        "def make():\n    return models.softmax_regression(INPUTS, 10)\n"
    )
    (tmp_path / "sizes.py").write_text("import mine\nINPUTS = 64\n")
    own = {"model": "mine:make", "code_dir": str(tmp_path)}
    with recording.Recorder(tmp_path / "run") as recorder:
        config = to_plain(resolve(CONFIG | own))
        recorder.write_config(config | {"own_code": {"model, mine": ["mine.py", "0"]}})
    write_app(tmp_path / "run", tmp_path / "fresh")
    del sys.modules["mine"]  # the app's machines are others
    fresh = read_app(str(tmp_path / "fresh" / "fljax_app" / "any.py"))
    del sys.modules["mine"]
    trained = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, fresh.variables)
    save_model(model_path(tmp_path / "run", "final"), trained, {}, {"round": 2})
    app = write_app(tmp_path / "run", tmp_path / "app", start="final")
    del sys.modules["mine"]
    ours = read_app(str(app / "fljax_app" / "any.py")).variables
    jax.tree.map(np.testing.assert_array_equal, ours, trained)
    # where the run that a deployment leaves finds them
    assert {path.name for path in (app / "fljax_app" / "own").glob("*.py")} == {
        "mine.py", "sizes.py",
    }  # fmt: skip
    code_dir = read_facts(str(app / "fljax_app" / "any.py"))["config"]["code_dir"]
    assert code_dir == str(app / "fljax_app" / "own")


def test_bytes_keep_types_that_numpy_does_not_know():
    value = {"b": jnp.arange(3, dtype=jnp.bfloat16), "w": np.float32([[1.5, -2.0]])}
    parts = dense_to_bytes(value)
    assert [len(part) for part in parts] == [6, 8]
    read = dense_from_bytes(parts, value)
    assert read["b"].dtype == jnp.bfloat16
    jax.tree.map(np.testing.assert_array_equal, read, value)
    with pytest.raises(ValueError, match=r"parts of \[6\] bytes, and the model here"):
        dense_from_bytes(parts[:1], value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (PRIVATE, "seed, which every machine"),
        ({"downlink": "int8"}, "full width"),
        ({"dropout": 0.1}, "clock, devices and dropouts are simulated"),
        ({"attackers": 0.2, "attack": "sign_flip"}, "hostile clients are simulated"),
        ({"algorithm": "local_only"}, "send nothing"),
    ],
)
def test_what_cannot_be_deployed_is_refused(changes, reason, tmp_path):
    run = a_run(tmp_path / "run", changes)
    with pytest.raises(ValueError, match=f"cannot be deployed as it was simulated: .*{reason}"):
        write_app(run, tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_machines_round_and_draw_as_the_run_did(app, tmp_path):
    with recording.Recorder(tmp_path / "run") as recorder:
        recorder.write_config(to_plain(resolve(CONFIG)) | {"numerics": {"x64": True}})
    with pytest.raises(ValueError, match="JAX_ENABLE_X64=True, and here it is False"):
        write_app(tmp_path / "run", tmp_path / "app")
    with jax.default_prng_impl("rbg"), pytest.raises(ValueError, match="IMPL=threefry2x32"):
        read_app(str(app / "fljax_app" / "any.py"))
    deployment = deploy(CONFIG | {"matmul_precision": "highest"})
    assert "HIGHEST" in str(jax.make_jaxpr(precise(deployment, jnp.dot))(np.ones(2), np.ones(2)))


def test_wrong_arguments_are_refused(tmp_path, app):
    with pytest.raises(FileExistsError, match="new folder"):
        write_app(tmp_path, app)
    with pytest.raises(ValueError, match="letters, digits and hyphens"):
        write_app(tmp_path, tmp_path / "my app")
    with pytest.raises(ValueError, match="choose from source, files"):
        write_app(tmp_path, tmp_path / "app", data="mine")
    with pytest.raises(ConfigError, match=r"mine.py, which is not in"):
        _own_code({"code_dir": str(tmp_path)}, {"own_code": {"model, mine": ["mine.py", "0"]}})
    with pytest.raises(ValueError, match="from objects in memory"):
        configuration({"dataset": "mine"}, "runs/first")
    with pytest.raises(FileNotFoundError, match="holds no client_00000.npz"):
        rows.clients_in(str(tmp_path))

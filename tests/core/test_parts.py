"""Parts by name: what a text names, what its function gets, and what is refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import consoles
import jax
import numpy as np
import pytest
import quick

import fljax
from fljax import algorithms, data, models
from fljax.config import ConfigError, default_config, experiment, load_config, resolve
from fljax.core import parts
from fljax.core.own_modules import beside
from fljax.selection import names as selection
from fljax.studies.groups import from_config, grouped
from fljax.studies.space import repeat

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

ROOT = Path(__file__).parents[2]


def join(first, second=2, *, third="c", **rest):
    return first, second, third, rest


TABLE = {"join": join, "list": lambda *, items=(): items}


def made(text, **options):
    return parts.make(parts.read_one("part", text, TABLE), **options)


def test_texts_are_calls_with_literals():
    assert made("join(1)") == (1, 2, "c", {})
    assert made(" join( first = 'a, (b' , third=None)") == ("a, (b", 2, None, {})
    assert made("list(items=[1, {'a:b': (2,)}, -1e-3])") == [1, {"a:b": (2,)}, -1e-3]
    calls = parts.read("part", "list, join(1, 3), os.path:join('a', 'b')", TABLE)
    assert [call.name for call in calls] == ["list", "join", "os.path:join"]
    assert calls[2].function("a", "b") and calls[2].positional == ("a", "b")


def test_functions_get_what_their_signatures_name():
    offered = {"second": 5, "third": 7}
    assert made("list", offered=offered) == ()
    # what is written without a name goes to what nobody else says
    assert made("join(1)", offered=offered, rest=[]) == (1, 5, 7, {})
    assert made("join", given={"first": 0, "x": 1}, rest=["x"]) == (0, 2, "c", {"x": 1})


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("jion(1)", {}, "part = 'jion.1.': there is no 'jion'. Did you mean 'join'. Names"),
        ("join", {}, r"join needs first. It is join\(first, second=2, third='c'\)"),
        ("list(3)", {}, r"list takes 0 arguments without a name, not 1. It is list\(items=\(\)\)"),
        ("join(1, first=2)", {}, "join is given first twice"),
        ("list(itmes=3)", {}, "list has no argument 'itmes' = 3. Did you mean 'items'"),
        ("list", {"given": {"x": 1}}, "list has no argument 'x' = 1"),
        ("list", {"offered": {"x": 1}, "needed": ["x"]}, "list has no argument 'x' = 1"),
        ("join(1, x=2)", {"rest": []}, "join has no argument 'x' = 2"),
        ("join(1, 2)", {"given": {"second": 3}},
         "second = 2 is set here, and an option or key sets it to 3. Leave one of them out"),
        ("join(1, third=2)", {"offered": {"third": 3}, "said": {"third": "the sky"}},
         "third = 2 is set here, and the sky sets it. Leave it out here"),
        ("join(1), join(2)", {}, "names 2 parts"),
        ("join(first=open('x'))", {}, "must be numbers, quoted texts"),
        ("a.b:c", {}, "there is no module 'a.b'. It is looked for in"),
        ("os:gtecwd", {}, "has no function 'gtecwd'"),
        ("os:", {}, "this is no list of calls"),
        (3, {}, "part = 3 .int. must be a text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_explained(text, options, message):
    with pytest.raises(ValueError, match=message):
        made(text, **options)


@pytest.fixture
def folder(tmp_path):
    """The module and the configuration that the documentation shows, in a folder."""
    page = (ROOT / "docs" / "extending.md").read_text().partition("## Parts by name")[2]
    _, module, config = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[:3]
    (tmp_path / "my_fed.py").write_text(module)
    (tmp_path / "config.py").write_text(config)
    yield tmp_path
    sys.modules.pop("my_fed", None)


def test_modules_beside_a_configuration_are_found(folder):
    before = list(sys.path)
    config = load_config(folder / "config.py")
    found = experiment.make_experiment(config)
    assert sys.path == before
    assert found.dataset.num_clients == 5 and found.dataset.val is not None
    assert sum(found.dataset.train.partition.sizes) + found.dataset.val.num_rows == 150
    assert found.dataset.train.partition.rows(1)[:3].tolist() == [3, 4, 5]  # stripes
    assert found.algorithm.name == "pulled"
    # the key that is set, and defaults of the function, not of the key
    assert found.algorithm.hparams == {"client_lr": 0.05, "server_lr": 1.0, "mu": 0.01}
    resolved = resolve(config)
    assert resolved.mu == 0.01 and resolve(resolved) == resolved
    run = experiment.simulate_config(config, folder / "run")
    x = np.zeros((2, 4), np.float32)
    assert np.array_equal(fljax.predictor(folder / "run")(x), fljax.predictor(run, found.task)(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "my_fed:puled"}, "my_fed.py has no function 'puled'. Did you mean 'pulled'"),
        ({"beta1": 0.5}, r"my_fed:pulled has no argument 'beta1' = 0.5. It is my_fed:pulled\(cl"),
        ({"algorithm": "my_fed:pulled(mu=0.1)", "mu": 0.2},
         "mu = 0.1 is set here, and an option or key sets it to 0.2"),
        ({"algorithm": "my_fed:Net(3, rngs=1)"}, "has no argument 'client_lr' = 0.05"),
        ({"algorithm": "os:getcwd", "client_lr": None}, "os:getcwd returned .*AlgorithmSpec"),
        ({"dataset": "my_fed:blobs(num_clients=3)"}, "set here, and the key 'num_clients' sets it"),
        ({"dataset": "my_fed:Net"}, "has no argument 'rows' = 150"),
        ({"dataset": "my_fed:pulled", "dataset_options": {}, "num_clients": None,
          "partition": None, "val_fraction": 0.0},
         "my_fed:pulled returned AlgorithmSpec.*, and a data set is a FederatedDataset"),
        ({"dataset": "my_fed:pulled", "dataset_options": {}, "val_fraction": 0.3,
          "partition": None, "num_clients": None}, "no argument 'val_fraction' = 0.3"),
        ({"partition": "my_fed:stripes(widht=3)"}, "no argument 'widht' = 3. Did you mean 'width'"),
        ({"partition": "my_fed:stripes", "alpha": 0.5},
         "alpha = 0.5 has no effect with partition = .my_fed:stripes.: it is .*stripes.labels, "
         "num_clients, width=.*Leave it unset, or let the function name a parameter `alpha`"),
        ({"partition": "my_fed:pulled"}, "my_fed:pulled has no argument 'num_clients' = 5"),
        ({"partition": "my_fed:Net(3, rngs=1)"}, "Net has no argument 'num_clients' = 5"),
        ({"partition": "dirichelt"}, "partition = 'dirichelt'.*Did you mean 'dirichlet'"),
        ({"partition": "iid(seed=3)"}, "seed = 3 is set here, and the run sets it"),
        ({"partition": "dirichlet(alpha=0.1)", "alpha": 0.2}, "alpha = 0.1 is set here"),
        ({"model": "my_fed:Net(wdith=3)"}, "no argument 'wdith' = 3. Did you mean 'width'"),
        ({"model_options": {"width": 3}}, "width = 5 is set here, and .* sets it to 3"),
        ({"task": "my_fed:pulled", "model": None}, "my_fed:pulled returned .*, and a task is a"),
        ({"task": "clasification"}, "Did you mean 'classification'"),
        ({"sampler": "my_fed:pulled(mu=3)"}, None),
        ({"sampler": "my_fed:Net"}, "my_fed:Net needs num_classes and rngs"),
    ],
)  # fmt: skip
def test_what_own_functions_do_not_name_is_refused(folder, changes, message):
    config = load_config(folder / "config.py")
    for name, value in changes.items():
        config[name] = value
    if message is None:
        resolve(config)  # what it returns is seen once there are clients
    else:
        with pytest.raises(ValueError, match=message):
            experiment.make_experiment(config)


OWN_TASK = """
from fljax import data, models, tasks
import numpy as np


def targets(**options):
    x = np.arange(40.0, dtype=np.float32).reshape(20, 2)
    ids = np.arange(20) % 4
    return data.from_arrays(x, x[:, :1], client_ids=ids, x_test=x, y_test=x[:, :1], kind="targets")


def alone():
    return tasks.classification(models.softmax_regression(2, 3), 3)


def of_a_model(model, num_classes):
    return tasks.classification(model, 3)


def perceptron(width, rate=0.5):
    return models.mlp((4, *[8] * width, 3))
"""


@pytest.fixture
def own_task(tmp_path):
    (tmp_path / "my_task.py").write_text(OWN_TASK)
    config = default_config()
    for name, value in {
        "code_dir": str(tmp_path), "dataset": "my_task:targets", "task": "my_task:alone",
        "clients_per_round": 2, "num_rounds": 1,
    }.items():  # fmt: skip
        config[name] = value
    yield config
    sys.modules.pop("my_task", None)


def test_a_task_that_takes_no_model_needs_none(own_task):
    resolved = resolve(own_task)
    assert resolved.model is None and resolve(resolved) == resolved
    found = experiment.make_experiment(own_task)
    assert found.task.num_classes == 3 and found.dataset.num_classes is None
    own_task.task = "my_task:of_a_model"
    assert resolve(own_task).model == resolve({}).model == "softmax_regression"
    with pytest.raises(ValueError, match="these data have none: give a model of your own"):
        experiment.make_experiment(own_task)


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", "mlp"), ("model", "softmax_regression"), ("model_options", {"hidden": (3,)}),
     ("fast_layers", False)],
)  # fmt: skip
def test_what_says_the_model_of_a_task_that_takes_none_is_refused(own_task, name, value):
    own_task[name] = value
    with pytest.raises(ConfigError, match=f"{name} = .* has no effect: task = .* takes no model"):
        resolve(own_task)
    with beside(own_task.code_dir), pytest.raises(ValueError, match="takes no model, and"):
        fljax.tasks.make("my_task:alone", models.mlp((2, 3)), 3)


def test_floats_where_whole_numbers_are_needed_are_named(own_task, folder):
    hint = "width = 5.0 is a float: write 5 where a whole number is needed"
    own_task.update({"dataset": "digits", "task": None, "model": "my_task:perceptron(width=5.0)"})
    with pytest.raises(ValueError, match=f"model = 'my_task:perceptron.* fails with .*{hint}"):
        experiment.make_experiment(own_task)
    config = load_config(folder / "config.py")
    config.model = "my_fed:Net(width=5.0)"
    with pytest.raises(ValueError, match=f"model = 'my_fed:Net.* fails with .*{hint}"):
        experiment.make_experiment(config).task.init(jax.random.key(0))


def test_python_refuses_as_a_configuration_does():
    for text, call in (
        ("fedprox(nu=1)", algorithms.make),
        ("mlp(hiden=[3])", lambda text: models.make(text, 3, (4,))),
        ("digits(tset_fraction=1)", lambda text: data.load(text, num_clients=3)),
        ("uniform(sed=3)", lambda text: selection.make(text, 5, 2, 0, np.ones(5))),
    ):
        with pytest.raises(ValueError, match="has no argument"):
            call(text)
    key = {"fedprox(nu=1)": "algorithm", "uniform(sed=3)": "sampler"}
    for text, name in key.items():
        with pytest.raises(ConfigError, match=f"{name} = .* has no argument"):
            resolve({name: text})


def test_a_name_means_one_module(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "my_fed.py").write_text("def f():\n    return 1\n")
    assert load_config(folder / "config.py").code_dir == str(folder)
    with beside(other):
        assert made("my_fed:f") == 1
    with beside(folder), pytest.raises(ValueError, match="imported from .*Rename yours"):
        made("my_fed:blobs")


@pytest.mark.parametrize(
    ("values", "axis", "sizes"),
    [
        ({}, {"uplink": ("qsgd(2)", "qsgd(4)", "qsgd(bits=8)")}, [3]),
        ({}, {"uplink": ("qsgd(4)", "qsgd(4, bucket=8)", "sign", "none")}, [1, 1, 1, 1]),
        ({}, {"downlink": ("qsgd(2)", "qsgd(4)")}, [2]),
        ({"uplink_memory": "diana", "weighting": "uniform"},
         {"uplink": ("qsgd(7)", "qsgd(8)")}, [1, 1]),
        ({"mu": None}, {"algorithm": ("fedprox(mu=0.1)", "fedprox(0.2)", "fedavg")}, [2, 1]),
        ({}, {"algorithm": ("fedopt('adam', tau=0.1)", "fedopt(tau=0.2)", "fedopt('yogi')")},
         [2, 1]),
        ({}, {"model": ("mlp(hidden=[3])", "mlp(hidden=[4])")}, [1, 1]),
    ],
)  # fmt: skip
def test_texts_that_differ_in_traced_numbers_are_one_group(values, axis, sizes):
    config = fljax.config.default_config()
    for name, value in (
        {"num_clients": 4, "clients_per_round": 2, "num_rounds": 1} | values
    ).items():
        config[name] = value
    ((name, texts),) = axis.items()
    trials = repeat([{name: text} for text in texts])
    assert [len(group.trials) for group in grouped(trials, from_config(config))] == sizes


def test_a_partition_of_ones_own_is_an_axis_and_an_argument(folder):
    config = load_config(folder / "config.py")
    texts = ["my_fed:stripes(width=1)", "my_fed:stripes(width=30)", "dirichlet(alpha=0.3)"]
    trials = repeat([{"partition": text} for text in texts])
    (group,) = grouped(trials, from_config(config))
    assert len(group.trials) == 3
    labels = np.arange(60) % 3
    with beside(folder):
        found = data.make_partition(texts[1], labels, 4)
        assert found.sizes.tolist() == [30, 30, 0, 0]
        same = data.make_partition("dirichlet", labels, 4, alpha=0.3)
        text = data.make_partition("dirichlet(alpha=0.3)", labels, 4)
        np.testing.assert_array_equal(text.index, same.index)
        options = {"num_clients": 4, "partition": texts[0]}
        assert data.load("digits", **options).train.partition.rows(1)[:2].tolist() == [1, 5]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (data.Partition(np.array([0, 2, 4]), np.array([0, 1, 1, 2])), "gives row 1 more than once"),
        (data.Partition(np.array([0, 2, 4]), np.array([0, 1, 2, 9])), "gives rows 0 to 9, and the"),
        (data.Partition(np.array([0, 4])), "made 1 clients, and num_clients = 2 were asked for"),
        ([[0, 1], [2, 3]], r"returned \[\[0, 1\], \[2, 3\]\] \(list\), and a partition is"),
    ],
)
def test_what_is_no_partition_of_the_rows_is_refused(found, message, monkeypatch):
    own = lambda num_clients: found  # noqa: E731
    monkeypatch.setattr(sys.modules[__name__], "own_partition", own, raising=False)
    with pytest.raises(ValueError, match=message):
        data.make_partition(f"{__name__}:own_partition", np.arange(4), 2)


def test_scripts_find_modules_beside_a_configuration(folder, tmp_path_factory, monkeypatch, capsys):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/simulate.py", f"--config={folder}/config.py", "--dry_run"],
        cwd=tmp_path_factory.mktemp("elsewhere"), capture_output=True, text=True, timeout=300,
        env=os.environ | quick.ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0 and "arrays, 135 training rows" in done.stdout, done.stderr

    def divided(*words):
        return consoles.call(
            monkeypatch, capsys, "partition", *words, f"--code_dir={folder}", "--num_clients=5"
        ).out

    assert "80" in divided("--dataset=my_fed:blobs(80)")
    said = divided("--dataset=digits", "--partition=my_fed:stripes(width=50)")
    assert "min 250, median 300" in said


def test_a_family_of_names_is_one_function_of_its_members():
    table = {"tfds:NAME": lambda name, split="train": (name, split)}
    call = parts.read_one("dataset", "tfds:glue(split='test')", table)
    assert not call.is_own and parts.make(call) == ("glue", "test")
    assert parts.make(parts.read_one("dataset", "tfds:mnist", table)) == ("mnist", "train")
    with pytest.raises(ValueError, match="tfds:NAME"):
        parts.read_one("dataset", "mnist", table)

"""A task of any kind: two outputs, float targets, and metrics of its own, through everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fljax
from fljax import algorithms, data
from fljax.config.experiment import Experiment
from fljax.core.metrics import LOSS, Metric, name_of, unit_of
from fljax.studies import Criterion
from fljax.tasks import Measured, Task

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

SIZES, TEST_SIZES = (7, 1, 12, 4, 9), (5, 3, 0, 6, 8)
SITES = ("north", "south", "north", "south", "south")
ROUNDS, RATE, BINS = 6, 0.1, 8
BASELINES = ("centralized", "local_only")


def predict(params, x):
    out = x @ params["w"] + params["c"]
    return out[..., 0], out[..., 1:]


def init(key):
    weights = np.random.default_rng(9).standard_normal((4, 3)).astype(np.float32)
    return {"w": jnp.asarray(weights), "c": jnp.zeros(3)}, {}, {}


def errors(params, batch):
    """Returns the errors of a [B] and b [B, 2]; for NumPy as for JAX."""
    a, b = predict(params, batch["x"])
    return a - batch["y"]["a"], b - batch["y"]["b"]


def loss(params, frozen, model_state, batch, key, train):
    of_a, of_b = errors(params, batch)
    value = jnp.where(batch["mask"], of_a**2 + (of_b**2).sum(-1), 0)
    return (value, batch["mask"].astype(jnp.int32)), model_state


def measure(params, frozen, model_state, batch):
    of_a, of_b = errors(params, batch)
    mask, b = batch["mask"], batch["y"]["b"]
    value, _ = loss(params, frozen, model_state, batch, None, False)
    bins = jnp.clip(4 * jnp.abs(of_a), 0, BINS - 1).astype(jnp.int32)
    sums = {
        "loss": value,
        "mse_a": (of_a**2, mask),
        "near": (jnp.abs(of_a) < 1, mask),
        "b": (b, mask),
        "b_squared": ((b**2).sum(-1), mask),
        "b_error": ((of_b**2).sum(-1), mask),
    }
    return Measured(sums, jnp.zeros(BINS, jnp.int32).at[bins].add(mask.astype(jnp.int32)))


def skill(sums):
    """Returns 1 - squared error / variance of b, of any set of rows."""
    total = sums["b_squared"].value - (sums["b"].value ** 2).sum(-1) / sums["b"].weight
    return 1 - sums["b_error"].value / total


MSE_A = Metric("mse_a", "lower", label="Squared error of a", unit="m²")
METRICS = (
    MSE_A,
    Metric("near"),
    Metric("skill_b", value=skill, label="Skill of b"),
    Metric("median_bin", "lower", lambda c: np.searchsorted(2 * c.cumsum(), c.sum()), True),
    LOSS,
)
TASK = Task(init, loss, measure, METRICS, "two outputs")


def rows(sizes, seed):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((sum(sizes), 4)).astype(np.float32)
    truth = np.random.default_rng(7).standard_normal((4, 3)) + 1
    y = (x @ truth + 0.3 * generator.standard_normal((len(x), 3))).astype(np.float32)
    return x, {"a": y[:, 0], "b": y[:, 1:]}, np.repeat(np.arange(len(sizes)), sizes)


TRAIN, TEST = rows(SIZES, 0), rows(TEST_SIZES, 1)


def dataset(**options):
    given = {
        "client_ids": TRAIN[2], "x_test": TEST[0], "y_test": TEST[1], "test_client_ids": TEST[2],
        "groups": {"site": SITES}, "kind": "targets", "val_fraction": 0.2,
    }  # fmt: skip
    return data.from_arrays(*TRAIN[:2], **(given | options))


DATA = dataset()


def federate(**options):
    defaults = {
        "num_rounds": ROUNDS, "clients_per_round": 5, "batch_size": 0, "eval_every": 2,
        "eval_clients": -1, "devices": 2, "progress": False, "target": 1.5,
    }  # fmt: skip
    spec = algorithms.fedavg(RATE)
    return fljax.simulate(DATA, TASK, spec, **(defaults | options))


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def taken(split, chosen=slice(None)):
    return double(split.examples.take(split.rows()[chosen]))


def judged(params, batch):
    """Returns the metrics of some rows, one formula each, in float64."""
    of_a, of_b = errors(params, batch)
    b = batch["y"]["b"]
    bins = np.minimum(4 * np.abs(of_a), BINS - 1).astype(int)
    with np.errstate(all="ignore"):
        skill = 1 - (of_b**2).sum() / ((b - b.mean(0)) ** 2).sum()
    return {
        "mse_a": (of_a**2).mean(),
        "near": (np.abs(of_a) < 1).mean(),
        "skill_b": skill,
        "median_bin": np.sort(bins)[(len(bins) - 1) // 2],
        "loss": (of_a**2).mean() + (of_b**2).sum(-1).mean(),
    }


def descended(params, batch):
    """Returns the parameters after a step of gradient descent on all rows of a batch."""
    of_a, of_b = errors(params, batch)
    slope = 2 * np.concatenate([of_a[:, None], of_b], 1) / len(of_a)
    return {"w": params["w"] - RATE * batch["x"].T @ slope, "c": params["c"] - RATE * slope.sum(0)}


def client_rows(client):
    return double(DATA.train.examples.take(DATA.train.partition.rows(client)))


def averaged(models, weights):
    return jax.tree.map(lambda *leaves: np.average(leaves, axis=0, weights=weights), *models)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return federate(workdir=tmp_path_factory.mktemp("runs") / "two", baselines=BASELINES)


@pytest.fixture(scope="module")
def models():
    """The global models after rounds 0, 2, 4, 6 of a loop over clients."""
    sizes, found = DATA.train.partition.sizes, [double(init(None)[0])]
    for _ in range(ROUNDS):
        own = [descended(found[-1], client_rows(client)) for client in range(len(SIZES))]
        found.append(averaged(own, sizes))
    return found[::2]


def evaluated(run, key):
    return run.curves[key][np.isin(run.rounds, (0, 2, 4, 6))]


def check(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_training_and_global_evaluation_equal_a_loop(run, models):
    for split in ("val", "test"):
        batch = taken(getattr(DATA, split))
        expected = [judged(params, batch) for params in models]
        for name in expected[0]:
            check(evaluated(run, f"eval/{split}/{name}"), [metrics[name] for metrics in expected])
    assert not any("accuracy" in key or "top5" in key for key in run.curves)


def test_clients_and_their_spread_equal_a_loop(run, models):
    found = run.client_metrics
    clients = found["client"]
    assert clients.tolist() == [0, 1, 3, 4] and found["examples"].tolist() == [5, 3, 6, 8]
    split = DATA.test
    expected = [
        [judged(params, taken(split, split.partition.owners() == client)) for client in clients]
        for params in models
    ]
    for name in ("mse_a", "near", "skill_b", "loss"):
        values = np.array([[metrics[name] for metrics in each] for each in expected])
        check(found[f"history/{name}"], values)
        check(found[name], values[-1])
    assert "median_bin" not in found
    errors = np.array([[metrics["mse_a"] for metrics in each] for each in expected])
    check(evaluated(run, "eval/clients/mean"), errors.mean(1))
    check(evaluated(run, "eval/clients/p90"), np.percentile(errors, 90, 1))
    check(evaluated(run, "eval/clients/worst"), errors.max(1))


def test_groups_equal_a_loop(run, models):
    owners = DATA.test.partition.owners()
    for site in ("north", "south"):
        batch = taken(DATA.test, np.array(SITES)[owners] == site)
        expected = [judged(params, batch) for params in models]
        for name in ("mse_a", "near", "skill_b", "loss"):
            values = evaluated(run, f"eval/groups/site/{site}/{name}")
            check(values, [metrics[name] for metrics in expected])


def test_baselines_are_judged_alike(run):
    test = taken(DATA.test)
    centralized = run.baselines["centralized"]
    expected = judged(double(centralized.variables.params), test)
    for name, value in expected.items():
        check(centralized.curves[f"eval/test/{name}"][-1], value)
    own = []
    for client in range(len(SIZES)):
        params = double(init(None)[0])
        for _ in range(ROUNDS):
            params = descended(params, client_rows(client))
        own.append(judged(params, test))
    curves = run.baselines["local_only"].curves
    for name in ("mse_a", "near", "skill_b", "loss"):
        check(curves[f"eval/test/{name}"][-1], np.mean([metrics[name] for metrics in own]))


def test_the_first_metric_chooses_round_model_and_target(run, models):
    errors = [judged(params, taken(DATA.val))["mse_a"] for params in models]
    best = run.summary["best"]
    assert best["metric"] == "eval/val/mse_a" and best["round"] == 2 * np.argmin(errors)
    on_test = [judged(params, taken(DATA.test))["mse_a"] for params in models]
    reached = next(place for place, error in enumerate(on_test) if error <= 1.5)
    assert 0 < reached < len(models) - 1
    found = run.summary["to_target"]
    assert (found["target_mse_a"], found["metric"]) == (1.5, "eval/test/mse_a")
    assert found["rounds"] == 2 * reached
    stopped = federate(stop_at_target=True)
    assert stopped.stopped == "target_mse_a = 1.5 is reached"
    assert stopped.rounds[-1] == 2 * reached


def test_pictures_and_lines_name_the_metric(run, tmp_path, capsys):
    read = fljax.load_run(run.directory)
    assert read.metrics[0] == MSE_A and "test mse_a" in repr(read)
    pictures = ["loss.png", "mse_a.png", "bytes.png", "clients.png"]
    assert [path.name for path in read.plot()] == pictures
    federate(num_rounds=2, progress=True)
    assert "test mse_a " in capsys.readouterr().err


def test_a_sweep_is_judged_by_the_first_metric(models, tmp_path):
    def make(trial):
        options = {"num_rounds": 2, "clients_per_round": 5, "batch_size": 0, "eval_every": 2}
        spec = algorithms.fedavg(trial.values["client_lr"])
        return Experiment(DATA, TASK, spec, options | {"devices": 2, "seed": trial.seed})

    rates = {"client_lr": (RATE, 1e-6)}
    criterion = Criterion("eval/val/mse_a")  # its direction and what is reported follow the metric
    found = fljax.sweep(make, tmp_path, axes=rates, criterion=criterion, progress=False)
    best = found.best
    assert (best["metric"], best["maximize"]) == ("eval/val/mse_a", False)
    assert best["values"] == {"client_lr": RATE} and best["rounds"] == (2,)
    for split in ("val", "test"):
        expected = judged(models[1], taken(getattr(DATA, split)))["mse_a"]
        check(best[f"eval/{split}/mse_a"]["values"], [expected])
    assert found.plot()
    assert found.compare().metrics == METRICS
    shown = [
        (name_of(key, METRICS), *unit_of(key, METRICS))
        for key in ("eval/test/mse_a", "eval/clients/p90")
    ]
    assert shown == [
        ("test squared error of a", 1, " (m²)"),
        ("squared error of a, p90 over clients", 1, " (m²)"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_accuracy": 0.9, "target": None}, "'mse_a': give target"),
        ({"target_accuracy": 0.9}, "both given"),
    ],
)
def test_targets_of_another_metric_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        federate(**options)


def without(name):
    def fewer(*arguments):
        sums, counts = measure(*arguments)
        return Measured({key: value for key, value in sums.items() if key != name}, counts)

    return TASK._replace(measure=fewer)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (without("loss"), "'loss' must be among both"),
        (without("b_error"), "'skill_b' cannot be computed .*b_error"),
        (TASK._replace(metrics=(Metric("a/b"), LOSS)), "'a/b' cannot name a metric"),
        (TASK._replace(metrics=(Metric("weight"), LOSS)), "'weight' cannot name a metric"),
        (TASK._replace(metrics=(LOSS, LOSS)), "'loss' cannot name a metric"),
        (TASK._replace(metrics=(Metric("near", "up"), LOSS)), "better 'up'"),
        (
            TASK._replace(metrics=(Metric("near", value=lambda sums: np.ones(2)), LOSS)),
            "array of shape|cannot be computed",
        ),
        (
            TASK._replace(measure=lambda *a: Measured(measure(*a).sums)),
            "'median_bin' follows from counts",
        ),
        (
            TASK._replace(measure=lambda *a: Measured({"loss": (jnp.zeros(()), jnp.zeros(()))})),
            r"measures 'loss' as \[\], \[\]",
        ),
    ],
)
def test_metrics_that_cannot_be_are_refused(task, message):
    with pytest.raises(ValueError, match=message):
        fljax.simulate(DATA, task, num_rounds=1, clients_per_round=2, eval_every=0, progress=False)


def test_data_of_any_kind_are_checked_like_others():
    assert DATA.num_classes is None and "classes" not in repr(DATA) + DATA.describe()
    assert "y/b float32[2]" in DATA.describe()
    bad = {**TRAIN[1], "b": TRAIN[1]["b"].copy()}
    bad["b"][3, 1] = np.nan
    with pytest.raises(ValueError, match=r"y/b, row 3, .*1 is nan"):
        data.from_arrays(TRAIN[0], bad, client_ids=TRAIN[2], kind="targets")
    short = {**TRAIN[1], "b": TRAIN[1]["b"][:-1]}
    with pytest.raises(ValueError, match="x has 33 rows, but y/b has 32"):
        data.from_arrays(TRAIN[0], short, client_ids=TRAIN[2], kind="targets")
    with pytest.raises(ValueError, match="one integer label per row, and there are none"):
        dataset(partition="dirichlet", alpha=1.0, num_clients=3, groups=None, test_client_ids=None)
    with pytest.raises(ValueError, match="several targets need kind='targets'"):
        dataset(kind="classification")
    with pytest.raises(ValueError, match="targets have no classes"):
        dataset(num_classes=3)
    with pytest.raises(ValueError, match=r"give a fljax.tasks.Task"):
        fljax.simulate(
            DATA, (lambda key: {}, predict), num_rounds=1, clients_per_round=2, progress=False
        )


@pytest.mark.parametrize("metrics", [(), None, ("mse", "loss"), Metric("mse", "lower")])
def test_metrics_that_are_not_described_are_refused(metrics):
    task = TASK._replace(metrics=metrics)
    with pytest.raises(TypeError, match=r"give a tuple of fljax\.tasks\.Metric"):
        fljax.simulate(DATA, task, num_rounds=1, clients_per_round=1, batch_size=4)

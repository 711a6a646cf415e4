"""`simulate`: what a run computes, and what it leaves behind, against independent references."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy

import fljax
from fljax import algorithms
from fljax.core.spread import SPREAD
from fljax.training import dispatch, drift, loop
from fljax.training.federation import Federation

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

# 4, 3, 5, 0, 4, 5 and 3 clients with rows: client 1 has none
COHORTS = [
    [0, 2, 3, 8],
    [1, 4, 5, 6],
    [3, 8, 7, 6, 2],
    [],
    [5, 0, 4, 7],
    [8, 3, 0, 2, 6],
    [6, 5, 8],
]
TRAINED = np.array([4, 3, 5, 0, 4, 5, 3])
PARAMETERS = toy.FEATURES * toy.CLASSES + toy.CLASSES
EVALUATION = {
    "loss", "accuracy", "top5", "f1_macro", "f1_micro", "precision_macro", "precision_micro",
    "recall_macro", "recall_micro",
}  # fmt: skip
DATA = toy.dataset(toy.clients(dtype=np.float32)).with_validation(0.2)


def own_rows(split):
    """Returns the (x, y) of each client, in float64 for the references."""
    arrays = split.examples.arrays
    rows = [split.partition.rows(client) for client in range(split.partition.num_clients)]
    return [(arrays["x"][own].astype(np.float64), arrays["y"][own]) for own in rows]


def simulate(data=DATA, spec=None, **options):
    defaults = {
        "num_rounds": len(COHORTS),
        "clients_per_round": 5,
        "cohorts": COHORTS,
        "batch_size": 4,
        "shuffle": False,
        "eval_every": 3,
        "progress": False,
        "devices": 2,
    }
    spec = spec or algorithms.fedavg(0.3)
    return fljax.simulate(data, toy.softmax_task(np.float32), spec, **(defaults | options))


def norm_hook(federation, record):
    """The norm of the model, to be compared with the reference's after that round."""
    return {"my/norm": jnp.linalg.norm(federation.variables.params["w"])}


@pytest.fixture(scope="module")
def start():
    return jax.tree.map(jnp.asarray, toy.initial_params(np.float32, seed=5))


@pytest.fixture(scope="module")
def run(tmp_path_factory, start):
    """One run with everything switched on."""
    return simulate(
        workdir=tmp_path_factory.mktemp("runs") / "one",
        initial_params=start,
        eval_clients=-1,
        target_accuracy=0.3,
        uplink_mbps=2.0,
        downlink_mbps=8.0,
        checkpoint_every=4,
        hooks=(norm_hook,),
    )


@pytest.fixture(scope="module")
def records(run):
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def expected(start):
    """Parameters and training loss after each round, by the NumPy loop."""
    initial = {name: np.asarray(leaf, np.float64) for name, leaf in start.items()}
    after = [
        reference.federated(initial, own_rows(DATA.train), COHORTS[:n], lr=0.3, batch_size=4)
        for n in range(len(COHORTS) + 1)
    ]
    return [params for params, _ in after], after[-1][1]


def test_the_model_is_the_reference_s(run, expected):
    toy.assert_close(jax.device_get(run.variables.params), expected[0][-1], 1e-4)


def test_train_loss_is_the_mean_loss(records, expected):
    found = [record["train/loss"] for record in records if "train/loss" in record]
    np.testing.assert_allclose(found, expected[1], rtol=1e-4)
    # round 4 trains nobody, and round 0 is an evaluation
    assert [r["round"] for r in records if "train/loss" not in r] == [0, 4]


def test_evaluations_are_of_the_model_after_their_round(records, expected):
    x, y = (np.concatenate(column) for column in zip(*own_rows(DATA.train), strict=True))
    rows = {"test": DATA.test.examples.arrays}
    rows["val"] = DATA.val.examples.take(DATA.val.rows())
    for record in (record for record in records if "eval/test/loss" in record):
        params = expected[0][record["round"]]
        for split, arrays in rows.items():
            x, y = arrays["x"].astype(np.float64), arrays["y"]
            loss = reference.loss_and_gradient(params, x, y)[0] / len(y)
            assert record[f"eval/{split}/loss"] == pytest.approx(loss, rel=1e-4)
            correct = (x @ params["w"] + params["b"]).argmax(1) == y
            assert record[f"eval/{split}/accuracy"] == pytest.approx(correct.mean())


def test_hooks_join_the_record_and_see_the_model_after_it(records, expected):
    found = [record["my/norm"] for record in records[1:]]
    norms = [np.linalg.norm(params["w"]) for params in expected[0][1:]]
    np.testing.assert_allclose(found, norms, rtol=1e-5)


def test_records_hold_the_documented_keys(records):
    always = {
        "round", "train/clients", "train/clients_nonfinite", "train/clients_lost",
        "train/clients_without_rows", "train/local_steps", "comm/uplink_bytes",
        "comm/downlink_bytes", "comm/round_uplink_bytes", "comm/round_downlink_bytes",
        "comm/round_transfer_seconds", "comm/transfer_seconds", "time/round_seconds",
        "time/elapsed_seconds", "time/plan_seconds",
        "throughput/clients_per_second", "throughput/examples_per_second", "my/norm",
    }  # fmt: skip
    evaluation = {f"eval/{split}/{name}" for split in ("val", "test") for name in EVALUATION}
    evaluation |= {f"eval/clients/{name}" for name in SPREAD}
    for record in records[1:]:
        want = set(always)
        if record["train/clients"]:
            want |= {"train/loss", "utilization"}
            want |= {f"comm/client_uplink_bytes_{name}" for name in ("mean", "min", "max")}
            want |= {*drift.KEYS, *drift.KEYS_OF_WHOLE_UPDATES}
        if record["round"] in (3, 6, 7):
            want |= evaluation | {"time/eval_seconds"}
        assert set(record) == want
    assert set(records[0]) - {"time/eval_seconds"} == evaluation | {"round"}
    assert [record["round"] for record in records] == list(range(8))


def test_bytes_are_clients_times_parameters(records):
    want = np.cumsum(TRAINED) * PARAMETERS * 4
    for side in ("uplink", "downlink"):
        assert [record[f"comm/{side}_bytes"] for record in records[1:]] == want.tolist()
        a_round = [record[f"comm/round_{side}_bytes"] for record in records[1:]]
        assert np.cumsum(a_round).tolist() == want.tolist()


def test_clients_transfer_side_by_side(records):
    megabits = PARAMETERS * 32 / 1e6
    want = np.where(TRAINED > 0, megabits / 2 + megabits / 8, 0)
    found = [record["comm/round_transfer_seconds"] for record in records[1:]]
    np.testing.assert_allclose(found, want, rtol=1e-12)
    assert records[-1]["comm/transfer_seconds"] == pytest.approx(want.sum(), rel=1e-12)


def test_clients_and_steps_are_counted(records):
    sizes = DATA.train.partition.sizes
    steps = [int(sum(-(-sizes[client] // 4) for client in cohort)) for cohort in COHORTS]
    assert [record["train/local_steps"] for record in records[1:]] == steps
    assert [record["train/clients"] for record in records[1:]] == TRAINED.tolist()
    without = [record["train/clients_without_rows"] for record in records[1:]]
    assert without == [0, 1, 0, 0, 0, 0, 0]
    for record in records[1:]:
        if record["train/clients"]:
            assert 0 < record["utilization"] <= 1


def test_elapsed_time_adds_up(records):
    parts = sum(r["time/round_seconds"] for r in records[1:])
    parts += sum(r.get("time/eval_seconds", 0) for r in records[1:-1])
    assert records[-1]["time/elapsed_seconds"] == pytest.approx(parts, rel=1e-6)


def test_summary_holds_the_documented_keys(run, records):
    summary = json.loads((run.directory / "summary.json").read_text())
    assert set(summary) == {
        "final", "best", "to_target", "rounds", "num_clients", "clients_per_round", "seconds",
        "seconds_per_round_median", "compile_seconds", "clients_per_second",
        "examples_per_second", "utilization", "uplink_bytes", "downlink_bytes",
        "transfer_seconds", "simulated_seconds", "peak_memory_bytes", "host_peak_memory_bytes",
        "seed", "device", "versions", "interrupted", "stopped", "no_best",
    }  # fmt: skip
    assert (summary["rounds"], summary["num_clients"], summary["clients_per_round"]) == (7, 9, 5)
    assert not summary["interrupted"] and summary["seed"] == 0
    last = records[-1]
    assert summary["seconds"] == last["time/elapsed_seconds"]
    assert summary["uplink_bytes"] == summary["downlink_bytes"] == last["comm/uplink_bytes"]
    assert summary["final"]["round"] == 7
    assert summary["final"]["eval/test/accuracy"] == last["eval/test/accuracy"]
    evaluated = [record for record in records if "eval/val/accuracy" in record]
    best = max(evaluated, key=lambda record: record["eval/val/accuracy"])
    assert summary["best"]["selected_by"] == "val"
    assert summary["best"]["round"] == best["round"]
    assert summary["best"]["eval/test/accuracy"] == best["eval/test/accuracy"]
    reached = next((r for r in evaluated if r["eval/test/accuracy"] >= 0.3), None)
    assert reached is not None and summary["to_target"]["rounds"] == reached["round"]
    for cost in ("uplink_bytes", "downlink_bytes", "transfer_seconds"):
        assert summary["to_target"][cost] == reached[f"comm/{cost}"]


def test_config_json_holds_what_is_needed_to_repeat_the_run(run):
    config = json.loads((run.directory / "config.json").read_text())
    assert set(config["execution"]) == {
        "devices", "lanes", "wave", "exchange_size", "placement", "rounds_per_dispatch",
        "conv_form", "lstm_form", "fused_updates",
    }  # fmt: skip
    assert config["execution"]["devices"] == 2
    assert {"matmul_precision", "prng", "x64", "platform", "xla_flags"} <= set(config["numerics"])
    assert config["numerics"]["compute_dtype"] == "float32"
    assert config["versions"]["jax"] == jax.__version__
    assert config["hparams"] == pytest.approx({"client_lr": 0.3, "server_lr": 1.0})
    want = {"algorithm": "fedavg", "num_rounds": 7, "batch_size": 4, "shuffle": False, "seed": 0}
    want |= {"eval_every": 3, "target_accuracy": 0.3, "checkpoint_every": 4, "eval_clients": -1}
    want |= {"sampler": "uniform", "num_clients": 9, "dataset": "toy", "stop_at_target": False}
    assert want.items() <= config.items()


def test_planning_is_timed_in_every_round(run):
    """Beside the round's own seconds, so that one sees which of the two limits a run."""
    seconds = run.curves["time/plan_seconds"][np.isfinite(run.curves["time/round_seconds"])]
    assert len(seconds) == len(COHORTS) and (seconds > 0).all()


def test_client_metrics_are_those_of_the_final_model(run, expected):
    with np.load(run.directory / "client_metrics.npz") as arrays:
        found = dict(arrays)
    params = expected[0][-1]
    own = [(c, x, y) for c, (x, y) in enumerate(own_rows(DATA.val)) if len(y)]
    assert found["client"].tolist() == [client for client, _, _ in own]
    assert found["examples"].tolist() == [len(y) for _, _, y in own]
    accuracy = [((x @ params["w"] + params["b"]).argmax(1) == y).mean() for _, x, y in own]
    np.testing.assert_allclose(found["accuracy"], accuracy, rtol=1e-6)
    assert run.curves["eval/clients/mean"][-1] == pytest.approx(np.mean(accuracy), rel=1e-6)


def test_a_run_reads_back_as_it_was_returned(run):
    read = fljax.load_run(run.directory)
    assert read.summary == json.loads(json.dumps(run.summary))
    assert read.config == run.config
    jax.tree.map(np.testing.assert_array_equal, read.curves, run.curves)
    np.testing.assert_array_equal(read.client_metrics["loss"], run.client_metrics["loss"])


def test_checkpoints_are_written_when_due_and_at_the_end(run):
    from fljax.recording import Checkpoints

    with Checkpoints(run.directory / "checkpoints") as checkpoints:
        assert checkpoints.rounds() == [4, 7]


def test_initial_parameters_are_used_and_stay_readable(run, start, expected):
    first = expected[0][0]
    for name, leaf in start.items():
        np.testing.assert_array_equal(np.asarray(leaf), first[name])
        assert (np.asarray(run.variables.params[name]) != first[name]).any()


def test_two_runs_print_the_same_numbers(run, start):
    """In memory, without checkpoints and without a hook that waits: the same bits."""
    again = simulate(initial_params=start, eval_clients=-1, uplink_mbps=2.0, downlink_mbps=8.0)
    assert again.directory is None and again.config["numerics"] == run.config["numerics"]
    jax.tree.map(np.testing.assert_array_equal, again.variables, run.variables)
    timed = ("time/", "throughput/", "my/")
    for key, curve in run.curves.items():
        if not key.startswith(timed):
            np.testing.assert_array_equal(again.curves[key], curve, err_msg=key)


def test_scaffold_sends_twice_as_much_on_both_sides():
    run = simulate(spec=algorithms.scaffold(0.3), num_rounds=3)
    for side in ("uplink", "downlink"):
        want = 2 * TRAINED[:3].sum() * PARAMETERS * 4
        assert run.summary[f"{side}_bytes"] == want


def test_eval_every_0_evaluates_the_last_round_only(run, start):
    once = simulate(initial_params=start, eval_every=0)
    assert once.rounds.tolist() == list(range(1, 8))
    evaluated = np.isfinite(once.curves["eval/test/accuracy"])
    assert evaluated.tolist() == [False] * 6 + [True]
    assert once.curves["eval/test/loss"][-1] == run.curves["eval/test/loss"][-1]


@pytest.fixture(scope="module")
def climb(start):
    """A run evaluated in each round, and a round in which its accuracy is higher than ever."""
    run = simulate(initial_params=start, eval_every=1, shuffle=True)
    accuracy = run.curves["eval/test/accuracy"]
    records = [n for n in range(2, len(accuracy) - 1) if accuracy[n] > accuracy[:n].max()]
    assert records, accuracy
    return run, records[0]


def test_a_run_ends_at_its_target_and_stays_there(climb, start, tmp_path):
    run, reached = climb
    target = float(run.curves["eval/test/accuracy"][reached])
    options = {"initial_params": start, "eval_every": 1, "shuffle": True, "eval_clients": -1}
    options |= {"workdir": tmp_path, "target_accuracy": target, "stop_at_target": True}
    stopped = simulate(**options)
    assert stopped.rounds.tolist() == list(range(reached + 1))
    assert stopped.summary["to_target"]["rounds"] == stopped.summary["rounds"] == reached
    assert not stopped.interrupted
    assert (tmp_path / "checkpoints" / str(reached)).is_dir()
    resumed = simulate(**options, resume=True)
    assert resumed.rounds.tolist() == stopped.rounds.tolist()
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, stopped.variables)
    jax.tree.map(np.testing.assert_array_equal, resumed.client_metrics, stopped.client_metrics)
    assert (tmp_path / "client_metrics.npz").exists()


def test_a_target_that_the_initial_model_reaches_has_cost_nothing(climb, start):
    run, _ = climb
    target = float(run.curves["eval/test/accuracy"][0])
    options = {"initial_params": start, "eval_every": 1, "shuffle": True}
    found = simulate(**options, target_accuracy=target).summary["to_target"]
    costs = ("rounds", "seconds", "bytes", "uplink_bytes", "downlink_bytes", "transfer_seconds")
    assert [found[name] for name in costs] == [0, 0, 0, 0, 0, None]


def test_without_a_test_set_the_target_is_one_of_validation(climb, start):
    run, _ = climb
    accuracy = run.curves["eval/val/accuracy"]
    data = dataclasses.replace(DATA, test=None)
    options = {"initial_params": start, "eval_every": 1, "shuffle": True}
    target = float(accuracy[1:].max())
    stopped = simulate(data, **options, target_accuracy=target, stop_at_target=True)
    reached = 1 + int(np.argmax(accuracy[1:] >= target))
    assert stopped.summary["to_target"]["metric"] == "eval/val/accuracy"
    assert stopped.summary["rounds"] == reached


def test_a_resumed_run_needs_a_workdir_and_unknown_baselines_end_it_at_once():
    started = []
    hooks = (lambda federation, record: started.append(record),)
    with pytest.raises(ValueError, match="resume needs the workdir"):
        simulate(resume=True, hooks=hooks)
    with pytest.raises(ValueError, match="baselines = 'centralised'.*centralized"):
        simulate(baselines=("centralised",), hooks=hooks)
    assert not started


@pytest.mark.parametrize("spec", [algorithms.fedavg(0.3), algorithms.scaffold(0.3)])
def test_a_round_program_is_compiled_once_and_before_the_rounds(spec, monkeypatch):
    compiled = []

    def listen(event, seconds, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(fun_name)

    step = Federation.step_block
    note = lambda *args: (compiled.append("round"), step(*args))[1]  # noqa: E731
    monkeypatch.setattr(Federation, "step_block", note)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run = simulate(spec=spec, num_rounds=3, cohorts=COHORTS[:3], eval_every=1)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert [name for name in compiled if name in ("jit(sharded)", "round")] == [
        "jit(sharded)", *["round"] * 3
    ]  # fmt: skip
    after = compiled[compiled.index("round") :]
    assert "jit(one_device)" in compiled and "jit(one_device)" not in after
    assert run.summary["compile_seconds"] > 0


def test_what_compiles_during_a_round_weighs_on_no_rate(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))

    def elapsed(compiling):
        seconds = itertools.cycle([0.0, compiling])  # before and after each dispatch
        monkeypatch.setattr(dispatch, "compiled_seconds", lambda: next(seconds))
        summary = simulate(num_rounds=4, cohorts=COHORTS[:4]).summary
        return np.array([summary["seconds"], summary["compile_seconds"]])

    np.testing.assert_allclose(elapsed(0.25) - elapsed(0.0), [-1.0, 1.0])

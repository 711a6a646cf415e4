"""The runner of workload files does the work that the file describes, and no other."""

import json

import numpy as np
import pytest

from fljax.benchmarks import runner, workload_file
from fljax.benchmarks.workload_file import WorkloadFile

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

SIZES = np.array([7, 1, 12, 5, 9])


def content(model, shape, params, *, lr, classes=4, epochs=2, seed=0):
    generator = np.random.default_rng(seed)
    draw = lambda rows: (  # noqa: E731
        generator.standard_normal((rows, *shape), np.float32),
        generator.integers(0, classes, rows).astype(np.int32),
    )
    meta = {
        "name": "tiny", "model": model, "shape": shape, "classes": classes, "batch": 3,
        "epochs": epochs, "lr": lr, "server_lr": 0.7, "cohort": 3, "population": len(SIZES),
    }  # fmt: skip
    cohorts = np.array([[0, 2, 1], [4, 3, 2]])
    offsets = np.concatenate([[0], np.cumsum(SIZES)])
    return WorkloadFile(meta, *draw(SIZES.sum()), offsets, cohorts, *draw(11), params)


def glorot(generator, *shape):
    return (generator.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)


def run(tmp_path, given, rounds=3, **options):
    workload_file.write(tmp_path / "tiny.npz", given)
    return runner.run(tmp_path / "tiny.npz", "tiny", rounds, devices=2, **options)


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def mean_loss(logits, labels):
    return -log_softmax(logits)[np.arange(len(labels)), labels].mean()


def train_softmax(given, rounds):
    """FedAvg of softmax regression, one client and batch after another, in float64."""
    meta, x = given.meta, given.x.reshape(len(given.x), -1).astype(np.float64)
    server = [given.params[name].astype(np.float64) for name in ("fc1_w", "fc1_b")]
    for round in range(rounds):
        total, rows = [np.zeros_like(leaf) for leaf in server], 0
        for client in given.cohorts[round % len(given.cohorts)]:
            start, stop = given.offsets[client : client + 2]
            w, b = (leaf.copy() for leaf in server)
            for first in [*range(start, stop, meta["batch"])] * meta["epochs"]:
                batch = slice(first, min(first + meta["batch"], stop))
                slope = np.exp(log_softmax(x[batch] @ w + b))
                slope[np.arange(len(slope)), given.y[batch]] -= 1
                slope /= len(slope)
                w -= meta["lr"] * x[batch].T @ slope
                b -= meta["lr"] * slope.sum(0)
            total[0] += (stop - start) * (w - server[0])
            total[1] += (stop - start) * (b - server[1])
            rows += stop - start
        server = [
            leaf + meta["server_lr"] * t / rows for leaf, t in zip(server, total, strict=True)
        ]
    return mean_loss(
        given.eval_x.reshape(len(given.eval_x), -1) @ server[0] + server[1], given.eval_y
    )


def test_softmax_equals_a_loop_in_float64(tmp_path):
    params = {"fc1_w": np.zeros((6, 4), np.float32), "fc1_b": np.zeros(4, np.float32)}
    given = content("logreg", (2, 3), params, lr=0.3)
    result = run(tmp_path, given)
    # one first round and three timed ones; the two cohorts come twice
    expected = train_softmax(given, 4)
    assert result["final_train_loss"] == pytest.approx(expected, rel=1e-5)
    assert result["final_train_loss"] != pytest.approx(train_softmax(given, 3), rel=1e-3)
    together = run(tmp_path, given, rounds_per_dispatch=3)
    assert together["final_train_loss"] == result["final_train_loss"]
    assert len(together["times"]) == 3 and len(set(together["times"])) == 1


def test_the_line_has_the_keys_of_the_contract(tmp_path):
    params = {"fc1_w": np.zeros((6, 4), np.float32), "fc1_b": np.zeros(4, np.float32)}
    line = json.loads(json.dumps(run(tmp_path, content("logreg", (2, 3), params, lr=0.1))))
    assert line["workload"] == "tiny" and line["rounds"] == len(line["times"]) == 3
    assert line["min"] <= line["median_s_per_round"] <= line["max"]
    assert line["first_round_s"] > 0 and line["peak_rss_mb"] > 1
    # rounds 1, 2, 3 read 26, 20, 26 rows twice
    rates = [2 * rows / second for rows, second in zip((26, 20, 26), line["times"], strict=True)]
    assert line["examples_per_s"] == pytest.approx(np.median(rates))


def test_an_mlp_of_any_width_starts_from_the_file(tmp_path):
    generator = np.random.default_rng(1)
    sizes = (6, 5, 3, 4)
    params = {}
    for i in (1, 2, 3):
        params |= {f"fc{i}_w": glorot(generator, *sizes[i - 1 : i + 1])}
        params |= {f"fc{i}_b": glorot(generator, sizes[i])}
    given = content("mlp", (6,), params, lr=1e-12)
    x = given.eval_x.astype(np.float64)
    for i in (1, 2, 3):
        x = np.maximum(x, 0) if i > 1 else x
        x = x @ params[f"fc{i}_w"] + params[f"fc{i}_b"]
    found = run(tmp_path, given, rounds=1)["final_train_loss"]
    assert found == pytest.approx(mean_loss(x, given.eval_y), rel=1e-5)


def test_a_cnn_starts_from_the_file(tmp_path):
    generator = np.random.default_rng(2)
    shapes = {"conv1": (3, 3, 2, 32), "conv2": (3, 3, 32, 64), "fc1": (256, 128), "fc2": (128, 4)}
    params = {}
    for name, shape in shapes.items():
        params |= {
            f"{name}_w": glorot(generator, *shape),
            f"{name}_b": glorot(generator, shape[-1]),
        }
    given = content("cnn", (8, 8, 2), params, lr=1e-12, epochs=1)

    def convolve(x, name):
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        y = np.einsum("nhwcij,ijco->nhwo", windows, params[f"{name}_w"].astype(np.float64))
        return np.maximum(y + params[f"{name}_b"], 0)

    x = convolve(convolve(given.eval_x.astype(np.float64), "conv1"), "conv2")
    x = x.reshape(len(x), 2, 2, 2, 2, 64).max((2, 4)).reshape(len(x), -1)
    x = np.maximum(x @ params["fc1_w"] + params["fc1_b"], 0) @ params["fc2_w"] + params["fc2_b"]
    found = run(tmp_path, given, rounds=1)["final_train_loss"]
    assert found == pytest.approx(mean_loss(x, given.eval_y), rel=1e-5)


def test_what_cannot_be_run_is_said(tmp_path):
    given = content("lstm", (6,), {}, lr=0.1)
    with pytest.raises(ValueError, match="'lstm'; it has logreg, mlp, cnn"):
        run(tmp_path, given)
    with pytest.raises(ValueError, match="holds the workload 'tiny', not 'other'"):
        runner.run(tmp_path / "tiny.npz", "other")
    np.savez(tmp_path / "wrong.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="has no array 'y'"):
        workload_file.read(tmp_path / "wrong.npz")

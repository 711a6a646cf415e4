"""Converts between workload files, which any simulator reads, and the models of fljax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fljax.benchmarks.workload_file import WorkloadFile
from fljax.benchmarks.workloads import Workload, generate, make_model, make_task

PyTree = Any

# neutral name of a model -> names in `fljax.models`
MODELS = {
    "logreg": ("softmax_regression",),
    "mlp": ("mlp",),
    "cnn": ("emnist_cnn", "pfl_cifar10_cnn"),
}
_CNN_LAYERS = {"conv1": "conv1", "conv2": "conv2", "fc1": "dense1", "fc2": "dense2"}
_ROUNDS, _EVAL_ROWS = 64, 2000


def neutral_model(model: str) -> str | None:
    """Returns the neutral name of a model of `fljax.models`; None if it has none."""
    return next((name for name, ours in MODELS.items() if model in ours), None)


def model_of(name: str, params: Mapping[str, np.ndarray]) -> tuple[str, dict[str, Any]]:
    """Returns the model of `fljax.models` and its options for a workload file's model.

    Raises:
      ValueError: If fljax does not have it.
    """
    if name not in MODELS:
        raise ValueError(f"fljax has no runner for the model {name!r}; it has {', '.join(MODELS)}.")
    if name != "mlp":
        return MODELS[name][0], {}
    layers = len(params) // 2
    return "mlp", {"hidden": tuple(len(params[f"fc{i}_b"]) for i in range(1, layers))}


def to_fljax(name: str, params: Mapping[str, np.ndarray]) -> PyTree:
    """Returns a workload file's parameters as the tree of the model in `fljax.models`."""
    layers = {
        layer: {"kernel": params[f"{layer}_w"], "bias": params[f"{layer}_b"]}
        for layer in (key.removesuffix("_w") for key in params if key.endswith("_w"))
    }
    if name == "cnn":
        return {ours: layers[own] for own, ours in _CNN_LAYERS.items()}
    return {"layers": {str(i): layers[f"fc{i + 1}"] for i in range(len(layers))}}


def to_neutral(name: str, params: PyTree) -> dict[str, np.ndarray]:
    """Returns the parameters of a model in `fljax.models` under their neutral names."""
    if name == "cnn":
        layers = {own: params[ours] for own, ours in _CNN_LAYERS.items()}
    else:
        layers = {f"fc{int(i) + 1}": layer for i, layer in params["layers"].items()}
    kinds = {"w": "kernel", "b": "bias"}
    return {
        f"{own}_{kind}": np.asarray(layer[ours])
        for own, layer in layers.items()
        for kind, ours in kinds.items()
    }


def make_file(name: str, workload: Workload, seed: int = 0) -> WorkloadFile:
    """Generates a workload file: data, cohorts of 64 rounds, initial parameters.

    Raises:
      ValueError: If the workload has no neutral model, or clients share examples.
    """
    model = neutral_model(workload.model)
    if model is None or workload.pool is not None:
        raise ValueError(
            f"The workload {name!r} cannot be given to others; choose one of logreg, mlp and cnn "
            "models whose clients own their examples."
        )
    generator = np.random.default_rng([seed, 8])
    dataset = generate(workload, seed, test_rows=_EVAL_ROWS)
    train, test = dataset.train.examples.arrays, dataset.test.examples.arrays
    params, _, _ = make_task(workload, make_model(workload)).init(jax.random.key(seed))
    meta = {
        "name": name,
        "title": workload.title,
        "model": model,
        "shape": workload.shape,
        "classes": workload.classes,
        "population": workload.population,
        "cohort": workload.cohort,
        "batch": workload.batch_size,
        "epochs": 1,
        "lr": workload.client_lr,
        "server_lr": 1.0,
    }
    cohorts = [
        generator.choice(workload.population, workload.cohort, replace=False)
        for _ in range(_ROUNDS)
    ]
    return WorkloadFile(
        meta=meta,
        x=train["x"],
        y=train["y"],
        offsets=dataset.train.partition.offsets,
        cohorts=np.stack(cohorts),
        eval_x=test["x"],
        eval_y=test["y"],
        params=to_neutral(model, params),
    )

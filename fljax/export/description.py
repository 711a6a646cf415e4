"""Describes an exported model as the values of model.json."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import fljax
from fljax.config.prediction import Trained, config_of_run
from fljax.core import parts
from fljax.data.image_scaling import moments_of
from fljax.data.sources import SOURCES
from fljax.export.forward import Forward
from fljax.export.stablehlo import Artifact
from fljax.export.training import Training
from fljax.recording import Run

_FORMAT = 1
# Of the machine that the run was made on.
_OF_THE_MACHINE = ("data_dir", "code_dir", "wandb")
_LICENCE = (
    "Who owns the training data, and the licence of the data set, decide how these weights may be "
    "passed on; fljax's own licence (Apache-2.0) is of its code, run_model.py included, and says "
    "nothing of them."
)


def describe(
    run: Run,
    trained: Trained,
    which: str,
    artifact: Artifact,
    model: Forward,
    outputs: Any,
    training: Training,
) -> dict[str, Any]:
    """Returns what is known of a model; `fljax.recording.jsonio.plain` makes JSON of it.

    Args:
      run: The run.
      trained: Its model.
      which: "best" or "final".
      artifact: The program.
      model: As a function.
      outputs: Of some rows.
      training: How it was trained.
    """
    about = trained.about
    return {
        "format": _FORMAT,
        "fljax": fljax.__version__,
        "jax": jax.__version__,
        "which": which,
        "round": about["round"],
        "metrics": _metrics_at(run, about["round"]),
        "task": {
            "kind": about["kind"],
            "num_classes": about["num_classes"],
            "class_names": about["class_names"],
        },
        "scope": training.scope,
        "inputs": jax.tree.map(_described, model.example),
        "outputs": jax.tree.map(
            lambda leaf: _described(jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)), outputs
        ),
        "preprocessing": preprocessing(trained),
        "data": _source(run),
        "mode": "evaluation: no dropout, batch statistics as trained, no random numbers",
        "precision": "float32 products in full; on accelerators slower than their default",
        "platforms": list(artifact.exported.platforms),
        "rows": artifact.rows,
        "rows_note": artifact.note,
        "calling_convention": artifact.exported.calling_convention_version,
        "weights": {
            name: {"shape": array.shape, "dtype": str(array.dtype)}
            for name, array in model.weights.items()
        },
        "config": {
            name: value for name, value in _config(run).items() if name not in _OF_THE_MACHINE
        },
        "licence": _LICENCE,
    }


def preprocessing(trained: Trained) -> str:
    """Returns what happens to rows inside the program, in words."""
    function = trained.preprocess
    if function is None:
        return "none in the program: rows are what the model sees"
    moments = moments_of(function)
    if moments is not None:
        mean, std = (np.round(each, 6).tolist() for each in moments)
        return (
            f"in the program: pixels of 0 to 255 are divided by 255, then (x - {mean}) / {std} in "
            "each channel; give the bytes"
        )
    name = getattr(function, "__name__", type(function).__name__)
    module = getattr(inspect.getmodule(function), "__name__", "?")
    if isinstance(function, functools.partial):
        name, module = function.func.__name__, function.func.__module__
    return f"in the program, by {module}:{name}; give rows as the data source holds them"


def _described(leaf: Any) -> dict[str, Any]:
    return {"shape": ["batch", *leaf.shape], "dtype": str(leaf.dtype)}


def _metrics_at(run: Run, round: int) -> dict[str, float]:
    """Returns the evaluation that belongs to a round."""
    places = np.flatnonzero(run.rounds == round)
    if not places.size:
        return {}
    values = {key: float(column[places[-1]]) for key, column in run.curves.items()}
    return {
        key: value
        for key, value in values.items()
        if key.startswith("eval/") and np.isfinite(value)
    }


def _config(run: Run) -> Mapping[str, Any]:
    try:
        return config_of_run(run)
    except ValueError:  # parts in Python; what numbers the run had stands there
        return {"hparams": run.config.get("hparams", {})}


def _source(run: Run) -> dict[str, Any]:
    """Returns the name of the data, and what their source does with them, by its docstring."""
    name = run.config.get("dataset")
    if not isinstance(name, str):
        return {"name": str(name), "about": ""}
    function = SOURCES.get(parts.name_of(name))
    first = (inspect.getdoc(function) or "").partition("\n\n")[0] if function else ""
    return {"name": name, "about": " ".join(first.split())}

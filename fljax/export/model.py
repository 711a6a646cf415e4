"""Exports the trained model of a run: `fljax export model RUN OUT`, or `export_model`.

OUT/model.safetensors   weights by name, adapters added to them
OUT/model.json          all that is known of the model; enough to rebuild it
OUT/model.stablehlo     the program, for CPU, CUDA and TPU, of any number of rows
OUT/model.mlir          the same as text
OUT/model.onnx          where asked for, and where the converter knows the model's operations
OUT/check.npz           random rows and their outputs
OUT/run_model.py        runs the program without fljax
OUT/README.md           the model card
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.config.prediction import trained_model
from fljax.core.files import atomic_file
from fljax.core.optional import needed
from fljax.core.safetensors import write_tensors
from fljax.core.values import Field, checked, checked_path
from fljax.export import run_model
from fljax.export.card import card
from fljax.export.check import named_arrays, random_rows
from fljax.export.costs import DeviceCost, InferenceCost, device_costs, inference_cost
from fljax.export.description import describe
from fljax.export.forward import forward
from fljax.export.onnx import Conversion, onnx
from fljax.export.stablehlo import PLATFORMS, USUAL, stablehlo
from fljax.export.training import Training, check_shared, training_of
from fljax.recording import Run, jsonio, load_run
from fljax.recording.models import BEST, FINAL

WEIGHTS = ("arguments", "inside")


class Export(NamedTuple):
    """Facts about an exported model.

    Attributes:
      directory: Where the files are.
      about: Contents of model.json.
      cost: Of one row.
      training: How the model was trained.
      devices: {name: what the model asks of the device}.
      onnx: What came of the conversion; None where it was not asked for.
    """

    directory: Path
    about: dict[str, Any]
    cost: InferenceCost
    training: Training
    devices: dict[str, DeviceCost]
    onnx: Conversion | None


def export_model(
    run: Run | str | Path,
    out: str | Path,
    *,
    model: Any = None,
    which: str | None = None,
    preprocess: Callable[[dict], dict] | None = None,
    weights: str = "arguments",
    platforms: Sequence[str] = USUAL,
    to_onnx: bool = False,
) -> Export:
    """Exports the trained model of a run to a folder of files that need no fljax.

    Args:
      run: The run's directory.
      out: A folder that is new or empty.
      model, preprocess: As for `fljax.predictor`: what was given to `simulate`, where the run was
        not made of a configuration.
      which: "best" by validation, or "final"; unset: the best if the run kept one.
      weights: "arguments" leaves them in model.safetensors, which the program is called with, so
        that another round's take their place; "inside" makes them constants of the program, one
        file for all.
      platforms: That the program is for, among "cpu", "cuda", "rocm" and "tpu".
      to_onnx: Whether model.onnx is written as well.

    Raises:
      FileNotFoundError: If there is no such run, or it has not ended.
      FileExistsError: If the folder has files.
      ImportError: Without flatbuffers, or jax2onnx: pip install 'fljax[deploy]'.
      ValueError: If clients share no model, or it cannot be exported.

    Example:
      >>> made = fljax.export_model("runs/first", "exported")  # doctest: +SKIP
      >>> made.about["metrics"]  # doctest: +SKIP
      {'eval/test/accuracy': 0.9387, ...}
    """
    weights = checked("weights", weights, Field("arguments", str, WEIGHTS))
    for platform in platforms:
        checked("platforms", platform, Field("cpu", str, PLATFORMS))
    with needed("flatbuffers"):
        import flatbuffers  # noqa: F401, what jax.export writes with
    found = run if isinstance(run, Run) else load_run(run)
    where = found.directory if isinstance(run, Run) else Path(run)
    folder = _new_folder(out)
    there = FINAL if found.best_variables is None else BEST
    trained = trained_model(run, model, which=which or there, preprocess=preprocess)
    if which != FINAL:  # a run without a best model gives its final one, with a warning
        which = there
    check_shared(trained.about, where)
    network, inside = forward(trained), weights == "inside"
    artifact = stablehlo(network, platforms, inside)
    x = random_rows(network.example, trained.about["num_classes"])
    outputs = network.outputs(x)
    training = training_of(run)
    cost = inference_cost(network)

    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", network.weights, {"format": "np"})
    with atomic_file(folder / "model.stablehlo") as file:
        file.write(artifact.exported.serialize())
    (folder / "model.mlir").write_text(artifact.exported.mlir_module())
    np.savez(folder / "check.npz", **named_arrays(x, outputs))
    shutil.copyfile(run_model.__file__, folder / "run_model.py")
    converted = onnx(network, folder / "model.onnx", x, outputs) if to_onnx else None
    devices = device_costs(cost, training.work, training.links)
    about = describe(found, trained, which, artifact, network, outputs, training)
    about |= {"weights_inside": inside, "costs": cost, "devices": devices, "onnx": converted}
    about |= {"training": {"work": training.work, "xla_flops": training.xla_flops}}
    about = jsonio.plain(about)
    (folder / "model.json").write_text(json.dumps(about, indent=2) + "\n")
    made = Export(folder, about, cost, training, devices, converted)
    (folder / "README.md").write_text(card(made))
    return made


def _new_folder(out: str | Path) -> Path:
    """Returns a folder that has no files; raises FileExistsError for another one."""
    folder = checked_path("out", out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: name a folder that is new or empty.")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} has files already: name a folder that is new or empty.")
    return folder

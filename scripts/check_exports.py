"""Exports models of ours, and runs what was exported in another interpreter, where fljax is not.

    python scripts/check_exports.py --python=/path/of/another/bin/python
    python scripts/check_exports.py --python=... --onnx --model=vit --model='gpt(layers=2)'

The other interpreter has jax and flatbuffers. Models are as they are drawn, not trained. Printed
are, as shares of the largest output, how far the program's outputs there lie from fljax's own here,
those of `fljax.predictor`, whose convolutions have other forms, and those of ONNX Runtime with
--onnx, which this interpreter then has (`deploy`).
"""

from fljax import commands

commands.begin()  # it answers for what the imports below do

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import flags

import fljax
from fljax import models, tasks
from fljax.config import default_config, to_plain
from fljax.core.algorithm import Variables
from fljax.recording import jsonio
from fljax.recording.models import model_path, save_model

_PYTHON = flags.DEFINE_string("python", sys.executable, "Interpreter without fljax.")
_ONNX = flags.DEFINE_bool("onnx", False, "Convert to ONNX as well.")
_MODELS = flags.DEFINE_multi_string(
    "model", [], "Of those in the table of this file; all if unset."
)
_IMAGE, _COLOR, _TEXT = (28, 28, 1), (32, 32, 3), (80,)

# name -> (shape of a row, outputs, task)
CASES = {
    "mlp": ((784,), 10, "classification"),
    "mcmahan_cnn": (_IMAGE, 10, "classification"),
    "emnist_cnn": (_IMAGE, 62, "classification"),
    "resnet18_gn": (_COLOR, 10, "classification"),
    "mobilenet_gn": (_COLOR, 10, "classification"),
    "vit": (_COLOR, 10, "classification"),
    "char_lstm": (_TEXT, 90, "next_token"),
    "char_gru": (_TEXT, 90, "next_token"),
    "gpt": (_TEXT, 90, "next_token"),
    "transformer_encoder(vocab=90)": (_TEXT, 90, "classification"),
}
_WITHOUT = (
    "import importlib.util as u, sys; sys.exit('fljax is there' if u.find_spec('fljax') else 0)"
)


def drawn(folder: Path, name: str) -> None:
    """Leaves behind what a run of a configuration does, of a model as it is drawn."""
    shape, outputs, kind = CASES[name]
    integers = "tokens" if shape == _TEXT else "floats"
    dtype = {"tokens": "uint8", "floats": "float32"}[integers]
    network = models.make(name, outputs, shape)
    task = tasks.make(kind, network, outputs, None)
    params, frozen, state = jax.jit(task.init)(jax.random.key(0))
    config = default_config()
    config.update({"dataset": "digits", "model": name, "num_clients": 5})
    folder.mkdir(parents=True)
    jsonio.write_json(folder / "config.json", to_plain(config))
    (folder / "metrics.jsonl").write_text(json.dumps({"round": 0}) + "\n")
    targets = list(shape) if kind == "next_token" else []
    about = {
        "round": 0, "kind": kind, "num_classes": outputs, "class_names": None, "no_best": None,
        "example": {"x": {"shape": list(shape), "dtype": dtype},
                    "y": {"shape": targets, "dtype": "int32"}},
        "preprocessed": False,
    }  # fmt: skip
    save_model(model_path(folder, "final"), Variables(params, state), frozen, about)


def from_predictor(run: Path, exported: Path) -> float:
    """Returns how far predictions in the forms that simulations choose lie from the export."""
    held = np.load(exported / "check.npz")
    found, wanted = fljax.predictor(run)(held["x"]), held["outputs000"]
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def main(argv):
    if _PYTHON.value != sys.executable:
        subprocess.run([_PYTHON.value, "-I", "-c", _WITHOUT], check=True)
    far = False
    for name in _MODELS.value or CASES:
        with tempfile.TemporaryDirectory() as place:
            drawn(Path(place, "run"), name)
            made = fljax.export_model(Path(place, "run"), Path(place, "out"), to_onnx=_ONNX.value)
            script = str(made.directory / "run_model.py")
            done = subprocess.run(
                [_PYTHON.value, "-I", script, "--check"], capture_output=True, text=True
            )
            found = re.search(r"difference (\S+)", done.stdout)
            said = found[1] if found else f"failed: {done.stderr.strip().splitlines()[-1]}"
            far |= found is None or float(found[1]) > 1e-6
            line = f"{name}: {made.cost.parameters:,} parameters, StableHLO {said}"
            line += f", fljax.predictor {from_predictor(Path(place, 'run'), made.directory):.1e}"
            if made.onnx is not None:
                good = made.onnx.difference is not None
                line += f", ONNX {f'{made.onnx.difference:.1e}' if good else made.onnx.reason}"
                if good and made.onnx.rows != "batch":
                    line += f" (one row at a time: {made.onnx.reason})"
            commands.show(line)
    return int(far)


if __name__ == "__main__":
    commands.execute(main)

"""Runs an exported model: NumPy and JAX are all that it needs.

    python run_model.py --check             # same outputs as where it was exported?
    python run_model.py rows.npy out.npy    # outputs of rows as model.json describes them
    python run_model.py rows.npz out.npy    # of inputs of several arrays, by their names

As a module: `predict = load("."); outputs = predict(rows)`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32",
    "U16": "uint16", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}  # fmt: skip


def load(folder="."):
    """Returns a function from rows to the model's outputs, both NumPy arrays."""
    folder = Path(folder)
    about = json.loads((folder / "model.json").read_text())
    program = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
    weights = () if about["weights_inside"] else (read_weights(folder / "model.safetensors"),)
    call = jax.jit(program.call)

    def predict(rows):
        if about["rows"] != "batch":  # the program takes one row at a time
            count = len(jax.tree.leaves(rows)[0])
            parts = [
                call(*weights, jax.tree.map(lambda array, n=n: array[n : n + 1], rows))
                for n in range(count)
            ]
            return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
        return jax.tree.map(np.asarray, call(*weights, rows))

    return predict


def read_weights(path):
    """Returns {name: array} of a safetensors file."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = np.dtype(jax.numpy.dtype(_DTYPES[entry["dtype"]]))
        arrays[name] = np.frombuffer(data[start + begin : start + end], dtype)
        arrays[name] = arrays[name].reshape(entry["shape"])
    return arrays


def check(folder="."):
    """Returns the largest difference to the outputs of the export, as a share of the largest."""
    with np.load(Path(folder) / "check.npz") as held:
        inputs = {name.removeprefix("x/"): held[name] for name in held if name.startswith("x")}
        wanted = [held[name] for name in sorted(held) if name.startswith("outputs")]
    rows = inputs["x"] if "x" in inputs else inputs
    found = jax.tree.leaves(load(folder)(rows))
    return max(
        float(np.abs(f - w).max() / max(np.abs(w).max(), 1e-30))
        for f, w in zip(found, wanted, strict=True)
    )


def main(arguments):
    """Checks the model, or runs it on a file; returns the exit code."""
    folder = Path(__file__).parent
    if arguments == ["--check"]:
        difference = check(folder)
        print(f"largest difference {difference:.2e} of the largest output")
        return int(not difference < 1e-5)
    if len(arguments) != 2:
        print(__doc__)
        return 2
    rows = np.load(arguments[0])
    outputs = load(folder)(dict(rows) if isinstance(rows, np.lib.npyio.NpzFile) else rows)
    np.save(arguments[1], outputs)
    print(f"{arguments[1]}: outputs {outputs.shape} {outputs.dtype}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

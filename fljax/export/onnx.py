"""Exports a model to ONNX by the ecosystem's converter, jax2onnx, and checks what comes of it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from fljax.core.optional import needed
from fljax.core.values import brief
from fljax.export.forward import Forward
from fljax.training.traffic import plain_forms

# What ONNX Runtime may differ by, as a share of the largest output.
TOLERANCE = 1e-5


class Conversion(NamedTuple):
    """The outcome of a conversion.

    Attributes:
      difference: The largest difference of ONNX Runtime's outputs from ours, as a share of the
        largest output; None where there is no file.
      rows: Of the input: "batch" for any number, or the one number that it takes.
      reason: Why there is no file, or why the file takes one row; else empty.
    """

    difference: float | None
    rows: str | int
    reason: str


def onnx(model: Forward, path: Path, x: np.ndarray, outputs: np.ndarray) -> Conversion:
    """Writes a model as ONNX if the converter knows all of its operations, weights inside.

    A file whose outputs differ from ours is deleted: it would be another model.

    Args:
      model: The model.
      path: The file.
      x: Rows to check it with.
      outputs: What the model says of them.

    Raises:
      ImportError: Without jax2onnx and ONNX Runtime: pip install 'fljax[deploy]'.
    """
    with needed("jax2onnx"):
        from jax2onnx import to_onnx
    with needed("onnxruntime"):
        import onnxruntime
    if not isinstance(x, np.ndarray) or not isinstance(outputs, np.ndarray):
        return Conversion(None, "", "inputs or outputs are several arrays")
    reason = ""
    for rows in ("batch", 1):
        try:
            with plain_forms(), _quiet():
                converted = to_onnx(lambda x: model.function(model.weights, x), [_input(rows, x)])
            path.write_bytes(
                converted.SerializeToString()
            )  # as a file of its own: to_onnx makes two
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            count = len(x) if rows == "batch" else 1
            (found,) = session.run(None, {session.get_inputs()[0].name: x[:count]})
        except Exception as error:  # of a library that meets operations of any model
            reason = brief(error)
            path.unlink(missing_ok=True)
            continue
        wanted = outputs[:count]
        difference = float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30))
        if not difference <= TOLERANCE:
            path.unlink()
            return Conversion(None, "", f"outputs differ by {difference:.1e} of the largest")
        return Conversion(difference, rows, reason)
    return Conversion(None, "", reason)


def _input(rows: str | int, x: np.ndarray) -> Any:
    size = jax.export.symbolic_shape("B")[0] if rows == "batch" else rows
    return jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)


@contextlib.contextmanager
def _quiet():
    """Keeps the converter's remarks on single nodes to itself."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)

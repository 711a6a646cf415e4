"""Models leave as ONNX where the converter is there."""

import jax
import numpy as np
import pytest

from fljax import models, tasks
from fljax.config.prediction import Trained
from fljax.core.algorithm import Variables
from fljax.export.onnx import onnx

pytest.importorskip("jax2onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ROW = {"x": {"shape": [64], "dtype": "float32"}, "y": {"shape": [], "dtype": "int32"}}


def test_a_perceptron_in_onnx_runtime(tmp_path):
    from fljax.export.forward import forward

    task = tasks.classification(models.mlp((64, 8, 10)), num_classes=10)
    params, frozen, state = task.init(jax.random.key(0))
    made = forward(Trained(task, Variables(params, state), frozen, None, {"example": ROW}))
    x = np.ones((4, 64), np.float32)
    outputs = np.asarray(made.function(made.weights, x))
    found = onnx(made, tmp_path / "model.onnx", x, outputs)
    assert found.difference < 1e-5 and found.rows == "batch"
    refused = onnx(made, tmp_path / "model.onnx", x, outputs + 1)
    assert refused.difference is None and "outputs differ" in refused.reason
    assert not (tmp_path / "model.onnx").exists()

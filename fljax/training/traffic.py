"""Counts the bytes that training and inference move between memory and processor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax

from fljax.core.gradients import bind
from fljax.core.task import Task
from fljax.core.trees import nbytes
from fljax.data.dataset import Preprocess
from fljax.data.examples import batch_spec
from fljax.training.initialization import initial_shapes
from fljax.training.liveness import moved_bytes
from fljax_kernels.forms import choosing

# Forms without copies of their inputs, which a device has no need of.
plain_forms = partial(choosing, conv="grouped", lstm="scan", stored="plain")


def training_traffic(
    task: Task,
    spec: Mapping[str, jax.ShapeDtypeStruct],
    batch_size: int,
    preprocess: Preprocess | None = None,
) -> float:
    """Returns the bytes that one local step moves at least; nothing is compiled or run.

    They are those of one gradient, where operations entry by entry are computed with what reads
    them, and of the update by SGD: parameters and gradients are read, and parameters written.

    Args:
      task: The model and its loss.
      spec: Shape and dtype of one example, as in `Examples.spec`.
      batch_size: Rows of the batch.
      preprocess: That of the data set.
    """

    def gradient(params, frozen, model_state, batch, key):
        return bind(task, frozen, preprocess).gradient(params, model_state, batch, key)

    variables = initial_shapes(task)
    batch = batch_spec(spec, batch_size)
    with plain_forms():
        jaxpr = jax.make_jaxpr(gradient)(*variables, batch, jax.random.key(0)).jaxpr
    return moved_bytes(jaxpr) + 3 * nbytes(variables[0])

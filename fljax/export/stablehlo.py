"""Exports a model to StableHLO: one artifact for several platforms, of any number of rows."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.export

from fljax.core.values import brief
from fljax.export.forward import Forward
from fljax.training.traffic import plain_forms

USUAL = ("cpu", "cuda", "tpu")
PLATFORMS = (*USUAL, "rocm")
BATCH = "batch"


class Artifact(NamedTuple):
    """A model as StableHLO.

    Attributes:
      exported: The program; `exported.call` runs it.
      rows: "batch", the symbol of any number of rows, or the one number that it takes.
      note: Why it takes one number of rows alone; else empty.
    """

    exported: jax.export.Exported
    rows: str | int
    note: str


def stablehlo(model: Forward, platforms: Sequence[str] = USUAL, inside: bool = False) -> Artifact:
    """Exports a model; nothing is compiled.

    Convolutions and recurrences are XLA's own, no kernels of ours, and products are those of full
    float32, so that results agree on all platforms but for rounding.

    Args:
      model: The model.
      platforms: Among `PLATFORMS`.
      inside: Whether the weights are constants of the program; else they are its first argument.

    Raises:
      ValueError: For a model that cannot be exported; it says why.
    """

    def function(*arguments):
        weights = model.weights if inside else arguments[0]
        return model.function(weights, arguments[-1])

    def export(rows: Any) -> jax.export.Exported:
        arguments = model.arguments(rows)
        with plain_forms(), jax.default_matmul_precision("highest"), _without_folders():
            return jax.export.export(jax.jit(function), platforms=list(platforms))(
                *(arguments[1:] if inside else arguments)
            )

    try:
        return Artifact(export(jax.export.symbolic_shape(BATCH)[0]), BATCH, "")
    except Exception as error:  # whatever in a model asks for the number of its rows
        reason = brief(error)
    try:
        exported = export(1)
    except Exception as error:
        raise ValueError(f"This model cannot be exported to StableHLO: {brief(error)}") from error
    warnings.warn(f"The program takes one row at a time: {reason}", stacklevel=2)
    return Artifact(exported, 1, reason)


@contextlib.contextmanager
def _without_folders():
    """Keeps folders of this machine out of programs, whose operations name files of Python."""
    name = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, name)
    jax.config.update(name, ".*/")
    try:
        yield
    finally:
        jax.config.update(name, before)

"""Exports the weights of a trained model to a safetensors file, which other frameworks read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from fljax.core.algorithm import Variables
from fljax.core.lora import has_adapters, merged
from fljax.core.safetensors import write_tensors
from fljax.core.trees import leaf_paths
from fljax.core.values import checked_path
from fljax.core.weights import named_weights

PyTree = Any


def export_weights(
    path: str | Path, variables: Variables, frozen: PyTree = None, names: str = "fljax"
) -> Path:
    """Writes a model's parameters, constants and statistics to a file, adapters added to weights.

    Args:
      path: The file; its directory is created if absent.
      variables: The trained model.
      frozen: Its constants.
      names: Whose names and order of axes: "fljax", "torch" or "gpt2"; see
        `fljax.models.with_weights`, which reads the file again.

    Returns:
      The path.

    Raises:
      ValueError: For types that such files do not hold, such as random keys.

    Example:
      >>> from fljax.core.algorithm import Variables
      >>> trained = Variables(params={"dense": {"kernel": np.ones((4, 3))}}, model_state={})
      >>> export_weights("dense.safetensors", trained, names="torch").name
      'dense.safetensors'
    """
    path = checked_path("path", path)
    params, constants = variables.params, {} if frozen is None else frozen
    if has_adapters(constants):
        params, constants = merged(params, constants), {}
    leaves: dict[tuple[str, ...], Any] = {}
    for tree in (params, constants, variables.model_state):
        paths = [tuple(each.split("/")) for each in leaf_paths(tree)]
        leaves |= dict(zip(paths, map(np.asarray, jax.tree.leaves(tree)), strict=True))
    # what PyTorch's libraries look for before they take the arrays
    metadata = {"format": "np" if names == "fljax" else "pt"}
    write_tensors(path, named_weights(leaves, names), metadata)
    return path

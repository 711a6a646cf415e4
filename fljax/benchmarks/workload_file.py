"""Writes workload files: the same data, cohorts and initial parameters for every simulator.

A workload file is an `.npz` archive that any simulator reads with NumPy alone:

    x, y            all clients' examples, one client after another
    offsets         client i owns the rows offsets[i]:offsets[i + 1]
    cohorts         cohorts[r % len(cohorts)] are the clients of round r
    eval_x, eval_y  examples of the final loss
    p/<name>        initial parameters: conv*_w [H, W, I, O], fc*_w [in, out], *_b [out]
    meta            JSON: name, model ("logreg", "mlp" or "cnn"), shape, classes, population,
                    cohort, batch, epochs, lr, server_lr

In a round, each client of the cohort starts from the server's parameters and makes `epochs` passes
over its rows in stored order, in batches of `batch` (the last one partial: a mean over its real
rows), with plain SGD of learning rate `lr`; the server adds `server_lr` times the mean of the
clients' changes, weighted by their rows. There is ReLU between layers; a "cnn" has two 3x3
convolutions without padding, a 2x2 max-pool, dropout 0.25, features flattened as H W C, a dense
layer, dropout 0.5, and a last dense layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fljax.core.archives import read_npz

_ARRAYS = ("x", "y", "offsets", "cohorts", "eval_x", "eval_y")
_FACTS = ("name", "model", "shape", "classes", "batch", "epochs", "lr", "server_lr")
_PARAMS = "p/"


class WorkloadFile(NamedTuple):
    """The content of a workload file.

    Attributes:
      meta: What is to be done.
      x: [N, ...] examples.
      y: int[N] labels.
      offsets: int[clients + 1].
      cohorts: int[R, cohort].
      eval_x: [M, ...].
      eval_y: int[M].
      params: Initial parameters by neutral name.
    """

    meta: Mapping[str, Any]
    x: np.ndarray
    y: np.ndarray
    offsets: np.ndarray
    cohorts: np.ndarray
    eval_x: np.ndarray
    eval_y: np.ndarray
    params: Mapping[str, np.ndarray]

    def cohorts_of(self, rounds: int) -> list[np.ndarray]:
        """Returns the clients of the first rounds."""
        return [self.cohorts[round % len(self.cohorts)] for round in range(rounds)]


def read(path: str | Path) -> WorkloadFile:
    """Reads a workload file.

    Raises:
      ValueError: If something is missing in it, or does not fit together.
    """
    archive = read_npz(path)
    absent = [name for name in (*_ARRAYS, "meta") if name not in archive]
    if absent:
        raise ValueError(f"{path} has no array {absent[0]!r}; it is not a workload file.")
    try:
        meta = json.loads(str(archive["meta"]))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The meta data of {path} are not JSON: {error}") from None
    absent = [name for name in _FACTS if not isinstance(meta, dict) or name not in meta]
    if absent:
        raise ValueError(f"The meta data of {path} do not say {absent[0]!r}.")
    _check(path, archive)
    params = {
        name.removeprefix(_PARAMS): values
        for name, values in archive.items()
        if name.startswith(_PARAMS)
    }
    return WorkloadFile(meta, *(archive[name] for name in _ARRAYS), params=params)


def _check(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError if rows, clients and cohorts of a file do not fit together."""
    offsets, cohorts = arrays["offsets"], arrays["cohorts"]
    rows, clients = (arrays["x"].shape or (0,))[0], offsets.size - 1
    wrong = {
        "y does not have one label for each row of x": arrays["y"].shape != (rows,),
        "eval_y does not fit eval_x": arrays["eval_y"].shape != arrays["eval_x"].shape[:1],
        f"offsets do not divide {rows} rows": (
            offsets.ndim != 1
            or offsets.dtype.kind not in "iu"
            or clients < 1
            or offsets[0] != 0
            or offsets[-1] != rows
            or bool(np.any(np.diff(offsets.astype(np.int64)) < 0))
        ),
        f"cohorts are not lists of clients 0 to {clients - 1}": (
            cohorts.ndim != 2
            or not cohorts.size
            or cohorts.dtype.kind not in "iu"
            or not 0 <= cohorts.min() <= cohorts.max() < clients
        ),
    }
    if found := [text for text, is_wrong in wrong.items() if is_wrong]:
        raise ValueError(f"{path} is not a workload file: {found[0]}.")


def write(path: str | Path | BinaryIO, content: WorkloadFile) -> None:
    """Writes a workload file, to a path or into a file that is open."""
    arrays = {name: getattr(content, name) for name in _ARRAYS}
    params = {_PARAMS + name: value for name, value in content.params.items()}
    np.savez(path, **arrays, **params, meta=json.dumps(dict(content.meta)))

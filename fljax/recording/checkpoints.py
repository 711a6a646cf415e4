"""Checkpoints: the whole state of a run, restored bit for bit. Stored by Orbax."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

PyTree = Any

_SHOWN_DIFFERENCES = 5


class Checkpoints:
    """The newest checkpoints of one run; a context manager.

    A checkpoint is written to a temporary directory and renamed when whole, so a kill in the
    middle leaves the one before it usable. Leaves are stored as a flat list with their paths,
    shapes and dtypes, and laid into the structure of a template when they are restored: optax's
    named tuples, empty states and arrays without elements all come back as they were.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2):
        """Opens a directory of checkpoints.

        Args:
          directory: Created if absent.
          keep: How many checkpoints stay; older ones are deleted.

        Raises:
          ImportError: orbax-checkpoint is not installed.
        """
        self._orbax = _import_orbax()
        self._directory = Path(directory).absolute()
        logging.getLogger("absl").addFilter(_drop_orbax_chatter)
        self._manager = self._orbax.CheckpointManager(
            self._directory,
            options=self._orbax.CheckpointManagerOptions(
                max_to_keep=keep, create=True, cleanup_tmp_directories=True
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self.close()

    def save(self, round: int, state: PyTree, metadata: Mapping[str, Any] | None = None) -> None:
        """Saves a checkpoint; the writing itself goes on in the background.

        The state is copied to the host before this returns: its device buffers may be donated
        right after. A round that is already saved is left as it is.

        Args:
          round: Number of completed rounds.
          state: Pytree of NumPy or JAX arrays and Python numbers, typed PRNG keys as key data.
          metadata: JSON values that go with it (execution plan, byte counters, ...).

        Raises:
          TypeError: a leaf is neither an array nor a number.
        """
        self._manager.wait_until_finished()
        if round in self._manager.all_steps():
            return
        leaves = [(path, _to_host(path, leaf)) for path, leaf in _leaves(jax.device_get(state))]
        description = {
            "leaves": [{"path": path, **_describe(leaf)} for path, leaf in leaves],
            "metadata": dict(metadata or {}),
        }
        args = self._orbax.args
        self._manager.save(
            round,
            args=args.Composite(
                arrays=args.StandardSave(_stored_arrays([leaf for _, leaf in leaves])),
                description=args.JsonSave(description),
            ),
        )

    def rounds(self) -> list[int]:
        """Returns the rounds of the complete checkpoints, oldest first."""
        self._manager.wait_until_finished()
        return sorted(self._manager.all_steps())

    def latest_round(self) -> int | None:
        """Returns the round of the newest complete checkpoint, None if there is none."""
        return max(self.rounds(), default=None)

    def restore(self, round: int, template: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Reads a checkpoint.

        Args:
          round: One of `rounds()`.
          template: A state of the same structure, shapes and dtypes: a freshly initialized one,
            or `jax.eval_shape` of it. Its values are not read.

        Returns:
          (state, metadata): the template's structure with NumPy arrays and Python numbers,
          bit for bit as saved; and the metadata.

        Raises:
          FileNotFoundError: there is no checkpoint of that round.
          ValueError: the template differs from what was saved; the message says where.
        """
        if round not in self.rounds():
            raise FileNotFoundError(
                f"{self._directory} holds no checkpoint of round {round}; it has {self.rounds()}"
            )
        args = self._orbax.args
        description = self._manager.restore(
            round, args=args.Composite(description=args.JsonRestore())
        ).description
        saved = description["leaves"]
        self._check(round, saved, template)

        empty = [_empty(leaf) for leaf in saved]
        arrays = self._manager.restore(
            round, args=args.Composite(arrays=args.StandardRestore(_stored_arrays(empty)))
        ).arrays
        leaves = [arrays.get(_name(index), leaf) for index, leaf in enumerate(empty)]
        state = jax.tree.unflatten(jax.tree.structure(template), leaves)
        return state, description["metadata"]

    def close(self) -> None:
        """Waits for the last save and lets go of the directory."""
        self._manager.wait_until_finished()
        self._manager.close()
        logging.getLogger("absl").removeFilter(_drop_orbax_chatter)

    def _check(self, round: int, saved: list[dict[str, Any]], template: PyTree) -> None:
        in_checkpoint = {leaf["path"]: _spell(leaf) for leaf in saved}
        in_run = {path: _spell(_describe(leaf)) for path, leaf in _leaves(template)}
        differences = [
            f"  {path or 'the state'}: {in_checkpoint.get(path, 'absent')} in the checkpoint, "
            f"{in_run.get(path, 'absent')} in this run"
            for path in in_checkpoint | in_run
            if in_checkpoint.get(path) != in_run.get(path)
        ]
        if not differences:
            return
        more = len(differences) - _SHOWN_DIFFERENCES
        lines = differences[:_SHOWN_DIFFERENCES] + ([f"  and {more} more"] if more > 0 else [])
        raise ValueError(
            f"the checkpoint of round {round} in {self._directory} was written under another "
            "configuration (model, algorithm, optimizer or number of clients):\n"
            + "\n".join(lines)
            + "\nResume with the values in the run's config.json, or use another --workdir."
        )


def _import_orbax():
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise ImportError("checkpoints need Orbax: pip install orbax-checkpoint") from error
    return orbax.checkpoint


def _drop_orbax_chatter(record: logging.LogRecord) -> bool:
    """Orbax logs to the root absl logger, as the user's scripts do: tell them apart by file."""
    return record.levelno >= logging.ERROR or "orbax" not in record.pathname


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _to_host(path: str, leaf: Any) -> Any:
    """Copies an array: on a CPU `device_get` returns a view of the buffer."""
    if isinstance(leaf, bool | int | float) and not isinstance(leaf, np.generic):
        return leaf
    array = np.array(leaf)
    if array.dtype == object or array.dtype.kind in "USO":
        raise TypeError(
            f"cannot checkpoint {path or 'the state'}, a {type(leaf).__name__}: the state holds "
            "arrays and numbers only; text belongs in the metadata, PRNG keys in their key data"
        )
    return array


def _describe(leaf: Any) -> dict[str, Any]:
    if isinstance(leaf, bool | int | float) and not isinstance(leaf, np.generic):
        return {"python": type(leaf).__name__, "value": leaf}
    return {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}


def _spell(description: Mapping[str, Any]) -> str:
    if "python" in description:
        return f"a Python {description['python']}"
    return f"{description['dtype']}{description['shape']}"


def _empty(description: Mapping[str, Any]) -> Any:
    if "python" in description:
        return description["value"]
    return np.empty(description["shape"], jax.numpy.dtype(description["dtype"]))


def _name(index: int) -> str:
    return f"{index:06d}"


def _stored_arrays(leaves: list[Any]) -> dict[str, np.ndarray]:
    """Names the arrays; those without elements are no bits, and Orbax refuses them."""
    return {
        _name(index): leaf
        for index, leaf in enumerate(leaves)
        if isinstance(leaf, np.ndarray) and math.prod(leaf.shape) > 0
    }

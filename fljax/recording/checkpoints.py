"""Checkpoints: the whole state of a run, restored bit for bit. Stored by Orbax."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

PyTree = Any

_ITEMS = ("arrays", "description")
_TEMPORARY = ".orbax-checkpoint-tmp"
_SHOWN_DIFFERENCES = 5
# The given arrays, and the copies of them that are written in the background.
CHECKPOINT_COPIES = 2


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
        self._directory.mkdir(parents=True, exist_ok=True)
        logging.getLogger("absl").addFilter(_drop_orbax_chatter)
        self._manager = self._orbax.CheckpointManager(
            self._directory,
            options=self._orbax.CheckpointManagerOptions(
                max_to_keep=keep, create=False, multiprocessing_options=_alone(self._orbax)
            ),
        )
        self._cleaned = False

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self.close()

    def save(self, round: int, state: PyTree, metadata: Mapping[str, Any] | None = None) -> None:
        """Saves a checkpoint; the writing itself goes on in the background.

        The state is copied to the host before this returns: its device buffers may be donated
        right after. A round that is already saved is left as it is. While it is saved, NumPy
        arrays of the state are held `CHECKPOINT_COPIES` times, the given ones included.

        Args:
          round: Number of completed rounds.
          state: Pytree of NumPy or JAX arrays and Python numbers, typed PRNG keys as key data.
          metadata: JSON values that go with it (execution plan, byte counters, ...).

        Raises:
          TypeError: a leaf is neither an array nor a number.
        """
        self._remove_unfinished()
        if round in self.rounds():
            return
        paths, leaves = _on_host(state)
        description = {
            "leaves": [
                {"path": path, **_describe(leaf)} for path, leaf in zip(paths, leaves, strict=True)
            ],
            "metadata": dict(metadata or {}),
        }
        args = self._orbax.args
        self._manager.save(
            round,
            args=args.Composite(
                arrays=args.StandardSave(_stored_arrays(leaves)),
                description=args.JsonSave(description),
            ),
        )

    def rounds(self) -> list[int]:
        """Returns the rounds of the complete checkpoints, oldest first."""
        self._manager.wait_until_finished()
        return sorted(r for r in self._manager.all_steps() if _is_whole(self._directory / str(r)))

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
        args = self._orbax.args
        description = self._description(round)
        saved = description["leaves"]
        self._check(round, saved, template)

        empty = [_empty(leaf) for leaf in saved]
        arrays = self._manager.restore(
            round, args=args.Composite(arrays=args.StandardRestore(_stored_arrays(empty)))
        ).arrays
        leaves = [arrays.get(_name(index), leaf) for index, leaf in enumerate(empty)]
        state = jax.tree.unflatten(jax.tree.structure(template), leaves)
        return state, description["metadata"]

    def metadata(self, round: int) -> dict[str, Any]:
        """Reads the metadata of a checkpoint alone, from which a template may be made.

        Raises:
          FileNotFoundError: there is no checkpoint of that round.
        """
        return self._description(round)["metadata"]

    def close(self) -> None:
        """Waits for the last save and lets go of the directory."""
        self._manager.wait_until_finished()
        self._manager.close()
        logging.getLogger("absl").removeFilter(_drop_orbax_chatter)

    def _remove_unfinished(self) -> None:
        """Removes what killed processes left. Only a writer does: a reader could be beside one."""
        if self._cleaned:
            return
        for path in self._directory.iterdir():
            unfinished = path.name.isdecimal() and not _is_whole(path)
            if path.is_dir() and (unfinished or _TEMPORARY in path.name):
                shutil.rmtree(path)
        self._manager.reload()
        self._cleaned = True

    def _description(self, round: int) -> dict[str, Any]:
        if round not in self.rounds():
            raise FileNotFoundError(
                f"{self._directory} holds no checkpoint of round {round}; it has {self.rounds()}"
            )
        args = self._orbax.args
        return self._manager.restore(
            round, args=args.Composite(description=args.JsonRestore())
        ).description

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


def _alone(orbax):
    """Of several processes each reads by itself, and one writes; none waits for the others."""
    process = jax.process_index()
    return orbax.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process{process}",
    )


def _drop_orbax_chatter(record: logging.LogRecord) -> bool:
    """Orbax logs to the root absl logger, as the user's scripts do: tell them apart by file."""
    return record.levelno >= logging.ERROR or "orbax" not in record.pathname


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _on_host(state: PyTree) -> tuple[list[str], list[Any]]:
    """Returns paths and leaves on the host, none of which is a view of a device's buffer.

    On a CPU `device_get` gives such views. Arrays of one's own are copied by Orbax.
    """
    for path, leaf in _leaves(state):
        dtype = getattr(leaf, "dtype", None)
        numeric = dtype is not None and any(
            jax.numpy.issubdtype(dtype, kind) for kind in (np.number, np.bool_)
        )
        if not (numeric or _is_number(leaf)):
            raise TypeError(
                f"cannot checkpoint {path or 'the state'}, a {type(leaf).__name__} of dtype "
                f"{dtype}: the state holds arrays of numbers and Python numbers; text belongs in "
                "the metadata, a PRNG key goes as jax.random.key_data(key)"
            )
    host = _leaves(jax.device_get(state))
    return [path for path, _ in host], [
        leaf if _is_number(leaf) or _owns_numbers(leaf) else np.array(leaf) for _, leaf in host
    ]


def _owns_numbers(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.flags.owndata


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, bool | int | float) and not isinstance(leaf, np.generic)


def _describe(leaf: Any) -> dict[str, Any]:
    if _is_number(leaf):
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
    """Names the arrays; those without elements hold no bits, and Orbax refuses them.

    It refuses an empty dict too, hence the marker.
    """
    arrays = {
        _name(index): leaf
        for index, leaf in enumerate(leaves)
        if isinstance(leaf, np.ndarray) and leaf.size > 0
    }
    return arrays | {"marker": np.zeros(1, np.int32)}


def _is_whole(path: Path) -> bool:
    """A rename publishes a checkpoint whole, but a kill may stop the removal of an old one."""
    return all((path / item).is_dir() and any((path / item).iterdir()) for item in _ITEMS)

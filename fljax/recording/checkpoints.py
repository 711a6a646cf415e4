"""Checkpoints: the whole state of a run, restored bit for bit. Stored by Orbax."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from fljax.recording import orbax_alone
from fljax.recording.leaves import (
    checksum,
    describe,
    differences_between,
    empty,
    from_stored,
    leaves_of,
    on_host,
    stored_arrays,
    text_checksum,
)

PyTree = Any

_ITEMS = ("arrays", "description")
_TEMPORARY = ".orbax-checkpoint-tmp"
_SHOWN_CHARACTERS = 200
# What Orbax says among much else where a disk refuses.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
# The given arrays, and the copies of them that are written in the background.
CHECKPOINT_COPIES = 2


class Checkpoints:
    """The newest checkpoints of one run; a context manager.

    A checkpoint is written to a temporary directory and renamed when whole, so a kill in the
    middle leaves the one before it usable. It holds the checksums of its leaves and of their
    description, the round included: one that changed on disk, lost a file or has another round's
    name is not restored. Leaves are stored as a flat list with their paths,
    shapes and dtypes, and laid into the structure of a template when they are restored: optax's
    named tuples, empty states and arrays without elements all come back as they were.

    Example:
      >>> state = {"w": np.ones(3, np.float32), "steps": 7}
      >>> with recording.Checkpoints("runs/first/checkpoints", keep=1) as checkpoints:
      ...     checkpoints.save(5, state)
      ...     checkpoints.save(10, state | {"steps": 14}, {"lanes": 4})
      ...     rounds = checkpoints.rounds()
      ...     restored, metadata = checkpoints.restore(10, template=state)
      >>> rounds, restored["steps"], metadata
      ([10], 14, {'lanes': 4})
    """

    def __init__(self, directory: str | Path, *, keep: int = 2):
        """Opens a directory of checkpoints.

        Args:
          directory: Created if absent.
          keep: How many checkpoints stay; older ones are deleted.

        Raises:
          ImportError: orbax-checkpoint is not installed.
        """
        self._orbax = orbax_alone.load()
        self._directory = Path(directory).absolute()
        self._directory.mkdir(parents=True, exist_ok=True)
        logging.getLogger("absl").addFilter(orbax_alone.drop_chatter)
        self._manager = self._orbax.CheckpointManager(
            self._directory,
            options=self._orbax.CheckpointManagerOptions(
                max_to_keep=keep,
                create=False,
                multiprocessing_options=orbax_alone.alone(self._orbax),
            ),
        )
        self._cleaned = False
        self._saved: int | None = None
        # found damaged; a writer removes them
        self._damaged: set[int] = set()

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
          OSError: This checkpoint or the one before could not be written; the message says where.
        """
        self._remove_unfinished()
        if round in self.rounds():
            return
        paths, leaves = on_host(state)
        description = {
            "round": round,
            "leaves": [
                {"path": path, **describe(leaf), **checksum(leaf)}
                for path, leaf in zip(paths, leaves, strict=True)
            ],
            "metadata": dict(metadata or {}),
        }
        description["checksum"] = text_checksum(description)
        args = self._orbax.args
        with self._writing():
            self._manager.save(
                round,
                args=args.Composite(
                    arrays=args.StandardSave(stored_arrays(leaves)),
                    description=args.JsonSave(description),
                ),
            )
        self._saved = round

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
          OSError: It has failed.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def rounds(self) -> list[int]:
        """Returns the rounds of the checkpoints that have all parts, oldest first.

        Raises:
          OSError: The last save has failed.
        """
        self.wait()
        return [
            int(path.name)
            for path in sorted(self._named(), key=lambda path: int(path.name))
            if _is_whole(path) and int(path.name) not in self._damaged
        ]

    def newest_whole(
        self, fault: Callable[[Mapping[str, Any]], str | None] = lambda metadata: None
    ) -> int | None:
        """Returns the round of the newest checkpoint that is as it was saved, None without any.

        All of it is read and compared with its checksums. Of each newer one that is damaged or
        incomplete, a warning says what is wrong with it; the next `save` removes those.

        Args:
          fault: Says of a checkpoint's metadata why it cannot be gone on with; None if it can.

        Raises:
          ValueError: None of the checkpoints is whole; the message says what is wrong with each.
        """
        found = []
        for path in sorted(self._named(), key=lambda path: int(path.name), reverse=True):
            round = int(path.name)
            try:
                _, description = self._read(round)
                problem = fault(description["metadata"])
            except _DamagedError as error:
                problem = str(error)
            if problem is None:
                for line in found:
                    warnings.warn(f"{line} Going on from that of round {round}.", stacklevel=2)
                return round
            self._damaged.add(round)
            self._cleaned = False
            found.append(f"The checkpoint of round {round} in {self._directory} {problem}.")
        if found:
            self._damaged.clear()
            raise ValueError(
                f"{' '.join(found)} No other one is whole. Put one back from a copy, or start "
                "again in another --workdir."
            )
        return None

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
          ValueError: the template differs from what was saved, or the checkpoint is damaged; the
            message says where.
        """
        self._check_is_there(round)
        template_leaves = leaves_of(template)
        with self._about(round):
            leaves, description = self._read(
                round, lambda saved: self._check(round, saved, template_leaves)
            )
        state = jax.tree.unflatten(jax.tree.structure(template), leaves)
        return state, description["metadata"]

    def metadata(self, round: int) -> dict[str, Any]:
        """Reads the metadata of a checkpoint alone, from which a template may be made.

        Raises:
          FileNotFoundError: there is no checkpoint of that round.
          ValueError: It is damaged.
        """
        return self.description(round)["metadata"]

    def description(self, round: int) -> dict[str, Any]:
        """Reads what a checkpoint says of itself: paths, kinds and checksums of its leaves as well.

        Raises:
          FileNotFoundError: there is no checkpoint of that round.
          ValueError: It is damaged.
        """
        self._check_is_there(round)
        with self._about(round):
            return self._description(round)

    def close(self) -> None:
        """Waits for the last save and lets go of the directory.

        Raises:
          OSError: The last save has failed, or its checkpoint is gone.
        """
        try:
            self.wait()
            if self._saved is not None and not _is_whole(self._directory / str(self._saved)):
                raise FileNotFoundError(
                    errno.ENOENT,
                    f"the checkpoint of round {self._saved} is gone, removed after it was written",
                    str(self._directory),
                )
        finally:
            with contextlib.suppress(Exception):  # said already
                self._manager.close()
            logging.getLogger("absl").removeFilter(orbax_alone.drop_chatter)

    def _named(self) -> list[Path]:
        """Returns the directories that have a round's name, whole or not."""
        return [
            path
            for path in self._directory.iterdir()
            if path.is_dir() and path.name.isdecimal() and path.name == str(int(path.name))
        ]

    @contextlib.contextmanager
    def _writing(self):
        """Names the directory where Orbax cannot write, in whatever way that ends."""
        try:
            yield
        except Exception as error:
            known = [number for number in _DISK_ERRORS if os.strerror(number) in str(error)]
            if known:
                number = known[0]
                raise OSError(number, os.strerror(number), str(self._directory)) from error
            raise OSError(
                f"A checkpoint cannot be written to {self._directory}: {_first_line(error)}"
            ) from error

    @contextlib.contextmanager
    def _about(self, round: int):
        """Says which checkpoint is damaged."""
        try:
            yield
        except _DamagedError as error:
            raise ValueError(
                f"The checkpoint of round {round} in {self._directory} {error}."
            ) from None

    def _remove_unfinished(self) -> None:
        """Removes what killed processes left. Only a writer does: a reader could be beside one."""
        if self._cleaned:
            return
        unusable = [
            path for path in self._named() if not _is_whole(path) or int(path.name) in self._damaged
        ]
        unusable += [
            path for path in self._directory.iterdir() if path.is_dir() and _TEMPORARY in path.name
        ]
        for path in unusable:
            shutil.rmtree(path)
        self._damaged.clear()
        self._manager.reload()
        self._cleaned = True

    def _check_is_there(self, round: int) -> None:
        if round not in self.rounds():
            raise FileNotFoundError(
                f"{self._directory} holds no checkpoint of round {round}; it has {self.rounds()}"
            )

    def _description(self, round: int) -> dict[str, Any]:
        """Reads what a checkpoint says of itself.

        Raises:
          _DamagedError: It is damaged.
        """
        if not _is_whole(self._directory / str(round)):
            raise _DamagedError("is incomplete: some of its files are missing")
        args = self._orbax.args
        with _reading():
            description = self._manager.restore(
                round, args=args.Composite(description=args.JsonRestore())
            ).description
        if not isinstance(description, dict):
            raise _DamagedError("is damaged: its description is not what was saved")
        if description.keys() == {"leaves", "metadata"}:
            warnings.warn(
                f"The checkpoint of round {round} in {self._directory} has no checksums, since an "
                "older fljax wrote it; whether it is as it was saved is not known.",
                stacklevel=2,
            )
            return description
        rest = {name: value for name, value in description.items() if name != "checksum"}
        if description.get("checksum") != text_checksum(rest):
            raise _DamagedError("is damaged: its description is not what was saved")
        if description["round"] != round:
            raise _DamagedError(f"is that of round {description['round']} under another name")
        return description

    def _read(
        self, round: int, check: Callable[[list[dict[str, Any]]], None] = lambda saved: None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Reads a checkpoint, after a look at its leaves; returns them and its description.

        Raises:
          _DamagedError: It is damaged.
        """
        description = self._description(round)
        saved = description["leaves"]
        check(saved)
        args = self._orbax.args
        with _reading():
            places = [empty(leaf) for leaf in saved]
            arrays = self._manager.restore(
                round, args=args.Composite(arrays=args.StandardRestore(stored_arrays(places)))
            ).arrays
        leaves = from_stored(arrays, places)
        for leaf, known in zip(leaves, saved, strict=True):
            if "crc32" in known and checksum(leaf) != {"crc32": known["crc32"]}:
                raise _DamagedError(
                    f"is damaged: {known['path'] or 'its state'} is not what was saved"
                )
        return leaves, description

    def _check(self, round: int, saved: list[dict[str, Any]], template: list) -> None:
        differences = differences_between(saved, template)
        if not differences:
            return
        raise ValueError(
            f"the checkpoint of round {round} in {self._directory} was written under another "
            "configuration (model, algorithm, optimizer or number of clients):\n"
            + "\n".join(differences)
            + "\nResume with the values in the run's config.json, or use another --workdir."
        )


class _DamagedError(Exception):
    """The fault of a checkpoint: the end of a sentence that begins with its name."""


@contextlib.contextmanager
def _reading():
    """Turns whatever Orbax says of files that it cannot read into one line."""
    try:
        yield
    except Exception as error:
        raise _DamagedError(f"is damaged: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:_SHOWN_CHARACTERS]


def _is_whole(path: Path) -> bool:
    """A rename publishes a checkpoint whole, but a kill may stop the removal of an old one."""
    return all((path / item).is_dir() and any((path / item).iterdir()) for item in _ITEMS)

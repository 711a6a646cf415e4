"""The recorder: one record a round, in memory, on disk and in any number of sinks."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.core.files import check_kind, make_folder
from fljax.recording import jsonio, runs, timeline
from fljax.recording.checksums import CHECKSUMS, Extent
from fljax.recording.client_results import forget_after
from fljax.recording.line_file import LineFile
from fljax.recording.lock import LOCK
from fljax.recording.models import BEST, FINAL, MODELS, model_path
from fljax.recording.npz import write_arrays

CHECKPOINTS = "checkpoints"


class Sink(NamedTuple):
    """Another place that records go to, such as Weights & Biases.

    Attributes:
      write: (record), called once a round.
      summary: (summary), called once, when the run is done.
      close: (succeeded), called last, whether or not the run came to its end.

    Example:
      >>> losses = []
      >>> sink = recording.Sink(
      ...     write=lambda record: losses.append(record["train/loss"]),
      ...     summary=lambda summary: None,
      ...     close=lambda succeeded: None,
      ... )
      >>> with recording.Recorder(None, sinks=[sink]) as recorder:
      ...     recorder.write({"round": 1, "train/loss": 0.5})
      >>> losses
      [0.5]
    """

    write: Callable[[Mapping[str, Any]], None]
    summary: Callable[[Mapping[str, Any]], None]
    close: Callable[[bool], None]


class Recorder:
    """Keeps what a run leaves behind; a context manager.

    Every record is appended to `metrics.jsonl` as one line and handed to the operating system at
    once, so a killed process loses no finished round; it is forced to disk every `flush_seconds`
    and by `flush()`, so a machine that goes down loses at most the rounds since. JSON has no NaN
    or infinity: such a value is NaN in memory and `null` in the file, and reads back as NaN. What
    is on disk is known by its checksum, see `fljax.recording.checksums`.

    A record's `round` counts completed rounds: 1 for the first round that trains, 0 for an
    evaluation before it. With `workdir=None` nothing is written.

    Attributes:
      workdir: The run's directory or None.
      records: The records so far, oldest first, those of a resumed run included.

    Example:
      >>> with recording.Recorder("runs/first") as recorder:
      ...     recorder.write({"round": 1, "train/loss": 0.75})
      ...     recorder.write({"round": 2, "train/loss": 0.5})
      >>> recorder.curves()["train/loss"]
      array([0.75, 0.5 ])
    """

    def __init__(
        self,
        workdir: str | Path | None,
        *,
        resume_round: int | None = None,
        extent: Extent | None = None,
        flush_seconds: float = 30.0,
        sinks: Iterable[Sink] = (),
    ):
        """Opens a run's files.

        Args:
          workdir: Directory, created if absent; None keeps everything in memory.
          resume_round: None starts afresh. Otherwise the checkpoint's round: later records are
            removed from `metrics.jsonl`, earlier ones are loaded, and the outputs of a finished
            run are removed. -1 keeps nothing (a run killed before its first checkpoint).
          extent: How far `metrics.jsonl` went at that checkpoint; what follows is not read. None
            where the checkpoint does not know.
          flush_seconds: Seconds between forced writes to disk.
          sinks: Further places for the records.

        Raises:
          FileExistsError: a fresh start in a directory that holds a run.
          IsADirectoryError, NotADirectoryError: something else lies in the place of one of them.
          ValueError: `metrics.jsonl` of the resumed run is damaged.
        """
        self.workdir = None if workdir is None else Path(workdir)
        self.records: list[dict[str, Any]] = []
        self._sinks = tuple(sinks)
        self._flush_seconds = flush_seconds
        self._flushed = time.monotonic()
        self._file = None
        if self.workdir is None:
            return
        make_folder(self.workdir)
        _check_places(self.workdir)
        kept: list[bytes] = []
        if resume_round is None:
            refuse_existing_run(self.workdir)
        else:
            forget_after(self.workdir / runs.CLIENTS, resume_round)
            timeline.forget_after(self.workdir / runs.TIMELINE, resume_round)
            kept, self.records = _kept(self.workdir / runs.METRICS, resume_round, extent)
            models = [model_path(self.workdir, which) for which in (FINAL, BEST)]
            for path in (self.workdir / runs.SUMMARY, *models):
                path.unlink(missing_ok=True)
        self._file = LineFile(self.workdir / runs.METRICS, kept)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self.close(succeeded=error_type is None)

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds the record of one round.

        Args:
          record: Flat {key: number}, keys as in `train/loss`, with an integer `round` above that
            of the record before. NumPy and JAX scalars are converted.

        Raises:
          ValueError: the round is missing or does not follow.
        """
        record = _clean(record)
        if self.records and record["round"] <= self.records[-1]["round"]:
            raise ValueError(
                f"the record of round {record['round']} comes after that of round "
                f"{self.records[-1]['round']}: rounds are recorded once, in order"
            )
        self.records.append(record)
        if self._file is not None:
            line = json.dumps(jsonio.plain(record), separators=(", ", ": "), allow_nan=False)
            self._file.append([line.encode()])
            if time.monotonic() - self._flushed >= self._flush_seconds:
                self.flush()
        for sink in self._sinks:
            sink.write(record)

    def add_sink(self, sink: Sink) -> None:
        """Adds a sink, so that it need not be opened before the directory was found usable."""
        self._sinks += (sink,)

    def flush(self) -> Extent | None:
        """Forces the records to disk; returns how far `metrics.jsonl` goes. For each checkpoint.

        Raises:
          FileNotFoundError: `metrics.jsonl` was removed while the run was writing it.
        """
        self._flushed = time.monotonic()
        return None if self._file is None else self._file.sync()

    def curves(self) -> dict[str, np.ndarray]:
        """Returns the records as {key: float64 array}, as `load_run(...).curves` does."""
        return runs.to_curves(self.records)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes `config.json` atomically."""
        if self.workdir is not None:
            jsonio.write_json(self.workdir / runs.CONFIG, config)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes `summary.json` atomically, after the records, and tells the sinks."""
        self.flush()
        if self.workdir is not None:
            jsonio.write_json(self.workdir / runs.SUMMARY, summary)
        for sink in self._sinks:
            sink.summary(summary)

    def write_clients(self, arrays: Mapping[str, Any]) -> None:
        """Writes {name: array} of per-client evaluation to `client_metrics.npz` atomically.

        Raises:
          ValueError: an array of Python objects, which could not be read back safely.
        """
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        for name, array in arrays.items():
            if array.dtype == object:
                raise ValueError(
                    f"client metric {name!r} is an array of Python objects; give numbers or strings"
                )
        if self.workdir is not None:
            write_arrays(self.workdir / runs.CLIENTS, arrays)

    def write_timeline(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes {name: array} of who worked when to `timeline.npz` atomically."""
        if self.workdir is not None:
            write_arrays(self.workdir / runs.TIMELINE, arrays)

    def close(self, succeeded: bool = True) -> None:
        """Flushes and closes the files, then the sinks; a second call does nothing."""
        if self._file is not None:
            # what ended a run that failed is said, not that its file is gone too
            with contextlib.nullcontext() if succeeded else contextlib.suppress(OSError):
                self.flush()
            self._file.close()
            self._file = None
        for sink in self._sinks:
            sink.close(succeeded)
        self._sinks = ()


def _clean(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record with Python numbers, the round first, then keys in order."""
    if "round" not in record:
        raise ValueError(f"a record needs a 'round'; this one has {sorted(record)}")
    cleaned: dict[str, Any] = {"round": int(record["round"])}
    for key in sorted(record.keys() - {"round"}):
        value = record[key]
        if not isinstance(value, bool | int | float | str):
            value = np.asarray(value).item()
        if isinstance(value, float):
            value = float(value) if math.isfinite(value) else math.nan
        # Keys repeat in every record: one string each keeps a long run's memory flat.
        cleaned[sys.intern(key)] = value
    return cleaned


def _check_places(workdir: Path) -> None:
    """Raises an OSError where the run could not write at its end, before it begins."""
    files = (runs.CONFIG, runs.METRICS, runs.SUMMARY, runs.CLIENTS, runs.TIMELINE, CHECKSUMS)
    for name in files:
        check_kind(workdir / name)
    for name in (MODELS, CHECKPOINTS, runs.BASELINES):
        check_kind(workdir / name, directory=True)


def holds_run(workdir: Path) -> bool:
    """Returns whether a run was begun in a directory, however far it came."""
    names = (runs.METRICS, runs.SUMMARY, runs.CONFIG, LOCK)
    return any((workdir / name).exists() for name in names) or _has_checkpoints(workdir)


def refuse_existing_run(workdir: Path) -> None:
    """Raises FileExistsError where a run has come so far that it is worth keeping."""
    refuse_study(workdir)
    metrics = workdir / runs.METRICS
    if (
        (metrics.exists() and metrics.stat().st_size > 0)
        or (workdir / runs.SUMMARY).exists()
        or _has_checkpoints(workdir)
    ):
        raise FileExistsError(
            f"{workdir} already holds a run: use --resume to go on with it, or another --workdir"
        )


def refuse_study(workdir: Path) -> None:
    """Raises FileExistsError where a directory holds a study, in which no run has a place."""
    if runs.holds_study(workdir):
        raise FileExistsError(
            f"{workdir} holds a study, and no run. Go on with it by `fljax study`, or by `fljax "
            "sweep --resume`; or give another --workdir."
        )


def _has_checkpoints(workdir: Path) -> bool:
    directory = workdir / CHECKPOINTS
    return directory.is_dir() and any(directory.iterdir())


def read_only(
    workdir: str | Path | None, *, resume_round: int | None = None, extent: Extent | None = None
) -> Recorder:
    """Returns a recorder that holds the records of a resumed run in memory and writes nothing.

    For all processes of a run but the one that writes; arguments as for `Recorder`.
    """
    recorder = Recorder(None)
    if workdir is not None and resume_round is not None:
        kept = runs.read_records(Path(workdir) / runs.METRICS, resume_round, extent)
        recorder.records = [_with_nan(record) for _, record in kept]
    return recorder


def _kept(
    path: Path, last_round: int, extent: Extent | None
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Returns the lines of a JSONL file up to a round, and their records."""
    extent = Extent() if last_round < 0 else extent
    kept = list(runs.read_records(path, last_round, extent))
    newest = kept[-1][1]["round"] if kept else 0
    if newest < last_round:
        warnings.warn(
            f"{path} ends at round {newest}, before the checkpoint of round {last_round}: "
            "the rounds between are missing from this run's curves",
            stacklevel=3,
        )
    return [line for line, _ in kept], [_with_nan(record) for _, record in kept]


def _with_nan(record: Mapping[str, Any]) -> dict[str, Any]:
    return _clean({key: math.nan if value is None else value for key, value in record.items()})

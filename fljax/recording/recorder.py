"""The recorder: one record a round, in memory, on disk and in any number of sinks."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.recording import jsonio, runs
from fljax.recording.models import BEST, FINAL, model_path

CHECKPOINTS = "checkpoints"


class Sink(NamedTuple):
    """Another place that records go to, such as Weights & Biases.

    Attributes:
      write: (record), called once a round.
      summary: (summary), called once, when the run is done.
      close: (succeeded), called last, whether or not the run came to its end.
    """

    write: Callable[[Mapping[str, Any]], None]
    summary: Callable[[Mapping[str, Any]], None]
    close: Callable[[bool], None]


class Recorder:
    """Keeps what a run leaves behind; a context manager.

    Every record is appended to `metrics.jsonl` as one line and handed to the operating system at
    once, so a killed process loses no finished round; it is forced to disk every `flush_seconds`
    and by `flush()`, so a machine that goes down loses at most the rounds since. JSON has no NaN
    or infinity: such a value is NaN in memory and `null` in the file, and reads back as NaN.

    A record's `round` counts completed rounds: 1 for the first round that trains, 0 for an
    evaluation before it. With `workdir=None` nothing is written.

    Attributes:
      workdir: The run's directory or None.
      records: The records so far, oldest first, those of a resumed run included.
    """

    def __init__(
        self,
        workdir: str | Path | None,
        *,
        resume_round: int | None = None,
        flush_seconds: float = 30.0,
        sinks: Iterable[Sink] = (),
    ):
        """Opens a run's files.

        Args:
          workdir: Directory, created if absent; None keeps everything in memory.
          resume_round: None starts afresh. Otherwise the checkpoint's round: later records are
            removed from `metrics.jsonl`, earlier ones are loaded, and the outputs of a finished
            run are removed. -1 keeps nothing (a run killed before its first checkpoint).
          flush_seconds: Seconds between forced writes to disk.
          sinks: Further places for the records.

        Raises:
          FileExistsError: a fresh start in a directory that holds a run.
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
        self.workdir.mkdir(parents=True, exist_ok=True)
        if resume_round is None:
            _refuse_existing_run(self.workdir)
        else:
            self.records = _truncate(self.workdir / runs.METRICS, resume_round)
            models = [model_path(self.workdir, which) for which in (FINAL, BEST)]
            for path in (self.workdir / runs.SUMMARY, self.workdir / runs.CLIENTS, *models):
                path.unlink(missing_ok=True)
        self._file = open(self.workdir / runs.METRICS, "ab")  # noqa: SIM115, lives as long as self

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
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            if time.monotonic() - self._flushed >= self._flush_seconds:
                self.flush()
        for sink in self._sinks:
            sink.write(record)

    def add_sink(self, sink: Sink) -> None:
        """Adds a sink, so that it need not be opened before the directory was found usable."""
        self._sinks += (sink,)

    def flush(self) -> None:
        """Forces the records to disk. Call it before each checkpoint."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._flushed = time.monotonic()

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
            with jsonio.atomic_file(self.workdir / runs.CLIENTS) as file:
                np.savez(file, **arrays)

    def close(self, succeeded: bool = True) -> None:
        """Flushes and closes the files, then the sinks; a second call does nothing."""
        if self._file is not None:
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


def _refuse_existing_run(workdir: Path) -> None:
    """A crash before the first round leaves nothing worth keeping, and does not count as a run."""
    metrics, checkpoints = workdir / runs.METRICS, workdir / CHECKPOINTS
    if (
        (metrics.exists() and metrics.stat().st_size > 0)
        or (workdir / runs.SUMMARY).exists()
        or (checkpoints.is_dir() and any(checkpoints.iterdir()))
    ):
        raise FileExistsError(
            f"{workdir} already holds a run: use --resume to go on with it, or another --workdir"
        )


def follow(workdir: str | Path | None, *, resume_round: int | None = None) -> Recorder:
    """Returns a recorder that holds the records of a resumed run in memory and writes nothing.

    For all processes of a run but the one that writes; arguments as for `Recorder`.
    """
    recorder = Recorder(None)
    if workdir is not None and resume_round is not None:
        kept = _up_to(Path(workdir) / runs.METRICS, resume_round)
        recorder.records = [record for _, record in kept]
    return recorder


def _truncate(path: Path, last_round: int) -> list[dict[str, Any]]:
    """Rewrites a JSONL file without the records after `last_round`; returns those that stay."""
    kept = _up_to(path, last_round)
    newest = kept[-1][1]["round"] if kept else 0
    if newest < last_round:
        warnings.warn(
            f"{path} ends at round {newest}, before the checkpoint of round {last_round}: "
            "the rounds between are missing from this run's curves",
            stacklevel=3,
        )
    with jsonio.atomic_file(path) as file:
        file.writelines(line + b"\n" for line, _ in kept)
    return [record for _, record in kept]


def _up_to(path: Path, last_round: int) -> list[tuple[bytes, dict[str, Any]]]:
    """Returns the lines of a JSONL file up to a round, and their records."""
    lines = jsonio.read_lines(path) if path.exists() else ()
    return [
        (line, _clean({key: math.nan if value is None else value for key, value in record.items()}))
        for line, record in lines
        if record["round"] <= last_round
    ]

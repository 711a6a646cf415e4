"""Writes records for TensorBoard, as a sink of the recorder."""

from __future__ import annotations

import json
import numbers
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fljax.core import optional
from fljax.core.values import checked_path
from fljax.recording import jsonio
from fljax.recording.recorder import Sink
from fljax.recording.runs import METRICS, read_records

TENSORBOARD = "tensorboard"
_EVENTS = "events.out.tfevents.*"
# Seconds after which what was written can be looked at.
_FLUSH_SECONDS = 5
# Where values of the summary stand among the scalars.
_SUMMARY = "summary"


def tensorboard_sink(workdir: str | Path, *, config: Mapping[str, Any] | None = None) -> Sink:
    """Opens an event file below the workdir and returns the sink that feeds it.

    Every number of a record is a scalar at its round; numbers and texts of the configuration are
    hyperparameters, and numbers of the summary scalars below `summary/`. A resumed run writes what
    came before it again, from `metrics.jsonl`, into a file that takes the place of the older ones:
    no round is there twice, whatever reads them. `tensorboard --logdir=runs` shows it.

    Args:
      workdir: The run's directory; events go to `tensorboard/` in it.
      config: The run's configuration.

    Raises:
      ImportError: tensorboardX is not installed.

    Example:
      >>> sink = recording.tensorboard_sink("runs/first")  # doctest: +SKIP
      >>> sink.write({"round": 1, "train/loss": 0.5})  # doctest: +SKIP
      >>> sink.close(True)  # doctest: +SKIP
    """
    workdir = checked_path("workdir", workdir)
    with optional.needed("tensorboardX"):
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

    directory = workdir / TENSORBOARD
    opened: list[Any] = []

    def writer(first_round: int) -> Any:
        """Returns the writer, opened with the rounds before the first one that is written."""
        if opened:
            return opened[0]
        earlier = read_records(workdir / METRICS, first_round - 1)
        older = list(directory.glob(_EVENTS))
        # its own names tell seconds apart, which two parts of a run may share
        suffix = f".{time.time_ns()}"
        options = {"flush_secs": _FLUSH_SECONDS, "filename_suffix": suffix}
        opened.append(SummaryWriter(str(directory), **options))
        described = dict(_settings(jsonio.plain(config or {})))
        # which metrics go with them is what the scalars are called
        for event in hparams(described, {}) if described else ():
            opened[0].file_writer.add_summary(event)
        for _, record in earlier:
            _add(opened[0], record)
        for path in older:
            path.unlink(missing_ok=True)
        return opened[0]

    def write(record: Mapping[str, Any]) -> None:
        _add(writer(record["round"]), record)

    def summary(found: Mapping[str, Any]) -> None:
        rounds = found.get("rounds") or 0
        events = writer(rounds + 1)
        for name, value in numbers_of(found):
            events.add_scalar(f"{_SUMMARY}/{name}", value, rounds)
        text = json.dumps(jsonio.plain(found), indent=2, sort_keys=True)
        events.add_text(_SUMMARY, f"```\n{text}\n```", rounds)

    def close(succeeded: bool) -> None:
        for events in opened:
            events.close()

    return Sink(write, summary, close)


def numbers_of(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields (path, number) of all numbers in nested mappings; truth values are none.

    Example:
      >>> from fljax.recording.tensorboard_sink import numbers_of
      >>> list(numbers_of({"best": {"round": 3}, "stopped": None, "interrupted": False}))
      [('best/round', 3.0)]
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from numbers_of(value, f"{prefix}{name}/")
        elif isinstance(value, numbers.Real) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def _add(events: Any, record: Mapping[str, Any]) -> None:
    for name, value in numbers_of(record):
        if name != "round":
            events.add_scalar(name, value, record["round"])


def _settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (key, value) of what is set, nested keys with dots; lists as texts."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{name}.")
        elif value is not None:
            is_plain = isinstance(value, bool | int | float | str)
            yield f"{prefix}{name}", value if is_plain else json.dumps(value)

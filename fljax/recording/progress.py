"""Shows progress on the terminal: a bar where one can be drawn, plain lines where it cannot."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TextIO

from fljax.core.digits import figures
from fljax.core.durations import duration
from fljax.core.metrics import ACCURACY, Metric
from fljax.recording.summary import SIMULATED

_LINE_SECONDS = 10.0


# record -> what a line says of it
Describe = Callable[[Mapping[str, Any]], str]


class _Forgiving:
    """A stream that may be closed, full or not there: nothing that is shown ends a run."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except (AttributeError, OSError, ValueError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def say(line: str) -> None:
    """Shows people a line on standard error, where there is one.

    Example:
      >>> recording.say("Going on from round 20.")
    """
    print(line, file=_Forgiving(sys.stderr), flush=True)


class Progress(NamedTuple):
    """A progress display.

    Attributes:
      update: (round, record), called after each round.
      close: (), called once at the end.

    Example:
      >>> display = recording.Progress(
      ...     update=lambda round, record: print(round, record["train/loss"]),
      ...     close=lambda: print("done"),
      ... )
      >>> display.update(1, {"round": 1, "train/loss": 0.5})
      1 0.5
    """

    update: Callable[[int, Mapping[str, Any]], None]
    close: Callable[[], None]


def progress(
    num_rounds: int,
    start: int = 0,
    enabled: bool = True,
    *,
    label: str = "",
    stream: TextIO | None = None,
    line_seconds: float = _LINE_SECONDS,
    metric: Metric = ACCURACY,
) -> Progress:
    """Shows rounds, loss, last known metric, clients per second and time left.

    A tqdm bar in a terminal or notebook. Elsewhere (a log file, a CI job), or without tqdm, a line
    every `line_seconds` and one at the end.

    Args:
      num_rounds: Rounds of the whole run.
      start: Rounds completed before, in a resumed run.
      enabled: False shows nothing.
      label: Stands before everything else, to tell several runs apart.
      stream: Where to, standard error if None.
      line_seconds: Seconds between lines.
      metric: The first metric of the task.

    Example:
      >>> import sys
      >>> display = recording.progress(20, stream=sys.stdout, line_seconds=0.0)
      >>> display.update(1, {"train/loss": 0.5, "eval/test/accuracy": 0.9})
      round 1/20, loss 0.5000, test accuracy 0.9000
      >>> display.close()
    """
    if not enabled:
        return Progress(lambda round, record: None, lambda: None)
    stream = _Forgiving(sys.stderr if stream is None else stream)
    tqdm = _tqdm() if stream.isatty() or "ipykernel" in sys.modules else None
    describe = _describer(metric)
    if tqdm is None:
        return _lines(num_rounds, start, stream, line_seconds, label, describe)
    return _bar(tqdm, num_rounds, start, stream, label, describe)


def _tqdm():
    """Returns tqdm's class for this terminal or notebook, None where it is not installed."""
    try:
        with warnings.catch_warnings():
            # A notebook without ipywidgets gets the text bar: no reason for a warning.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm


def _bar(
    tqdm, num_rounds: int, start: int, stream: TextIO, label: str, describe: Describe
) -> Progress:
    bar = tqdm(
        desc=label or None,
        total=num_rounds,
        initial=start,
        file=stream,
        unit="round",
        dynamic_ncols=True,
        leave=True,
    )

    def update(round: int, record: Mapping[str, Any]) -> None:
        bar.set_postfix_str(describe(record), refresh=False)
        bar.update(round - bar.n)

    return Progress(update, bar.close)


def _lines(
    num_rounds: int,
    start: int,
    stream: TextIO,
    line_seconds: float,
    label: str,
    describe: Describe,
) -> Progress:
    # The clock of the estimate starts at the first round's end, and is the run's own where records
    # tell it: compilation is not repeated.
    seen: dict[str, Any] = {"shown": time.monotonic(), "first": None, "line": ""}

    def update(round: int, record: Mapping[str, Any]) -> None:
        now = time.monotonic()
        elapsed = record.get("time/elapsed_seconds", now)
        seen["first"] = seen["first"] or (elapsed, round)
        since, first_round = seen["first"]
        place = f"round {round}/{num_rounds}"
        parts = [f"{label}: {place}" if label else place, describe(record)]
        if round > first_round and round < num_rounds:
            left = (elapsed - since) / (round - first_round) * (num_rounds - round)
            parts.append(f"{_clock(left)} left")
        seen["line"] = ", ".join(part for part in parts if part)
        if now - seen["shown"] >= line_seconds:
            show(now)

    def show(now: float) -> None:
        print(seen["line"], file=stream, flush=True)
        seen.update(shown=now, line="")

    def close() -> None:
        if seen["line"]:
            show(time.monotonic())

    return Progress(update, close)


def _describer(metric: Metric) -> Describe:
    """Returns record -> text; it remembers the last metric over rounds without evaluation."""
    known: dict[str, float] = {}
    keys = (f"eval/test/{metric.name}", f"eval/val/{metric.name}", "eval/clients/mean")

    def describe(record: Mapping[str, Any]) -> str:
        known.update({key: record[key] for key in keys if key in record})
        parts = []
        if "train/loss" in record:
            parts.append(f"loss {figures(record['train/loss'])}")
        for key in keys:
            if key in known:
                parts.append(f"{key.split('/')[1]} {metric.name} {figures(known[key])}")
                break
        if SIMULATED in record:
            parts.append(f"{duration(record[SIMULATED])} simulated")
        if "throughput/clients_per_second" in record:
            parts.append(f"{record['throughput/clients_per_second']:,.4g} clients/s")
        return ", ".join(parts)

    return describe


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

"""Keeps who worked when, and how often each client: `timeline.npz`.

One entry a job says whose it was (`client`), in which round the server heard of it or gave it up
(`round`), when it began and ended in simulated seconds (`begin`, `end`), and what became of it
(`fate`, a place in `fates`). Long runs keep the jobs of some rounds, whole, and `kept` lists them:
the first ones, until there are 100,000 jobs, and from then on those behind each power of two, until
there are 5,000 between it and the next. So what is kept of a round never depends on later ones, and
is some 200,000 jobs in a million rounds.

One entry a client that was ever asked, `clients/client` (and `clients/id` as given with the data),
says how many jobs it was asked for in all rounds (`clients/asked`), and of how many an update
arrived (`clients/arrived`).

The file is written before each checkpoint. The counts are in checkpoints as well, since no file
tells what they were some rounds ago. A run without a clock has no such file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fljax.core.schedule import FATES, Spans
from fljax.recording.npz import load_arrays, write_arrays

# Jobs of the first rounds, and of those behind a power of two.
_FIRST, _LATER = 100_000, 5_000
_COLUMNS = ("client", "round", "begin", "end", "fate")
_FATES, _KEPT, _CLIENTS = "fates", "kept", "clients/"
_ARRIVED = [FATES.index(name) for name in ("arrived", "partial")]

Arrays = dict[str, np.ndarray]


class Timeline:
    """Collects the jobs of a run.

    Attributes:
      asked: int64[N] jobs that each client was asked for; None as long as no round had a clock.
      arrived: int64[N] of those, the ones of which an update arrived; likewise.

    Args:
      num_clients: N.
      ids: [N] of the clients as given with the data, or None.
      path: File of the part of the run that was resumed; None starts with nothing.
      last_round: Rounds after this one are forgotten.
      turns: What `turns` returned at that round.

    Raises:
      ValueError: If the file is damaged.

    Example:
      >>> from fljax.core.schedule import Spans
      >>> from fljax.recording.timeline import Timeline
      >>> timeline = Timeline(num_clients=4)
      >>> begin, end = np.zeros(2), np.array([3.0, 5.0])
      >>> timeline.add(1, Spans(np.array([2, 0]), begin, end, fate=np.array([0, 2])))
      >>> timeline.asked.tolist(), timeline.arrived.tolist(), timeline.arrays()["end"].tolist()
      ([1, 0, 1, 0], [0, 0, 1, 0], [3.0, 5.0])
    """

    def __init__(
        self,
        num_clients: int,
        ids: np.ndarray | None = None,
        path: Path | None = None,
        last_round: int = -1,
        turns: Mapping[str, np.ndarray] | None = None,
    ):
        self.asked: np.ndarray | None = None
        self.arrived: np.ndarray | None = None
        self._num_clients, self._ids = num_clients, ids
        self._rounds: list[int] = []
        self._jobs: list[Spans] = []
        self._count = self._count_behind = 0
        try:
            arrays = None if path is None else load_arrays(path)
        except ValueError as error:
            raise ValueError(f"{error}; or delete it to go on without what it holds.") from None
        if turns:
            self.asked, self.arrived = self._counts(turns, "asked"), self._counts(turns, "arrived")
        if arrays is not None:
            for round, spans in _rounds_of(arrays, last_round):
                self._keep(round, spans)
        self._written = self.asked is None

    def add(self, round: int, spans: Spans | None) -> None:
        """Takes in who worked when, as the server knew after a round; None is passed by."""
        if spans is None:
            return
        if self.asked is None or self.arrived is None:
            self.asked, self.arrived = self._counts(), self._counts()
        arrived = np.isin(spans.fate, _ARRIVED)
        np.add.at(self.asked, spans.client, 1)
        np.add.at(self.arrived, spans.client[arrived], 1)
        self._written = False
        if self._count < _FIRST or self._behind(round) < _LATER:
            self._keep(round, spans)

    def turns(self) -> Arrays:
        """Returns the counts of the clients that were ever asked; nothing without a clock."""
        if self.asked is None or self.arrived is None:
            return {}
        clients = np.flatnonzero(self.asked)
        counts = {"asked": self.asked[clients], "arrived": self.arrived[clients]}
        return {"client": clients.astype(np.int32)} | counts

    def arrays(self) -> Arrays:
        """Returns what `timeline.npz` holds; nothing without a clock."""
        if self.asked is None:
            return {}
        counts = {f"{_CLIENTS}{name}": column for name, column in self.turns().items()}
        if self._ids is not None:
            counts[f"{_CLIENTS}id"] = np.asarray(self._ids)[counts[f"{_CLIENTS}client"]]
        return _arrays_of(self._rounds, self._jobs) | counts

    def write(self, write: Callable[[Arrays], Any]) -> None:
        """Calls a function with the arrays, unless that was done since the last round."""
        if not self._written:
            write(self.arrays())
            self._written = True

    def _counts(self, turns: Mapping[str, np.ndarray] | None = None, name: str = "") -> np.ndarray:
        """Returns counts of all clients: those of a name in turns, or zeros."""
        counts = np.zeros(self._num_clients, np.int64)
        if turns:
            counts[turns["client"]] = turns[name]
        return counts

    def _behind(self, round: int) -> int:
        """Returns the jobs that are kept behind the power of two that a round comes after."""
        same = bool(self._rounds) and self._rounds[-1].bit_length() == round.bit_length()
        return self._count_behind if same else 0

    def _keep(self, round: int, spans: Spans) -> None:
        self._count_behind = self._behind(round) + len(spans.client)
        self._count += len(spans.client)
        self._rounds.append(round)
        self._jobs.append(spans)


def forget_after(path: Path, last_round: int) -> None:
    """Removes the rounds after one from a file of jobs, and the file with the last of them."""
    arrays = load_arrays(path)
    if arrays is None or not (arrays[_KEPT] > last_round).any():
        return
    if kept := list(_rounds_of(arrays, last_round)):
        # what the counts were is in the checkpoint
        write_arrays(path, _arrays_of(*map(list, zip(*kept, strict=True))))
    else:
        path.unlink()


def _arrays_of(rounds: list[int], jobs: list[Spans]) -> Arrays:
    """Returns the columns of the jobs of rounds."""
    counts = [len(spans.client) for spans in jobs]
    columns = {
        "client": _joined([spans.client for spans in jobs], np.int32),
        "round": np.repeat(np.array(rounds, np.int64), counts),
        "begin": _joined([spans.begin for spans in jobs], np.float64),
        "end": _joined([spans.end for spans in jobs], np.float64),
        "fate": _joined([spans.fate for spans in jobs], np.int8),
    }
    return columns | {_FATES: np.array(FATES), _KEPT: np.array(rounds, np.int64)}


def _joined(columns: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *columns]).astype(dtype)


def _rounds_of(arrays: Arrays, last_round: int):
    """Yields (round, its jobs) of a file's rounds up to one."""
    rounds = arrays[_KEPT]
    starts = np.searchsorted(arrays["round"], rounds)
    ends = np.searchsorted(arrays["round"], rounds, side="right")
    for round, start, end in zip(rounds.tolist(), starts, ends, strict=True):
        if round <= last_round:
            yield round, Spans(*(arrays[name][start:end] for name in ("client", *_COLUMNS[2:])))

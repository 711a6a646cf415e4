"""Writes results of single clients, evaluation after evaluation: `client_metrics.npz`.

One entry a client says who it is (`client`, `id`, `split`, `groups/NAME`) and how it fared at the
last evaluation (`examples`, `weight`, and the metrics: `loss`, `accuracy`, ...). `rounds` and
`history/loss`, `history/accuracy`, ... [evaluations, clients] hold all evaluations. The same
columns of clients' own models stand under `personal/`, for the clients that have one, and beside
them `personal/cluster` where an algorithm has clusters, -1 before a client is in one. The file is
written before each checkpoint, so that a resumed run finds what was found before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fljax.recording.npz import load_arrays, write_arrays

_ROUNDS, _HISTORY, _PERSONAL = "rounds", "history/", "personal/"
# what tells clients apart, and does not change from evaluation to evaluation
_IDENTITY = ("client", "split")
_CONSTANT = (*_IDENTITY, "id", "examples", "weight")

Arrays = dict[str, np.ndarray]


class ClientResults:
    """Collects the results of clients.

    Args:
      path: File of the part of the run that was resumed; None starts with nothing.
      last_round: Evaluations after this round are forgotten.

    Raises:
      ValueError: If the file is damaged.
    """

    def __init__(self, path: Path | None = None, last_round: int = -1):
        self._last: Arrays = {}
        self._rounds: list[int] = []
        self._history: dict[str, list[np.ndarray]] = {}
        self._written = True
        try:
            arrays = None if path is None else load_arrays(path)
        except ValueError as error:
            raise ValueError(f"{error}; or delete it to go on without what it holds.") from None
        if arrays is not None:
            self._restore(arrays, last_round)

    def add(self, round: int, clients: Mapping[str, np.ndarray]) -> None:
        """Takes in an evaluation, as `Evaluations.finish` returns it; empty ones are passed by."""
        if not clients:
            return
        told = [name for name in self._last | dict(clients) if _column(name) in _IDENTITY]
        if self._last and not all(
            np.array_equal(self._last.get(name), clients.get(name)) for name in told
        ):
            warnings.warn(
                f"The evaluation of round {round} is of other clients than those before it, as "
                "after a change of eval_clients: client_metrics.npz begins anew with it.",
                stacklevel=3,
            )
            self._rounds, self._history = [], {}
        if self._rounds and self._rounds[-1] == round:
            self._rounds.pop()
            for rows in self._history.values():
                rows.pop()
        self._last = dict(clients)
        self._rounds.append(round)
        for name in clients:
            if is_metric(name):
                self._history.setdefault(name, []).append(clients[name])
        self._written = False

    def arrays(self) -> Arrays:
        """Returns what `client_metrics.npz` holds; nothing where no client was evaluated."""
        if not self._last:
            return {}
        history = {f"{_HISTORY}{name}": np.stack(rows) for name, rows in self._history.items()}
        return self._last | {_ROUNDS: np.array(self._rounds, np.int64)} | history

    def write(self, write: Callable[[Arrays], Any]) -> None:
        """Calls a function with the arrays, unless that was done since the last evaluation."""
        if not self._written:
            write(self.arrays())
            self._written = True

    def _restore(self, arrays: Arrays, last_round: int) -> None:
        kept = arrays.get(_ROUNDS, np.zeros(0)) <= last_round
        if not kept.any():
            return
        self._rounds = arrays[_ROUNDS][kept].tolist()
        for name, values in arrays.items():
            if name.startswith(_HISTORY):
                self._history[name.removeprefix(_HISTORY)] = list(values[kept])
            elif name != _ROUNDS:
                self._last[name] = values
        self._last |= {name: rows[-1] for name, rows in self._history.items()}
        self._written = bool(kept.all())


def forget_after(path: Path, last_round: int) -> None:
    """Removes the evaluations after a round from a file of results, and the file with the last."""
    if not path.exists():
        return
    kept = ClientResults(path, last_round).arrays() if last_round >= 0 else {}
    if kept:
        write_arrays(path, kept)
    else:
        path.unlink()


def is_metric(name: str) -> bool:
    """Returns whether a column of the results changes from evaluation to evaluation."""
    return _column(name) not in _CONSTANT and not _column(name).startswith("groups/")


def _column(name: str) -> str:
    """Returns the name of a column, whether of the global model or of clients' own ones."""
    return name.removeprefix(_PERSONAL)

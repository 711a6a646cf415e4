"""The journal of a sweep: what lies in its directory, and how a killed sweep goes on from it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.recording import Checkpoints
from fljax.recording.jsonio import plain
from fljax.records import RoundTotals
from fljax.resume import check_identity
from fljax.sweeps import results
from fljax.sweeps.results import Status
from fljax.sweeps.slots import Running, Slots
from fljax.sweeps.trials import Trial

# A kill loses at most about so much work.
_SAVE_SECONDS = 30.0


class Saved(NamedTuple):
    """A sweep as a checkpoint holds it.

    Attributes:
      step: Of the checkpoint.
      slots: One entry a slot: [trial, round, totals, diverged], or None where it rests.
      pending: Trial that was asked for and waits for its group, or None.
      execution: The layout of the running group.
      store_rows: Rows of its client store.
    """

    step: int
    slots: list[list | None]
    pending: int | None
    execution: dict[str, Any]
    store_rows: int


class Journal:
    """Writes rows, statuses and checkpoints of a process's trials.

    Args:
      directory: Of this process.
      trials: That it runs.
      identity: What must not change when the sweep is resumed, as JSON values.
    """

    def __init__(self, directory: Path, trials: Sequence[Trial], identity: Mapping[str, Any]):
        self.directory = directory
        self.trials = trials
        self.statuses: dict[int, Status] = {}
        self.rows: dict[int, list[results.Row]] = {}
        self._identity = plain(identity)
        self._step = 0
        self._saved = time.monotonic()
        directory.mkdir(parents=True, exist_ok=True)
        self._checkpoints = Checkpoints(directory / "checkpoints", keep=2)

    def close(self) -> None:
        """Waits for the last checkpoint."""
        self._checkpoints.close()

    def start_anew(self) -> None:
        """Begins an empty journal.

        Raises:
          FileExistsError: If the directory holds a sweep already.
        """
        rows = self.directory / results.ROWS
        if self._checkpoints.latest_round() or (rows.exists() and rows.stat().st_size):
            raise FileExistsError(
                f"{self.directory} holds a sweep already. Go on with it by --resume, or give "
                "another --workdir."
            )
        results.write_trials(self.directory, self.trials, self.statuses)

    def go_on(self, search: Any) -> Saved | None:
        """Brings files and search back to the newest checkpoint; None if there is none.

        Raises:
          ValueError: If it belongs to another sweep.
        """
        self._step = self._checkpoints.latest_round() or 0
        if not self._step:
            results.truncate_rows(self.directory / results.ROWS, {})
            results.write_trials(self.directory, self.trials, {})
            return None
        saved = self._checkpoints.metadata(self._step)
        check_identity(self._identity, saved["identity"], self._step)
        search.load(saved["search"])
        self.statuses = {int(n): Status(*status) for n, status in saved["statuses"].items()}
        rounds = {number: status.round for number, status in self.statuses.items()}
        for row in results.truncate_rows(self.directory / results.ROWS, rounds):
            if self.statuses[row["trial"]].state == "running":
                self.rows.setdefault(row["trial"], []).append(row)
        return Saved(self._step, *(saved[name] for name in Saved._fields[1:]))

    def restore(self, saved: Saved, slots: Slots) -> None:
        """Brings freshly built slots to where the checkpoint was taken."""
        federation = slots.federation
        template = _state(slots) | {"store": federation.store.template(saved.store_rows)}
        state, _ = self._checkpoints.restore(saved.step, template)
        federation.load(state["server"], state["store"])
        slots.states = state["sampler"]
        trials = {trial.number: trial for trial in self.trials}
        slots.slots = [
            entry and Running(trials[entry[0]], entry[1], RoundTotals(**entry[2]), entry[3])
            for entry in saved.slots
        ]

    def write(self, slots: Slots) -> None:
        """Writes the new records of all slots."""
        rows = [results.row(trial, record) for trial, record in slots.take_records()]
        for row in rows:
            self.rows.setdefault(row["trial"], []).append(row)
        results.append_rows(self.directory / results.ROWS, rows)
        for running in slots.active.values():
            self.statuses[running.trial.number] = Status("running", running.round)

    def end(self, running: Running, state: str) -> list[results.Row]:
        """Marks a trial as over; returns its rows."""
        self.statuses[running.trial.number] = Status(state, running.round)
        return self.rows.pop(running.trial.number, [])

    def save(self, slots: Slots, search: Any, pending: Trial | None, *, now: bool) -> None:
        """Takes a checkpoint, if it is time for one or `now`."""
        if not now and time.monotonic() - self._saved < _SAVE_SECONDS:
            return
        self._step += 1
        entries = [
            one and [one.trial.number, one.round, dataclasses.asdict(one.totals), one.diverged]
            for one in slots.slots
        ]
        metadata = {
            "slots": entries,
            "pending": None if pending is None else pending.number,
            "execution": slots.federation.layout,
            "store_rows": slots.federation.store.num_rows,
            "search": search.state(),
            "statuses": {str(number): list(status) for number, status in self.statuses.items()},
            "identity": self._identity,
        }
        self._checkpoints.save(self._step, _state(slots), metadata)
        results.write_trials(self.directory, self.trials, self.statuses)
        self._saved = time.monotonic()


def _state(slots: Slots) -> dict[str, Any]:
    federation = slots.federation
    return {
        "server": federation.state,
        "store": federation.store.state(),
        "sampler": slots.states,
    }

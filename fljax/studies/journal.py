"""The journal of a study: what lies in its directory, and how a killed study goes on from it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.recording import Checkpoints, say
from fljax.recording.jsonio import plain
from fljax.recording.line_file import LineFile
from fljax.studies import results
from fljax.studies.results import Status
from fljax.studies.slots import Running, Slots
from fljax.studies.space import Trial, with_tuples
from fljax.training.resume import check_identity, extent_of, records_fault
from fljax.training.round_records import RoundTotals

# A kill loses at most about so much work.
_SAVE_SECONDS = 30.0


class Saved(NamedTuple):
    """A study as a checkpoint holds it.

    Attributes:
      step: Of the checkpoint.
      slots: One entry a slot: [trial, round, totals, diverged], or None where it rests.
      waiting: Trials that were asked for and have not started.
      execution: The layout of the running group.
      store_rows: Rows of its client store.
      costs: What was spent, see `fljax.studies.runner.Costs`.
    """

    step: int
    slots: list[list | None]
    waiting: list[int]
    execution: dict[str, Any]
    store_rows: int
    costs: dict[str, Any]


class Journal:
    """Writes rows, statuses and checkpoints of a process's trials.

    Args:
      directory: Of this process.
      trials: That are listed; a search may propose others.
      identity: What must not change when the study is resumed, as JSON values.
    """

    def __init__(self, directory: Path, trials: Sequence[Trial], identity: Mapping[str, Any]):
        self.directory = directory
        self.trials = list(trials)
        self._listed = frozenset(trial.number for trial in trials)
        self.statuses: dict[int, Status] = {}
        self.rows: dict[int, list[results.Row]] = {}
        self._identity = plain(identity)
        self._step = 0
        self._saved = time.monotonic()
        self._rows_file: LineFile | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._checkpoints = Checkpoints(directory / "checkpoints", keep=2)

    def close(self) -> None:
        """Waits for the last checkpoint, and brings the rows to disk."""
        try:
            self._checkpoints.close()
        finally:
            if self._rows_file is not None:
                self._rows_file.close()

    def start_anew(self) -> None:
        """Begins an empty journal.

        Raises:
          FileExistsError: If the directory holds a study already.
        """
        rows = self.directory / results.ROWS
        if self._checkpoints.rounds() or (rows.exists() and rows.stat().st_size):
            raise FileExistsError(
                f"{self.directory} holds a study already. Go on with it by --resume, or give "
                "another --workdir."
            )
        self._open_rows([])
        results.write_trials(self.directory, self.trials, self.statuses)

    def _open_rows(self, kept: Sequence[bytes]) -> None:
        self._rows_file = LineFile(self.directory / results.ROWS, kept)

    def add(self, trial: Trial) -> Trial:
        """Takes in a trial that a search has proposed; returns it as it will be read back.

        Raises:
          ValueError: If it is no trial, or another one has its number.
        """
        if not isinstance(trial, Trial):
            raise ValueError(
                f"The search's ask() returned {trial!r}. It must return a "
                "fljax.studies.Trial, such as Trial(0, {'client_lr': 0.1}), or None."
            )
        if trial.number in self._listed:
            return trial
        if trial.number in {known.number for known in self.trials}:
            raise ValueError(
                f"The search proposed trial {trial.number} a second time. Number its trials "
                "without repetition; a search that is resumed needs what it knew, from load() or "
                "from a storage of its own."
            )
        trial = Trial(int(trial.number), with_tuples(plain(trial.values)), int(trial.seed))
        self.trials.append(trial)
        return trial

    def go_on(self, search: Any) -> Saved | None:
        """Brings files and search back to the newest checkpoint; None if there is none.

        Raises:
          ValueError: If it belongs to another study, or none of the checkpoints is whole.
        """
        path = self.directory / results.ROWS
        newest = self._checkpoints.newest_whole(lambda metadata: records_fault(metadata, path))
        self._step = newest or 0
        if not self._step:
            if (
                (self.directory / results.SUMMARY).exists()
                and path.exists()
                and path.stat().st_size
            ):
                raise FileNotFoundError(
                    f"{self.directory} holds a study that has ended, but none of its checkpoints, "
                    "so that it cannot be gone on with. Put them back, or start again in another "
                    "--workdir."
                )
            if path.exists():
                say(f"{self.directory} has no checkpoint yet; the study starts from the beginning.")
            self._open_rows([])
            results.write_trials(self.directory, self.trials, {})
            return None
        saved = self._checkpoints.metadata(self._step)
        check_identity(self._identity, saved["identity"], self._step)
        if not self._listed:
            self.trials = [
                Trial(number, with_tuples(values), seed) for number, values, seed in saved["trials"]
            ]
        search.load(saved["search"])
        self.statuses = {int(n): Status(*status) for n, status in saved["statuses"].items()}
        rounds = {number: status.round for number, status in self.statuses.items()}
        lines, rows = results.rows_until(path, rounds, extent_of(saved))
        self._open_rows(lines)
        for row in rows:
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
        results.append_rows(self._rows_file, rows)
        for running in slots.active.values():
            self.statuses[running.trial.number] = Status("running", running.round)

    def end(self, running: Running, state: str) -> list[results.Row]:
        """Marks a trial as over; returns its rows."""
        self.statuses[running.trial.number] = Status(state, running.round)
        return self.rows.pop(running.trial.number, [])

    def save(
        self, slots: Slots, search: Any, waiting: Iterable[Trial], costs: Any, *, now: bool
    ) -> None:
        """Takes a checkpoint, if it is time for one or `now`."""
        if not now and time.monotonic() - self._saved < _SAVE_SECONDS:
            return
        self._step += 1
        entries = [
            running
            and [
                running.trial.number,
                running.round,
                dataclasses.asdict(running.totals),
                running.diverged,
            ]
            for running in slots.slots
        ]
        metadata = {
            "slots": entries,
            "waiting": [trial.number for trial in waiting],
            "trials": [[trial.number, plain(trial.values), trial.seed] for trial in self.trials],
            "execution": slots.federation.layout,
            "store_rows": slots.federation.store.num_rows,
            "search": search.state(),
            "costs": dataclasses.asdict(costs),
            "statuses": {str(number): list(status) for number, status in self.statuses.items()},
            "identity": self._identity,
            # on disk before the checkpoint that counts on them
            "records": self._rows_file.sync(),
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

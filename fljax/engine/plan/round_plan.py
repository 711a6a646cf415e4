"""The round plan: which job runs when, on which lane, over which rows.

A plan is a small pytree of NumPy arrays whose shapes depend on capacities alone, so that cohorts of
any size run under one compilation. Axis names used below:

  D devices, T step capacity, L lanes, B batch size, J job capacity of a device,
  E exchanges of G lanes (exchange_size), V waves, W slots of a wave, S trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.schedule import Spans
from fljax.engine.plan.counting import earlier_equals


class JobTable(NamedTuple):
    """The jobs of a round as columns, in cohort order; each column has one entry a job.

    Attributes:
      client: int32 client numbers.
      trial: int32 index of the trial that they belong to.
      version: int32, how many versions of their trial's model have followed the one that they start
        from; 0 for the newest.
      occurrence: int32, how often (trial, client) appeared earlier in the table.
      accepted: bool, false for clients that are lost after their work.
      group: int32 group of the client.
      steps: int64 local steps that override the configured local work, or None.
      scale: float32 factors of what the server takes in of each update, or None.
      place: int32 where the program keeps the version that they start from; None where versions lie
        in turn.
    """

    client: np.ndarray
    trial: np.ndarray
    version: np.ndarray
    occurrence: np.ndarray
    accepted: np.ndarray
    group: np.ndarray
    steps: np.ndarray | None = None
    scale: np.ndarray | None = None
    place: np.ndarray | None = None


class JobArrays(NamedTuple):
    """Columns of the jobs on each device, [D, J]; padding jobs have client -1.

    All are int32 but `accepted`, and `scale`, float32, which is None where nothing is scaled.
    """

    client: Any
    position: Any
    trial: Any
    version: Any
    rows: Any
    steps: Any
    start: Any
    occurrence: Any
    accepted: Any
    group: Any
    place: Any
    scale: Any = None


class PassPlan(NamedTuple):
    """The schedule of one pass.

    Lanes exchange one by one (G = 1), or several together, and these are a wave (G = W); arrays
    that a kind of schedule does not need are None (`exchanges.py`).

    Attributes:
      rows: int32[D, T, L, B] row numbers of the batch that lane l reads at step t.
      counts: int32[D, T, L] how many of them are real; 0 on an idle lane.
      exchange_time: int32[D, E] step before which the exchange happens, ascending. None where each
        wave takes the same number of steps, T / V.
      exchange_lane: int32[D, E, G] lanes whose job ends and whose next job starts (L: none). None
        where all lanes exchange together, as `exchange_next` is.
      exchange_slot: int32[D, E, 1] wave slots that keep the finished jobs (W: none). None where
        several exchange together: the jobs of exchange v + 1 are those of wave v, and exchange 0
        only starts jobs.
      exchange_next: int32[D, E, G] jobs that start (J: none).
      first_jobs: int32[D, L - G] jobs that the lanes behind the first G start with (J: none). None
        where they start one by one, or all together.
      wave_end: int32[D, V] number of exchanges that precede the end of the wave. None where an
        exchange is a wave.
      wave_jobs: int32[D, V, W] job in each slot (J and beyond: none).
      num_waves: int32[D].
      jobs: JobArrays of [D, J].
    """

    rows: Any
    counts: Any
    exchange_time: Any
    exchange_lane: Any
    exchange_slot: Any
    exchange_next: Any
    first_jobs: Any
    wave_end: Any
    wave_jobs: Any
    num_waves: Any
    jobs: JobArrays

    @property
    def shares_exchanges(self) -> bool:
        """Says whether several lanes exchange together."""
        return self.exchange_slot is None

    @property
    def equal_steps(self) -> int:
        """The steps of every wave where all take equally many; else 0."""
        num_waves = self.wave_jobs.shape[-2]
        return 0 if self.exchange_time is not None else self.rows.shape[-3] // num_waves

    def exchange_times(self, device: int) -> np.ndarray:
        """Returns int64[exchanges], the steps before which a device's exchanges happen.

        Those that only start jobs are among them, except where several lanes exchange together.
        """
        waves = int(self.num_waves[device])
        if not self.shares_exchanges:
            return self.exchange_time[device, : self.wave_end[device, waves - 1] if waves else 0]
        if self.exchange_time is None:
            return self.equal_steps * np.arange(1, waves + 1)
        return self.exchange_time[device, 1 : waves + 1]


class RoundPlan(NamedTuple):
    """Everything the round program needs to know about one round.

    Attributes:
      round: int32[S] round number of each trial.
      passes: One PassPlan for each pass; all place a job at the same (device, index).
      cohort_index: int32[P] flat (device x J) index of the job at each cohort position; a position
        without a job holds D x J.
      staged: {name: [D, R, ...]} rows of the cohort where data is streamed, else None. As made by
        the planner, of this process's devices only.
      newest: int32[S] places of the newest versions of the trials' models.
    """

    round: Any
    passes: tuple[PassPlan, ...]
    cohort_index: Any
    staged: dict[str, Any] | None
    newest: Any


class HostPlan(NamedTuple):
    """The host's part of a plan, which stays when the rest is sent to the devices.

    Attributes:
      round: Round number, or int32[S], one a trial.
      clients: int32[D, J] client of each job (-1: padding).
      trials: int32[D, J].
      keepers: int32[D, J] like `clients`, but -1 where nothing goes to the client store: the job is
        lost, or the same client has a later one that is not.
      num_jobs: Jobs that run.
      without_rows: int64[S] clients of each trial's cohort that were left out because they have no
        batch.
      steps: int64[S] local steps of each trial over all jobs and passes.
      rows_real: Rows trained on.
      rows_computed: Rows the lanes compute, padding and idle lanes included.
      sampler_state: State of the sampler after this round's selection.
      seconds: Seconds the host spent on the plan: selection, schedule, staging, and handing it all
        to the devices.
      places: int64[num_jobs] flat (device x J) places of the jobs, in cohort order.
      repeated: int64[K] flat (device x J) places of the jobs, in cohort order, of clients with
        several accepted ones; which of them is the last that was kept, the devices alone know.
      records: {key: number} that joins each trial's record.
      spans: Of each trial who worked when, or None.
      downlink_bytes: What clients of each trial have received for jobs that are not planned here;
        empty for nothing.
    """

    round: int | np.ndarray
    clients: np.ndarray
    trials: np.ndarray
    keepers: np.ndarray
    num_jobs: int
    without_rows: np.ndarray
    steps: np.ndarray
    rows_real: int
    rows_computed: int
    sampler_state: Any
    seconds: float = 0.0
    places: np.ndarray = np.zeros(0, np.int64)
    repeated: np.ndarray = np.zeros(0, np.int64)
    records: Sequence[Mapping[str, float]] = ()
    spans: Sequence[Spans | None] = ()
    downlink_bytes: Sequence[float] = ()

    def keepers_of(self, kept: np.ndarray) -> np.ndarray:
        """Returns `keepers` once it is known how many passes kept what a job made, int[D, J].

        Of a client with several jobs the last one that most passes kept has its row, if there is
        one.
        """
        pairs = (self.trials.astype(np.int64) << 32 | self.clients).reshape(-1)
        times = kept.reshape(-1)
        by_times = self.repeated[np.argsort(times[self.repeated], kind="stable")]
        sound = by_times[times[by_times] > 0][::-1]
        keepers = np.where(np.isin(pairs, pairs[sound]), -1, self.keepers.reshape(-1))
        last = sound[earlier_equals(pairs[sound]) == 0]
        keepers[last] = self.clients.reshape(-1)[last]
        return keepers.reshape(self.keepers.shape)


def job_table(
    clients,
    *,
    trial=0,
    version=0,
    accepted=True,
    groups: np.ndarray | None = None,
    steps=None,
    scale=None,
    place=None,
) -> JobTable:
    """Builds a table in which every client of the list is one job of one trial.

    Args:
      clients: Integer client numbers in cohort order; repetitions are separate jobs.
      trial: Integer, or one a client.
      version: Integer, or one a client.
      accepted: Bool, or one a client.
      groups: int[N] group of every client of the population.
      steps: Local steps, one a client, instead of the configured local work.
      scale: Factor of what the server takes in of a client's update, one a client.
      place: Integer where the program keeps a client's version, one a client.
    """
    clients = np.asarray(clients, np.int32).reshape(-1)
    trial = np.full(clients.shape, trial, np.int32)
    return JobTable(
        client=clients,
        trial=trial,
        version=np.full(clients.shape, version, np.int32),
        occurrence=occurrence(trial, clients).astype(np.int32),
        accepted=np.full(clients.shape, accepted, bool),
        group=(np.zeros_like(clients) if groups is None else np.asarray(groups, np.int32)[clients]),
        steps=None if steps is None else np.asarray(steps, np.int64),
        scale=None if scale is None else np.asarray(scale, np.float32),
        place=None if place is None else np.asarray(place, np.int32),
    )


def occurrence(trial: np.ndarray, client: np.ndarray) -> np.ndarray:
    """Returns int64[J], how often each pair (trial, client) stands before it."""
    return earlier_equals(trial.astype(np.int64) << 32 | client)

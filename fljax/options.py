"""The options of a run: what its rounds do, and what surrounds them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fljax.engine.pipeline import Pipeline, PipelineSpec
from fljax.engine.sampler import Sampler
from fljax.recording import Sink

PyTree = Any
Schedule = Callable[[jax.Array], jax.Array]
_WHOLE_NUMBERS = (
    "num_rounds", "local_epochs", "local_steps", "batch_size", "devices", "lanes", "wave",
    "rounds_per_dispatch",
)  # fmt: skip
# (federation, record) -> what joins the record
Hook = Callable[[Any, Mapping[str, Any]], Mapping[str, Any] | None]


@dataclasses.dataclass(frozen=True)
class RoundOptions:
    """What a round does, apart from data, model and algorithm.

    Attributes:
      num_rounds: Rounds of the run.
      clients_per_round: Cohort size (its mean, for the Poisson sampler).
      local_epochs: Passes over a client's rows in a round; None where `local_steps` counts.
      local_steps: Local steps in a round; None where `local_epochs` counts.
      batch_size: Rows of a local batch; 0 takes all rows of the client at once.
      remainder: "partial", "drop" or "wrap": see `LocalWork`.
      shuffle: Whether each epoch reads the rows in a new random order.
      sampler: "uniform", "poisson", or a Sampler.
      cohorts: Replays these cohorts instead of sampling.
      steps_per_round: Local steps of each round, the same for all clients, instead of local work
        (baselines); its length is the number of rounds.
      client_lr_schedule: round -> factor of client_lr, in jax.numpy.
      server_lr_schedule: round -> factor of server_lr, in jax.numpy.
      pipeline: Transforms between clients and server; a `PipelineSpec` where some of their numbers
        are traced.
      seed: Seed of everything random in the run, apart from the data.
      compute_dtype: "float32", or "bfloat16" for the clients' forward and backward passes; see
        `fljax.gradients.bind`. Parameters, updates, sums and evaluation stay float32 either way.
      initial_params: Parameters to start from instead of the task's.
      devices, lanes, wave: 0 chooses; see `ExecutionPlan`.
      placement: "auto", "device" or "stream".
      calibrate: Whether to find devices, lanes and waves by trial where `lanes` and `wave` are 0:
        see `fljax.calibration`. None does so for runs of 50 rounds and more, as far as it pays.
      rounds_per_dispatch: Rounds that the devices run in one go, which pays where a round takes
        milliseconds. No such block goes beyond an evaluation or a checkpoint; what is left before
        one runs round by round. Only for algorithms and pipelines without client state. 0 takes
        several where calibration finds rounds of milliseconds, else one.
    """

    num_rounds: int
    clients_per_round: int
    local_epochs: int | None = 1
    local_steps: int | None = None
    batch_size: int = 20
    remainder: str = "partial"
    shuffle: bool = True
    sampler: str | Sampler = "uniform"
    cohorts: Sequence[Sequence[int]] | None = None
    steps_per_round: Sequence[int] | None = None
    client_lr_schedule: Schedule | None = None
    server_lr_schedule: Schedule | None = None
    pipeline: Pipeline | PipelineSpec = Pipeline()
    seed: int = 0
    compute_dtype: str = "float32"
    initial_params: PyTree | None = None
    devices: int = 0
    lanes: int = 0
    wave: int = 0
    placement: str = "auto"
    calibrate: bool | None = None
    rounds_per_dispatch: int = 0

    def __post_init__(self):
        # the mean of the Poisson sampler's cohorts may be any number
        cohort = () if self.sampler == "poisson" else ("clients_per_round",)
        for name in (*_WHOLE_NUMBERS, *cohort):
            value = getattr(self, name)
            if value is not None and not _is_whole(value):
                raise ValueError(f"{name} = {value!r}; give a whole number, such as 2.")


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What surrounds the rounds: evaluation, files, checkpoints.

    Attributes:
      eval_every: Rounds between evaluations; the last round is always evaluated, 0 is only that.
      eval_batch_size: Rows of an evaluation batch; 0 chooses.
      eval_clients: Clients evaluated one by one at the end and with each evaluation: 0 none, -1
        all, k a seeded sample.
      eval_personal: Evaluate the own models of so many clients instead of the global one, and
        report the mean over them (algorithms that personalize; the baseline local_only).
      target_accuracy: Test accuracy (validation, where there is no test set) whose cost the summary
        reports.
      stop_at_target: End the run when the target is reached.
      uplink_mbps, downlink_mbps: Megabits (10^6 bits) a second of a client's link, from which
        records tell simulated transfer times: see `fljax.records`. None takes no time.
      workdir: Directory for everything the run leaves behind; None keeps it in memory.
      resume: Go on from the newest checkpoint of the workdir.
      checkpoint_every: Rounds between checkpoints; 0 saves only at the end and on Ctrl-C. Without a
        workdir nothing is saved.
      keep_checkpoints: Newest checkpoints that stay.
      baselines: "centralized", "local_only": see `fljax.baselines`.
      progress: Show progress on standard error.
      matmul_precision: JAX's default matmul precision ("highest", "tensorfloat32", ...); None
        leaves it as it is.
      hooks: Called after each round with (federation, record); what they return joins the record.
        They see the model after that round, so the next one waits for them. Several processes call
        them in each, and they must compute the same there.
      sinks: Functions () -> Sink that open further places for the records, such as
        `lambda: fljax.recording.wandb_sink("offline")`; called once the run can start, of several
        processes in the first one.
      config: Written to config.json besides the resolved options.
    """

    eval_every: int = 10
    eval_batch_size: int = 0
    eval_clients: int = 0
    eval_personal: int = 0
    target_accuracy: float | None = None
    stop_at_target: bool = False
    uplink_mbps: float | None = None
    downlink_mbps: float | None = None
    workdir: str | Path | None = None
    resume: bool = False
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    baselines: Sequence[str] = ()
    progress: bool = True
    matmul_precision: str | None = None
    hooks: Sequence[Hook] = ()
    sinks: Sequence[Callable[[], Sink]] = ()
    config: Mapping[str, Any] | None = None


def split_options(options: Mapping[str, Any]) -> tuple[RoundOptions, RunOptions]:
    """Sorts keyword arguments into the two records; refuses unknown names with the nearest."""
    records = {
        record: [field.name for field in dataclasses.fields(record)]
        for record in (RoundOptions, RunOptions)
    }
    known = [name for names in records.values() for name in names]
    for name in options:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise TypeError(f"simulate has no option {name!r}{hint} Options: {', '.join(known)}.")
    for name in ("num_rounds", "clients_per_round"):
        if name not in options:
            raise TypeError(f"simulate needs {name}=...")
    parts = [
        record(**{name: options[name] for name in names if name in options})
        for record, names in records.items()
    ]
    return parts[0], parts[1]


def check_run_options(options: RunOptions, rounds_per_dispatch: int = 0) -> None:
    """Raises ValueError for options that would be ignored or cannot be."""
    for name in ("eval_every", "checkpoint_every"):
        if getattr(options, name) < 0:
            raise ValueError(f"{name} = {getattr(options, name)}; give a number of rounds, or 0.")
    for name in ("uplink_mbps", "downlink_mbps"):
        speed = getattr(options, name)
        if speed is not None and not 0 < speed < math.inf:
            raise ValueError(f"{name} = {speed!r}; give megabits a second above 0, or None.")
    if options.stop_at_target and options.target_accuracy is None:
        raise ValueError("stop_at_target needs a target_accuracy.")
    if options.checkpoint_every and options.workdir is None:
        raise ValueError("checkpoint_every needs a workdir to save the checkpoints in.")
    if rounds_per_dispatch > 1 and options.hooks:
        raise ValueError(
            f"rounds_per_dispatch = {rounds_per_dispatch}, but hooks see the model after every "
            "round. Leave it at 1, or give no hooks."
        )
    for name in ("eval_every", "checkpoint_every"):
        if 0 < getattr(options, name) < rounds_per_dispatch:
            raise ValueError(
                f"rounds_per_dispatch = {rounds_per_dispatch} would have no effect: {name} = "
                f"{getattr(options, name)} ends every dispatch earlier. Lower the one or raise the "
                "other."
            )

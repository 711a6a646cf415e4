"""The options of a run: what its rounds do, and what surrounds them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fljax.core.names import equivalent, foreign, nearest
from fljax.core.per_client import check_weights, checked_per_client, is_per_client
from fljax.core.sampler import Sampler
from fljax.core.settings import HYPERPARAMETERS, OPTIONS, PARTITION
from fljax.core.transforms import Pipeline, PipelineSpec, check_pipeline
from fljax.core.values import (
    COUNT,
    NON_NEGATIVE,
    POSITIVE,
    Field,
    checked,
    sequence,
    whole_numbers,
    wrong,
)
from fljax.recording import Sink

PyTree = Any
Schedule = Callable[[jax.Array], jax.Array]
# What clients may have numbers of their own of, and what each of them may be.
PER_CLIENT = {
    "local_epochs": Field(None, int, COUNT),
    "local_steps": Field(None, int, COUNT),
    "batch_size": Field(None, int, NON_NEGATIVE),
    "client_lr_factors": Field(None, float, POSITIVE),
    "client_weights": Field(None, float, NON_NEGATIVE),
}
# (federation, record) -> what joins the record
Hook = Callable[[Any, Mapping[str, Any]], Mapping[str, Any] | None]


@dataclasses.dataclass(frozen=True)
class RoundOptions:
    """What a round does, apart from data, model and algorithm.

    Attributes:
      num_rounds: Rounds of the run.
      clients_per_round: Cohort size (its mean, for the Poisson sampler).
      local_epochs: Passes over a client's rows in a round; None where `local_steps` counts. A list
        of N numbers gives each client its own.
      local_steps: Local steps in a round; None where `local_epochs` counts. Or N numbers.
      batch_size: Rows of a local batch; 0 takes all rows of the client at once. Or N numbers.
      client_lr_factors: N numbers, by which each client multiplies the algorithm's client_lr; None
        leaves it alone.
      client_weights: N numbers, the weight of each client in averages instead of the algorithm's
        `weighting`; of clients with weight 0 no update arrives. What algorithms send beside models
        (SCAFFOLD's control variates) counts alike as before.
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
        `fljax.core.gradients.bind`. Parameters, updates, sums and evaluation stay float32.
      initial_params: Parameters to start from instead of the task's.
      devices, lanes, wave: 0 chooses; see `ExecutionPlan`.
      placement: "auto", "device" or "stream".
      calibrate: Whether to find devices, lanes and waves by trial where `lanes` and `wave` are 0:
        see `fljax.training.autotuning`. None does so from 50 rounds on, as far as it pays.
      rounds_per_dispatch: Rounds that the devices run in one go, which pays where a round takes
        milliseconds. No such block goes beyond an evaluation or a checkpoint; what is left before
        one runs round by round. Only for algorithms and pipelines without client state. 0 takes
        several in runs of 1,000 rounds and more where calibration finds rounds of milliseconds,
        else one.
    """

    num_rounds: int
    clients_per_round: int
    local_epochs: int | Sequence[int] | None = 1
    local_steps: int | Sequence[int] | None = None
    batch_size: int | Sequence[int] = 20
    client_lr_factors: Sequence[float] | None = dataclasses.field(default=None, repr=False)
    client_weights: Sequence[float] | None = dataclasses.field(default=None, repr=False)
    remainder: str = "partial"
    shuffle: bool = True
    sampler: str | Sampler = "uniform"
    cohorts: Sequence[Sequence[int]] | None = dataclasses.field(default=None, repr=False)
    steps_per_round: Sequence[int] | None = dataclasses.field(default=None, repr=False)
    client_lr_schedule: Schedule | None = None
    server_lr_schedule: Schedule | None = None
    pipeline: Pipeline | PipelineSpec = Pipeline()
    seed: int = 0
    compute_dtype: str = "float32"
    initial_params: PyTree | None = dataclasses.field(default=None, repr=False)
    devices: int = 0
    lanes: int = 0
    wave: int = 0
    placement: str = "auto"
    calibrate: bool | None = None
    rounds_per_dispatch: int = 0

    def __post_init__(self):
        fields = dict(OPTIONS)
        if isinstance(self.sampler, Sampler):
            del fields["sampler"]
        elif str(self.sampler) == "poisson" and isinstance(self.clients_per_round, float):
            # the mean of its cohorts may be any number
            fields["clients_per_round"] = Field(None, float, POSITIVE)
        for name, field in PER_CLIENT.items():
            value = getattr(self, name)
            if is_per_client(value) or (name not in fields and value is not None):
                _set(self, name, checked_per_client(name, value, field))
                fields.pop(name, None)
        if self.client_weights is not None:
            check_weights("client_weights", self.client_weights)
        _check_fields(self, fields)
        check_pipeline(self.pipeline)
        for name in ("client_lr_schedule", "server_lr_schedule"):
            schedule = getattr(self, name)
            if schedule is not None and not callable(schedule):
                raise wrong(name, schedule, "a function from a round to a factor of the rate")
        if self.cohorts is not None:
            cohorts = sequence("cohorts", self.cohorts, "a list of client numbers for each round")
            _set(
                self,
                "cohorts",
                [whole_numbers(f"cohorts[{n}]", cohort) for n, cohort in enumerate(cohorts)],
            )
        if self.steps_per_round is not None:
            steps = whole_numbers("steps_per_round", self.steps_per_round)
            for number, count in enumerate(steps):
                checked(f"steps_per_round[{number}]", count, Field(None, int, NON_NEGATIVE))
            _set(self, "steps_per_round", steps)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What surrounds the rounds: evaluation, files, checkpoints.

    Attributes:
      eval_every: Rounds between evaluations; the last round is always evaluated, 0 is only that.
      eval_batch_size: Rows of an evaluation batch; 0 chooses.
      eval_clients: Clients evaluated one by one at the end and with each evaluation: 0 none, -1
        all, k a seeded sample of those that have rows to evaluate.
      eval_personal: Evaluate the own models of so many clients (of those that have training rows)
        instead of the global one, and report the mean over them (algorithms that personalize; the
        baseline local_only).
      target_accuracy: Test accuracy (validation, where there is no test set) whose cost the summary
        reports.
      stop_at_target: End the run at the first evaluation of a trained model that reaches it.
      patience: End the run after so many evaluations in a row without a better validation accuracy
        (loss, for tasks without accuracy); 0 never does.
      min_delta: What counts as better: a gain above this.
      uplink_mbps, downlink_mbps: Megabits (10^6 bits) a second of a client's link, from which
        records tell simulated transfer times, as `fljax.training.round_records` says. None takes
        no time.
      workdir: Directory for everything the run leaves behind; None keeps it in memory.
      resume: Go on from the newest checkpoint of the workdir.
      checkpoint_every: Rounds between checkpoints; 0 saves only at the end and on Ctrl-C. Without a
        workdir nothing is saved.
      keep_checkpoints: Newest checkpoints that stay.
      baselines: "centralized", "local_only": see `fljax.training.baselines`.
      progress: Show progress on standard error.
      matmul_precision: JAX's default matmul precision ("highest", "tensorfloat32", ...); None
        leaves it as it is.
      hooks: Called after each round with (federation, record); what they return joins the record.
        They see the model after that round, so the next one waits for them. Several processes call
        them in each, and they must compute the same there. One that raises `fljax.StopTraining`
        ends the run after this round.
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
    patience: int = 0
    min_delta: float = 0.0
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

    def __post_init__(self):
        _check_fields(self, OPTIONS)
        if not isinstance(self.workdir, str | os.PathLike | None):
            raise wrong("workdir", self.workdir, "a path, or None")
        if not isinstance(self.config, Mapping | None):
            raise wrong("config", self.config, "a dict, or None")
        for name, what in (("hooks", _A_HOOK), ("sinks", _A_SINK)):
            functions = tuple(sequence(name, getattr(self, name), f"a list of functions {what}"))
            _set(self, name, functions)
            for place, one in enumerate(functions):
                if not callable(one):
                    raise wrong(f"{name}[{place}]", one, f"a function {what}")


_A_HOOK = "(federation, record) -> what joins the record, or None"
_A_SINK = "() -> Sink, such as lambda: fljax.recording.wandb_sink('offline')"


def _check_fields(record: RoundOptions | RunOptions, fields: Mapping[str, Field]) -> None:
    """Puts the values of a record's plain options in place as their fields have them."""
    for field in dataclasses.fields(record):
        if field.name in fields:
            value = getattr(record, field.name)
            _set(record, field.name, checked(field.name, value, fields[field.name]))


def _set(record: RoundOptions | RunOptions, name: str, value: Any) -> None:
    object.__setattr__(record, name, value)  # only while the frozen record is made


def split_options(options: Mapping[str, Any]) -> tuple[RoundOptions, RunOptions]:
    """Sorts keyword arguments into the two records; refuses unknown names with the nearest."""
    records = {
        record: [field.name for field in dataclasses.fields(record)]
        for record in (RoundOptions, RunOptions)
    }
    known = [name for names in records.values() for name in names]
    for name in options:
        if name not in known:
            raise TypeError(f"simulate has no option {name!r}. {_hint(name, known)}")
    for name in ("num_rounds", "clients_per_round"):
        if name not in options:
            raise TypeError(f"simulate needs {name}=...")
    parts = [
        record(**{name: options[name] for name in names if name in options})
        for record, names in records.items()
    ]
    return parts[0], parts[1]


def _hint(name: str, known: Sequence[str]) -> str:
    """Returns which option was probably meant, and where it belongs if it is none of `simulate`."""
    everywhere = [*known, *_ELSEWHERE]
    theirs, near = foreign(name, everywhere), nearest(name, everywhere)
    meant = equivalent(name, everywhere) or near
    hint = theirs or (f"Did you mean {near}?" if near not in (None, name) else "")
    if meant in _ELSEWHERE:
        return f"{hint} {meant} belongs to {_ELSEWHERE[meant]}".strip()
    return hint or f"Options: {', '.join(known)}."


# What configurations hold beside the options of `simulate`, and where Python says it.
_ELSEWHERE = {
    **dict.fromkeys(
        (*HYPERPARAMETERS, "weighting"),
        "the algorithm, such as fljax.algorithms.fedavg(client_lr=0.1).",
    ),
    "server_optimizer": "the algorithm: fljax.algorithms.fedopt('adam').",
    **dict.fromkeys(
        (*PARTITION.keys() - {"seed"}, "partition"),
        "the data, such as fljax.data.load('mnist', num_clients=100).",
    ),
    "uplink": "the option pipeline: Pipeline(uplink=(fljax.compression.uplink(...),)).",
}


def check_workdir(workdir: str | Path | None) -> None:
    """Raises ValueError for a directory without a name, which would be the current one."""
    if workdir is not None and not str(workdir).strip():
        raise ValueError("--workdir is empty. Give a directory, such as runs/first.")


def check_run_options(options: RunOptions, rounds_per_dispatch: int = 0) -> None:
    """Raises ValueError for options that would be ignored or cannot be."""
    if options.min_delta and not options.patience:
        raise ValueError(f"min_delta = {options.min_delta} has no effect without patience.")
    if options.patience and not options.eval_every:
        raise ValueError(f"patience = {options.patience} counts evaluations: set eval_every.")
    if options.stop_at_target and options.target_accuracy is None:
        raise ValueError("stop_at_target needs a target_accuracy.")
    check_workdir(options.workdir)
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

"""The options of a run: what its rounds do, and what surrounds them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fljax.core.contradictions import (
    contradictions,
    privacy_contradictions,
    robustness_contradictions,
    systems_contradictions,
)
from fljax.core.names import equivalent, foreign, nearest
from fljax.core.parts import name_of
from fljax.core.per_client import check_weights, checked_per_client, is_per_client
from fljax.core.sampler import Sampler
from fljax.core.schedule import Schedule as Timing
from fljax.core.settings import ALGORITHM, COMPRESSION, DATA, OPTIONS, PRIVACY, ROBUSTNESS
from fljax.core.transforms import Aggregator, Pipeline, PipelineSpec, UplinkLink, check_pipeline
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
from fljax.privacy.mechanism import Mechanism
from fljax.privacy.protection import Protection
from fljax.recording import Sink
from fljax.robustness.aggregators.mixing import Mixing
from fljax.robustness.attack import Attack
from fljax.robustness.drawn import Drawn
from fljax.selection.names import MEANS, check_name
from fljax.systems import names as systems
from fljax.systems import presets
from fljax.systems.availability import Availability
from fljax.systems.devices import Devices

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
# What Python may give instead of a text.
_GIVEN_AS_PARTS = {
    "privacy": (Mechanism, Protection),
    "secure_aggregation": UplinkLink,
    "aggregator": (Aggregator, Mixing, Drawn),
    "attack": Attack,
    "profiles": Devices,
    "availability": Availability,
    "schedule": Timing,
}
# (federation, record) -> what joins the record
Hook = Callable[[Any, Mapping[str, Any]], Mapping[str, Any] | None]


def _default(name: str) -> Any:
    return OPTIONS[name].default


def _documented(record: type) -> type:
    """Adds what the table says of a record's options to its docstring."""
    options = (field.name for field in dataclasses.fields(record) if field.name in OPTIONS)
    lines = (f"  {name}: {OPTIONS[name].meaning}" for name in options)
    record.__doc__ = f"{record.__doc__.rstrip()}\n\n    " + "\n    ".join(
        ["Attributes that stand in the table of options:", *lines, ""]
    )
    return record


@_documented
@dataclasses.dataclass(frozen=True)
class RoundOptions:
    """Options of a round, apart from data, model and algorithm.

    `local_epochs`, `local_steps` and `batch_size` may be lists of N numbers, one for each client,
    `sampler` a Sampler, `privacy` a mechanism of `fljax.privacy`, `secure_aggregation` a link,
    `aggregator` an Aggregator or a Mixing, `attack` an Attack, `attacker_clients` a list of
    numbers, `profiles` the clients' Devices, `availability` an Availability and `schedule` a
    Schedule.

    Attributes:
      client_lr_factors: N numbers, by which each client multiplies the algorithm's client_lr; None
        leaves it alone.
      client_weights: N numbers, the weight of each client in averages instead of the algorithm's
        `weighting`; of clients with weight 0 no update arrives. What algorithms send beside models
        (SCAFFOLD's control variates) counts alike as before.
      cohorts: Replays these cohorts instead of sampling.
      steps_per_round: Local steps of each round, the same for all clients, instead of local work
        (baselines); its length is the number of rounds.
      client_lr_schedule: round -> factor of client_lr, in jax.numpy.
      server_lr_schedule: round -> factor of server_lr, in jax.numpy.
      pipeline: Transforms between clients and server; a `PipelineSpec` where some of their numbers
        are traced.
      initial_params: Parameters to start from instead of the task's.
    """

    num_rounds: int
    clients_per_round: int
    local_epochs: int | Sequence[int] | None = _default("local_epochs")
    local_steps: int | Sequence[int] | None = _default("local_steps")
    batch_size: int | Sequence[int] | None = _default("batch_size")
    client_lr_factors: Sequence[float] | None = dataclasses.field(default=None, repr=False)
    client_weights: Sequence[float] | None = dataclasses.field(default=None, repr=False)
    remainder: str = _default("remainder")
    shuffle: bool = _default("shuffle")
    batches: str = _default("batches")
    sampler: str | Sampler = _default("sampler")
    separation: int | None = _default("separation")
    cohorts: Sequence[Sequence[int]] | None = dataclasses.field(default=None, repr=False)
    steps_per_round: Sequence[int] | None = dataclasses.field(default=None, repr=False)
    client_lr_schedule: Schedule | None = None
    server_lr_schedule: Schedule | None = None
    pipeline: Pipeline | PipelineSpec = Pipeline()
    privacy: str | Mechanism | Protection | None = _default("privacy")
    clip_norm: float | None = _default("clip_norm")
    noise_multiplier: float | None = _default("noise_multiplier")
    delta: float | None = _default("delta")
    target_epsilon: float | None = _default("target_epsilon")
    secure_aggregation: str | UplinkLink | None = _default("secure_aggregation")
    aggregator: str | Aggregator | Mixing | Drawn = _default("aggregator")
    worker_momentum: float | None = _default("worker_momentum")
    worker_dampened: bool = _default("worker_dampened")
    attacker_momentum: bool = _default("attacker_momentum")
    attack: str | Attack | None = _default("attack")
    attackers: float | None = _default("attackers")
    attacker_clients: str | Sequence[int] | None = _default("attacker_clients")
    attackers_drawn: str = _default("attackers_drawn")
    attack_rounds: str | int | None = _default("attack_rounds")
    preset: str | None = _default("preset")
    profiles: str | Devices | None = _default("profiles")
    availability: str | Availability | None = _default("availability")
    dropout: float | None = _default("dropout")
    connectivity: str | None = _default("connectivity")
    completeness: str | None = _default("completeness")
    schedule: str | Timing | None = _default("schedule")
    seed: int = _default("seed")
    compute_dtype: str = _default("compute_dtype")
    fused_updates: bool | None = _default("fused_updates")
    initial_params: PyTree | None = dataclasses.field(default=None, repr=False)
    devices: int = _default("devices")
    lanes: int = _default("lanes")
    wave: int = _default("wave")
    placement: str = _default("placement")
    calibrate: bool | None = _default("calibrate")
    rounds_per_dispatch: int = _default("rounds_per_dispatch")

    def __repr__(self) -> str:
        """Shows what is not as it is by default."""
        shown = (field for field in dataclasses.fields(self) if field.repr)
        values = {field.name: (getattr(self, field.name), field.default) for field in shown}
        parts = [
            f"{name}={value!r}" for name, (value, default) in values.items() if value != default
        ]
        return f"RoundOptions({', '.join(parts)})"

    def __post_init__(self):
        if self.local_epochs is None and self.local_steps is None:
            _set(self, "local_epochs", 1)
        if self.batch_size is None:
            _set(self, "batch_size", 0)
        # a schedule of a rate is a function here
        fields = {name: field for name, field in OPTIONS.items() if "lr_schedule" not in name}
        if isinstance(self.sampler, Sampler):
            del fields["sampler"]
        elif name_of(self.sampler) in MEANS and isinstance(self.clients_per_round, float):
            # the mean of their cohorts may be any number
            fields["clients_per_round"] = Field(None, float, POSITIVE)
        for name, kinds in _GIVEN_AS_PARTS.items():
            if isinstance(getattr(self, name), kinds):
                fields.pop(name)
        self._name_attackers()
        for name, field in PER_CLIENT.items():
            value = getattr(self, name)
            if is_per_client(value) or (name not in fields and value is not None):
                _set(self, name, checked_per_client(name, value, field))
                fields.pop(name, None)
        if self.client_weights is not None:
            check_weights("client_weights", self.client_weights)
        _check_fields(self, fields)
        if isinstance(self.sampler, str):
            check_name(self.sampler, self.separation)
        elif self.separation is not None:
            raise ValueError(
                f"separation = {self.separation}, but the sampler is one of your own, which keeps "
                "its own. Leave it out."
            )
        check_pipeline(self.pipeline)
        if not isinstance(self.privacy, Protection):
            for problem in privacy_contradictions({name: getattr(self, name) for name in PRIVACY}):
                raise ValueError(problem)
        for problem in robustness_contradictions(
            {name: getattr(self, name) for name in ROBUSTNESS}
        ):
            raise ValueError(problem)
        for name, value in self._of_preset().items():
            _set(self, name, value)
        for name in systems.TABLES:
            if isinstance(text := getattr(self, name), str):
                systems.check_name(name, text)
        for problem in systems_contradictions(vars(self)):
            raise ValueError(problem)
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

    def _of_preset(self) -> dict[str, Any]:
        """Returns the options that the preset fills."""
        return presets.filled(vars(self))

    def _name_attackers(self) -> None:
        """Puts numbers of clients and rounds in place as the texts that configurations have."""
        if isinstance(self.attack_rounds, int) and not isinstance(self.attack_rounds, bool):
            _set(self, "attack_rounds", str(self.attack_rounds))
        if self.attacker_clients is not None and not isinstance(self.attacker_clients, str):
            clients = whole_numbers("attacker_clients", self.attacker_clients)
            _set(self, "attacker_clients", ", ".join(map(str, clients)))


@_documented
@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of a run around its rounds: evaluation, files, checkpoints.

    Attributes:
      workdir: Directory for everything the run leaves behind; None keeps it in memory.
      hooks: Called after each round with (federation, record); what they return joins the record.
        They see the model after that round, so the next one waits for them. Several processes call
        them in each, and they must compute the same there. One that raises `fljax.StopTraining`
        ends the run after this round.
      sinks: Functions () -> Sink that open further places for the records, such as
        `lambda: fljax.recording.wandb_sink("offline")`; called once the run can start, of several
        processes in the first one.
      config: Written to config.json besides the resolved options.
    """

    eval_every: int = _default("eval_every")
    eval_batch_size: int = _default("eval_batch_size")
    eval_clients: int = _default("eval_clients")
    eval_personal: int = _default("eval_personal")
    target_accuracy: float | None = _default("target_accuracy")
    target: float | None = _default("target")
    stop_at_target: bool = _default("stop_at_target")
    patience: int = _default("patience")
    min_delta: float = _default("min_delta")
    uplink_mbps: float | None = _default("uplink_mbps")
    downlink_mbps: float | None = _default("downlink_mbps")
    workdir: str | Path | None = None
    resume: bool = _default("resume")
    checkpoint_every: int = _default("checkpoint_every")
    keep_checkpoints: int = _default("keep_checkpoints")
    baselines: Sequence[str] = _default("baselines")
    ceremony: bool = _default("ceremony")
    progress: bool = _default("progress")
    matmul_precision: str | None = _default("matmul_precision")
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
            for place, function in enumerate(functions):
                if not callable(function):
                    raise wrong(f"{name}[{place}]", function, f"a function {what}")


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


def round_options_among(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of some options that a `RoundOptions` has: a run without its surroundings."""
    known = {field.name for field in dataclasses.fields(RoundOptions)}
    return {name: value for name, value in options.items() if name in known}


def split_options(options: Mapping[str, Any]) -> tuple[RoundOptions, RunOptions]:
    """Sorts keyword arguments into the two records; refuses unknown names with the nearest."""
    records = {
        record: [field.name for field in dataclasses.fields(record)]
        for record in (RoundOptions, RunOptions)
    }
    known = [name for names in records.values() for name in names]
    for name in options:
        if name in COMPRESSION:
            raise TypeError(
                f"{name} is no option of a round: fljax.simulate and configurations make a "
                "pipeline of it. Give pipeline=Pipeline(uplink=(fljax.compression.uplink(...),))."
            )
        if name not in known:
            further = (*_OF_MODELS, *COMPRESSION)
            raise TypeError(f"simulate has no option {name!r}. {_hint(name, [*known, *further])}")
    for name in ("num_rounds", "clients_per_round"):
        if name not in options:
            raise TypeError(f"simulate needs {name}=...")

    def filled(record):
        return record(**{name: options[name] for name in records[record] if name in options})

    return filled(RoundOptions), filled(RunOptions)


# Arguments of `simulate` that neither record holds.
_OF_MODELS = ("fast_layers", "init_from", "adapters")


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
    **dict.fromkeys(ALGORITHM, "the algorithm, such as fljax.algorithms.fedavg(client_lr=0.1)."),
    "server_optimizer": "the algorithm: fljax.algorithms.fedopt('adam').",
    **dict.fromkeys(DATA, "the data, such as fljax.data.load('mnist', num_clients=100)."),
}


def check_workdir(workdir: str | Path | None) -> None:
    """Raises ValueError for a directory without a name, which would be the current one."""
    if workdir is not None and not str(workdir).strip():
        raise ValueError("--workdir is empty. Give a directory, such as runs/first.")


def check_run_options(options: RunOptions, rounds_per_dispatch: int = 0) -> None:
    """Raises ValueError for options that would be ignored or cannot be."""
    for problem in contradictions({**vars(options), "rounds_per_dispatch": rounds_per_dispatch}):
        raise ValueError(problem)
    check_workdir(options.workdir)
    if options.checkpoint_every and options.workdir is None:
        raise ValueError("checkpoint_every needs a workdir to save the checkpoints in.")
    if rounds_per_dispatch > 1 and options.hooks:
        raise ValueError(
            f"rounds_per_dispatch = {rounds_per_dispatch}, but hooks see the model after every "
            "round. Leave it at 1, or give no hooks."
        )

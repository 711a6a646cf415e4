"""`simulate`: the loop of rounds, evaluations, records and checkpoints around the round program."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fljax import federation as federations
from fljax import tasks
from fljax.algorithm import AlgorithmSpec
from fljax.algorithms import fedavg
from fljax.baselines import check_baselines, run_baselines
from fljax.data.dataset import FederatedDataset
from fljax.engine.execution import use_all_cores
from fljax.evaluations import make_evaluations
from fljax.federation import Federation, RoundOptions
from fljax.recording import (
    Checkpoints,
    Recorder,
    Run,
    Sink,
    progress,
    summarize,
    to_target,
    versions,
)
from fljax.recording.jsonio import plain
from fljax.recording.recorder import CHECKPOINTS
from fljax.records import RoundTotals, round_record

Hook = Callable[[Federation, Mapping[str, Any]], Mapping[str, Any] | None]


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
        They see the model after that round, so the next one waits for them.
      sinks: Functions () -> Sink that open further places for the records, such as
        `lambda: fljax.recording.wandb_sink("offline")`; called once the run can start.
      config: Written to config.json besides the resolved options.
    """

    eval_every: int = 10
    eval_batch_size: int = 0
    eval_clients: int = 0
    eval_personal: int = 0
    target_accuracy: float | None = None
    stop_at_target: bool = False
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


def simulate(
    dataset: FederatedDataset,
    model: Any,
    algorithm: AlgorithmSpec | None = None,
    **options: Any,
) -> Run:
    """Runs a federated simulation.

    Args:
      dataset: The federated data, `fljax.data`.
      model: A task, or what `fljax.tasks.classification` and `next_token` make one of: an NNX
        module factory, a pair of plain functions, ...
      algorithm: From `fljax.algorithms`; FedAvg by default.
      **options: The fields of `RoundOptions` (num_rounds and clients_per_round are needed) and of
        `RunOptions`.

    Returns:
      The run: `summary`, `curves` {key: array}, `variables` (the final model), `baselines`.

    Raises:
      TypeError: For an option that does not exist.
      ValueError: For options that do not fit the data, the model or the memory.
      FloatingPointError: If all clients of a round end with non-finite updates.
    """
    round_options, run_options = split_options(options)
    check_baselines(run_options.baselines)
    use_all_cores()
    setting = (dataset, as_task(model, dataset), algorithm or fedavg(), round_options)
    with _matmul_precision(run_options.matmul_precision):
        run = _simulate(*setting, run_options)
        if run_options.baselines and not run.interrupted:
            run = run_baselines(run, _simulate, *setting, run_options)
    return run


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


def as_task(model: Any, dataset: FederatedDataset) -> tasks.Task:
    """Returns the model as a task that fits the dataset."""
    if isinstance(model, tasks.Task):
        return model
    make = tasks.next_token if dataset.kind == "next_token" else tasks.classification
    return make(model, dataset.num_classes)


def _simulate(dataset, task, algorithm, options: RoundOptions, run_options: RunOptions) -> Run:
    workdir = None if run_options.workdir is None else Path(run_options.workdir)
    with contextlib.ExitStack() as stack:

        def open_checkpoints() -> Checkpoints:
            directory = workdir / CHECKPOINTS
            return stack.enter_context(Checkpoints(directory, keep=run_options.keep_checkpoints))

        checkpoints, start = None, 0
        if run_options.resume:
            if workdir is None:
                raise ValueError("resume needs the workdir of the run to go on with.")
            checkpoints = open_checkpoints()
            start = checkpoints.latest_round() or 0
        if start:
            options = _with_saved_execution(options, checkpoints.metadata(start))
        federation = federations.build(dataset, task, algorithm, options)
        # -1: a run that was killed before its first checkpoint starts again from nothing
        resume_round = (start or -1) if run_options.resume else None
        recorder = stack.enter_context(Recorder(workdir, resume_round=resume_round))
        for open_sink in run_options.sinks:
            recorder.add_sink(open_sink())
        recorder.write_config(_config(federation, run_options))
        loop = _Loop(federation, recorder, open_checkpoints, checkpoints, run_options, start)
        return loop.run()


class _Loop:
    """The rounds of one run; holds what changes from round to round on the host."""

    def __init__(
        self, federation, recorder, open_checkpoints, checkpoints, options: RunOptions, start: int
    ):
        self.federation: Federation = federation
        self.recorder: Recorder = recorder
        self.open_checkpoints: Callable[[], Checkpoints] = open_checkpoints
        self.checkpoints: Checkpoints | None = checkpoints
        self.options = options
        self.start = start
        self.evaluations = make_evaluations(
            federation, options.eval_batch_size, options.eval_clients, options.eval_personal
        )
        self.clients: dict[str, np.ndarray] = {}
        self.totals = RoundTotals()
        self.sampler_state = federation.sampler.init()
        self.pending: deque = deque()
        self.compile_seconds = 0.0
        self.stop_requested = False
        if start:
            self._restore(start)

    def run(self) -> Run:
        federation, options = self.federation, self.options
        num_rounds = federation.options.num_rounds
        bar = progress(num_rounds, self.start, options.progress, label=federation.spec.name)
        self.clock = time.perf_counter()
        done = self.start
        with _finish_round_on_interrupt(self):
            if self.start == 0 and options.eval_every:
                self._evaluate_initial()
            # a resumed run may have reached its target before
            stop = self.start if self.start and self._target_reached() else num_rounds
            plans = federation.plans(self.start, stop, self.sampler_state)
            for plan, facts in plans:
                self._dispatch(plan, facts, num_rounds)
                done = facts.round + 1
                # one round stays in flight, but at an evaluation the devices run dry: it would run
                # beside the next round on a CPU, and neither could be timed
                self._resolve(bar, leave=0 if self.pending[-1][2] or options.hooks else 1)
                if self._save_is_due(done, num_rounds) or self.stop_requested:
                    self._resolve(bar, leave=0)
                    self._save(done)
                if self.stop_requested or self._target_reached():
                    break
            plans.close()
            self._resolve(bar, leave=0)
        bar.close()
        if done == self.start:
            # nothing was left to do, and the metrics of the clients are in no checkpoint
            _, self.clients = self.evaluations.finish(self.evaluations.dispatch(federation))
        return self._finish(done, num_rounds)

    def _dispatch(self, plan, facts, num_rounds: int) -> None:
        begin = time.perf_counter()
        stats = self.federation.step(plan, facts)
        if facts.round == self.start:
            self.compile_seconds = time.perf_counter() - begin
        done = facts.round + 1
        every = self.options.eval_every
        outputs = None
        if done == num_rounds or (every and done % every == 0):
            outputs = self.evaluations.dispatch(self.federation)
        self.sampler_state = facts.sampler_state
        self.pending.append((facts, stats, outputs))

    def _resolve(self, bar, leave: int) -> None:
        """Turns finished rounds into records, leaving the newest ones to the devices."""
        while len(self.pending) > leave:
            facts, stats, outputs = self.pending.popleft()
            stats = jax.device_get(stats)
            now = time.perf_counter()
            record = round_record(facts, stats, self.totals, now - self.clock)
            self.clock = now
            if outputs is not None:
                found, self.clients = self.evaluations.finish(outputs)
                self.clock = time.perf_counter()
                self.totals.elapsed += self.clock - now
                record |= found | {"time/eval_seconds": self.clock - now}
            for hook in self.options.hooks:
                record |= hook(self.federation, record) or {}
            self.recorder.write(record)
            bar.update(record["round"], record)
            check_diverged(record)

    def _evaluate_initial(self) -> None:
        """Records the initial model as round 0."""
        found, _ = self.evaluations.finish(self.evaluations.dispatch(self.federation))
        self.recorder.write({"round": 0} | found)
        self.clock = time.perf_counter()

    def _target_reached(self) -> bool:
        target = self.options.target_accuracy
        if target is None or not self.options.stop_at_target or not self.recorder.records:
            return False
        return to_target(self.recorder.records[-1:], target) is not None

    def _save_is_due(self, done: int, num_rounds: int) -> bool:
        every = self.options.checkpoint_every
        at_end = done == num_rounds or self._target_reached()
        return at_end or (every > 0 and done % every == 0)

    def _state(self) -> dict[str, Any]:
        return {
            "server": self.federation.state,
            "store": self.federation.store.state(),
            "sampler": self.sampler_state,
        }

    def _save(self, done: int) -> None:
        if self.options.workdir is None:
            return
        self.checkpoints = self.checkpoints or self.open_checkpoints()
        self.recorder.flush()
        metadata = {
            "execution": self.federation.execution._asdict(),
            "totals": dataclasses.asdict(self.totals),
            "store_rows": self.federation.store.num_rows,
        }
        self.checkpoints.save(done, self._state(), metadata)

    def _restore(self, round: int) -> None:
        metadata = self.checkpoints.metadata(round)
        store = self.federation.store
        template = self._state() | {"store": store.template(metadata["store_rows"])}
        state, _ = self.checkpoints.restore(round, template)
        self.federation.load(state["server"], state["store"])
        self.sampler_state = state["sampler"]
        self.totals = RoundTotals(**metadata["totals"])

    def _finish(self, done: int, num_rounds: int) -> Run:
        federation, recorder = self.federation, self.recorder
        interrupted = self.stop_requested and done < num_rounds
        summary = summarize(
            recorder.records,
            num_clients=federation.dataset.num_clients,
            clients_per_round=federation.options.clients_per_round,
            seed=federation.options.seed,
            target_accuracy=self.options.target_accuracy,
            compile_seconds=self.compile_seconds,
        )
        summary["interrupted"] = interrupted
        if not interrupted:
            recorder.write_summary(summary)
            if self.clients:
                recorder.write_clients(self.clients)
        return Run(
            directory=None if recorder.workdir is None else recorder.workdir,
            config=_config(federation, self.options),
            summary=summary,
            rounds=np.array([record["round"] for record in recorder.records], np.int64),
            curves=recorder.curves(),
            client_metrics=self.clients or None,
            baselines={},
            variables=federation.variables,
            interrupted=interrupted,
        )


def check_diverged(record: Mapping[str, Any]) -> None:
    """Stops a run whose clients all diverged; warns of single ones."""
    diverged = record.get("train/clients_nonfinite", 0)
    if not diverged:
        return
    if record["train/clients"] == 0:
        raise FloatingPointError(
            f"Round {record['round']}: all {diverged} clients ended with a NaN or infinite update. "
            "Lower client_lr (or server_lr), or look for NaN in the data."
        )
    warnings.warn(
        f"Round {record['round']}: {diverged} client(s) ended with a NaN or infinite update and "
        "were left out; see train/clients_nonfinite.",
        stacklevel=2,
    )


def _config(federation: Federation, options: RunOptions) -> dict[str, Any]:
    """Returns config.json: every resolved value."""
    resolved = {
        name: getattr(federation.options, name)
        for name in (field.name for field in dataclasses.fields(RoundOptions))
        if name not in ("pipeline", "initial_params", "cohorts", "steps_per_round", "sampler")
        and not callable(getattr(federation.options, name))
    }
    if isinstance(federation.options.sampler, str):
        resolved["sampler"] = federation.options.sampler
    own = {
        name: getattr(options, name)
        for name in (field.name for field in dataclasses.fields(RunOptions))
        if name not in ("workdir", "resume", "progress", "hooks", "sinks", "config")
    }
    return plain(
        resolved
        | own
        | {"algorithm": federation.spec.name, "hparams": dict(federation.spec.hparams)}
        | {"dataset": federation.dataset.name}
        | dict(options.config or {})
        | {
            "num_clients": federation.dataset.num_clients,
            "execution": federation.execution._asdict(),
            "numerics": {
                "matmul_precision": options.matmul_precision
                or jax.config.jax_default_matmul_precision
                or "default",
                "prng": str(jax.config.jax_default_prng_impl),
                "x64": bool(jax.config.jax_enable_x64),
                "xla_flags": os.environ.get("XLA_FLAGS", ""),
                "platform": jax.default_backend(),
            },
            "versions": versions(),
        }
    )


def _with_saved_execution(options: RoundOptions, metadata: Mapping[str, Any]) -> RoundOptions:
    """A resumed run lays its jobs out as before, so that it repeats every rounding."""
    saved = metadata["execution"]
    return dataclasses.replace(
        options,
        devices=saved["devices"],
        lanes=saved["lanes"],
        wave=saved["wave"],
        placement=saved["placement"],
    )


def _matmul_precision(precision: str | None):
    return (
        contextlib.nullcontext() if precision is None else jax.default_matmul_precision(precision)
    )


@contextlib.contextmanager
def _finish_round_on_interrupt(loop: _Loop):
    """Lets Ctrl-C end the run after the current round; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request_stop(number, frame):
        if loop.stop_requested:
            raise KeyboardInterrupt
        loop.stop_requested = True

    previous = signal.signal(signal.SIGINT, request_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)

"""The loop of rounds: dispatch, record, evaluate, save, and stop when asked to."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from fljax.evaluations import make_evaluations
from fljax.federation import Federation
from fljax.options import RunOptions
from fljax.recording import Checkpoints, Recorder, Run, progress, summarize, to_target
from fljax.recording.jsonio import plain
from fljax.records import RoundTotals, round_record


class Loop:
    """The rounds of one run; holds what changes from round to round on the host.

    Args:
      federation: What is trained.
      recorder: Where records go.
      checkpoints: () -> the run's Checkpoints, opened when first asked for.
      config: What the run's `config.json` holds.
      options: What surrounds the rounds.
      start: Rounds that a resumed run has completed.
    """

    def __init__(
        self,
        federation: Federation,
        recorder: Recorder,
        checkpoints: Callable[[], Checkpoints],
        config: Mapping[str, Any],
        options: RunOptions,
        start: int,
    ):
        self.federation = federation
        self.recorder = recorder
        self.checkpoints = checkpoints
        self.config = config
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
        self.recorder.flush()
        metadata = {
            "execution": self.federation.execution._asdict(),
            "identity": identity(self.federation),
            "totals": dataclasses.asdict(self.totals),
            "store_rows": self.federation.store.num_rows,
        }
        self.checkpoints().save(done, self._state(), metadata)

    def _restore(self, round: int) -> None:
        metadata = self.checkpoints().metadata(round)
        check_identity(identity(self.federation), metadata["identity"], round)
        store = self.federation.store
        template = self._state() | {"store": store.template(metadata["store_rows"])}
        state, _ = self.checkpoints().restore(round, template)
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
            directory=recorder.workdir,
            config=self.config,
            summary=summary,
            rounds=np.array([record["round"] for record in recorder.records], np.int64),
            curves=recorder.curves(),
            client_metrics=self.clients or None,
            baselines={},
            variables=federation.variables,
            interrupted=interrupted,
        )


def identity(federation: Federation) -> dict[str, Any]:
    """Returns what must not change when a run is resumed."""
    options = federation.options
    names = ("clients_per_round", "local_epochs", "local_steps", "batch_size", "remainder")
    return plain(
        {"algorithm": federation.spec.name}
        | dict(federation.spec.hparams)
        | {"dataset": federation.dataset.name, "num_clients": federation.dataset.num_clients}
        | {name: getattr(options, name) for name in (*names, "shuffle", "seed")}
    )


def check_identity(now: Mapping[str, Any], saved: Mapping[str, Any], round: int) -> None:
    """Raises ValueError if a checkpoint belongs to another configuration."""
    changed = [
        f"{name} was {saved.get(name)!r} and is {now.get(name)!r}"
        for name in saved | now
        if saved.get(name) != now.get(name)
    ]
    if changed:
        raise ValueError(
            f"The checkpoint of round {round} was written under another configuration: "
            f"{'; '.join(changed)}. Resume with the values in the run's config.json, or use "
            "another --workdir."
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


@contextlib.contextmanager
def _finish_round_on_interrupt(loop: Loop):
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

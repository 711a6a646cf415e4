"""The loop of rounds: dispatch, record, evaluate, save, and stop when asked to."""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fljax.core import signals
from fljax.core.metrics import target_of
from fljax.data.ids import some_of
from fljax.data.rows import nonfinite_row
from fljax.engine.devices.compilation import compiled_seconds
from fljax.engine.devices.distributed import is_main
from fljax.engine.devices.placement import any_process
from fljax.engine.plan.blocks import unstack
from fljax.engine.plan.round_plan import HostPlan
from fljax.recording import Checkpoints, Recorder, Run, summarize, to_target
from fljax.recording import progress as progress_bar
from fljax.recording.client_results import ClientResults
from fljax.recording.runs import CLIENTS
from fljax.training.evaluations import make_evaluations
from fljax.training.federation import Federation
from fljax.training.model_files import ModelFiles
from fljax.training.options import RunOptions
from fljax.training.resume import Progress, save
from fljax.training.round_records import LinkSpeeds, round_record
from fljax.training.stopping import STOPPED, Validation, call_hooks


class Loop:
    """The rounds of one run; holds what changes from round to round on the host.

    Args:
      federation: What is trained.
      recorder: Where records go.
      checkpoints: () -> the run's Checkpoints, opened when first asked for.
      config: What the run's `config.json` holds.
      options: What surrounds the rounds.
      progress: Where the run starts, or goes on.
    """

    def __init__(
        self,
        federation: Federation,
        recorder: Recorder,
        checkpoints: Callable[[], Checkpoints],
        config: Mapping[str, Any],
        options: RunOptions,
        progress: Progress,
    ):
        self.federation = federation
        self.recorder = recorder
        self.checkpoints = checkpoints
        self.config = config
        self.options = options
        self.start = progress.round
        self.evaluations = make_evaluations(
            federation, options.eval_batch_size, options.eval_clients, options.eval_personal
        )
        self.clients = ClientResults(self._earlier_clients(), self.start)
        self.metric = federation.task.metrics[0]
        self.target = target_of(vars(options))
        self.validation = Validation(
            self.metric, options.patience, options.min_delta, recorder.records
        )
        self.models = ModelFiles(federation, progress.best)
        self.ended_elsewhere = False
        self.totals = progress.totals
        self.sampler_state = progress.sampler_state
        self.pending: deque = deque()
        self.compile_seconds = 0.0
        self.stop_requested = False
        self.stop_agreed = False

    def run(self) -> Run:
        federation = self.federation
        num_rounds = federation.options.num_rounds
        name = federation.spec.name
        # a resumed run may have come to its end before
        stop = self.start if self.start and self._ended else num_rounds
        with contextlib.ExitStack() as stack:
            stack.enter_context(signals.finishing(self))
            planned = federation.blocks(
                range(self.start, stop), self.sampler_state, ends=self._must_stop_after
            )
            stack.enter_context(contextlib.closing(planned))
            blocks = self._prepared(planned)
            shown = self.options.progress and is_main()
            bar = progress_bar(num_rounds, self.start, shown, label=name, metric=self.metric)
            stack.callback(bar.close)
            self.clock = time.perf_counter()
            done = self._rounds(blocks, bar, num_rounds)
        if done == self.start:
            # nothing was left to do, and the metrics of the clients are in no checkpoint
            _, clients = self.evaluations.finish(self.evaluations.dispatch(federation, done))
            self.clients.add(done, clients)
        return self._finish(done, num_rounds)

    def _prepared(self, planned: Iterator) -> Iterator:
        """Compiles the first block's program, and beside it that of the initial evaluation."""
        begin = time.perf_counter()
        first = list(itertools.islice(planned, 1))
        # processes compile in one order, or those that share what they find wait for each other
        alone = not self.federation.mesh.is_multi_process
        wait = self.federation.compile_block(*first[0]) if first and alone else None
        outputs = None
        if self.start == 0 and self.options.eval_every:
            outputs = self.evaluations.dispatch(self.federation, 0)
        if wait is not None:
            wait()
        self.compile_seconds += time.perf_counter() - begin
        if outputs is not None:
            found, clients = self.evaluations.finish(outputs)
            self.clients.add(0, clients)
            self._record({"round": 0} | found)
        return itertools.chain(first, planned)

    def _rounds(self, planned, bar, num_rounds: int) -> int:
        """Runs the planned blocks; returns how many rounds the run has completed."""
        done = self.start
        for plan, facts in planned:
            self._dispatch(plan, facts, num_rounds)
            done = facts[-1].round + 1
            # one block stays in flight, but at an evaluation the devices run dry: it would run
            # beside the next round on a CPU, and neither could be timed
            self._resolve(bar, leave=0 if self.pending[-1][2] or self.options.hooks else 1)
            stopping = self._stopping
            if self._save_is_due(done, num_rounds) or stopping:
                self._resolve(bar, leave=0)
                self._save(done)
            if stopping or self._ended:
                break
        self._resolve(bar, leave=0)
        return done

    def _dispatch(self, plan, facts: Sequence[HostPlan], num_rounds: int) -> None:
        compiled = compiled_seconds()
        stats = self.federation.step_block(plan, facts)
        done = facts[-1].round + 1
        outputs = None
        if done == num_rounds or _due(done, self.options.eval_every):
            outputs = self.evaluations.dispatch(self.federation, done)
        # it weighs on no rate and no estimate
        compiled = compiled_seconds() - compiled
        self.compile_seconds += compiled
        self.clock += compiled
        self.sampler_state = facts[-1].sampler_state
        vote = any_process(self.stop_requested, self.federation.mesh)
        self.pending.append((facts, stats, outputs, vote))

    def _resolve(self, bar, leave: int) -> None:
        """Turns finished blocks into records, leaving the newest ones to the devices."""
        while len(self.pending) > leave:
            facts, stats, outputs, vote = self.pending.popleft()
            each = unstack(jax.device_get(stats), len(facts))
            self.stop_agreed |= bool(vote)
            now = time.perf_counter()
            seconds = (now - self.clock) / len(facts)
            speeds = LinkSpeeds(self.options.uplink_mbps, self.options.downlink_mbps)
            records = [
                round_record(*one, self.totals, seconds, speeds)
                for one in zip(facts, each, strict=True)
            ]
            self.clock = now
            if outputs is not None:
                found, clients = self.evaluations.finish(outputs)
                self.clients.add(facts[-1].round + 1, clients)
                self.clock = time.perf_counter()
                self.totals.elapsed += self.clock - now
                records[-1] |= found | {"time/eval_seconds": self.clock - now}
            for record, one, found in zip(records, facts, each, strict=True):
                call_hooks(self.options.hooks, self.federation, record)
                self._record(record)
                bar.update(record["round"], record)
                check_diverged(record, one.clients[found[-1]["nonfinite"] > 0], self.federation)
            if outputs is not None:
                self._agree_to_end()

    def _record(self, record: dict[str, Any]) -> None:
        """Writes a record; keeps the model if its evaluation is the best so far."""
        self.recorder.write(record)
        if self.validation.see(record):
            self.models.keep(record["round"])

    def _must_stop_after(self, round: int) -> bool:
        """Whether the host wants the state after this round; asked in the planner's thread."""
        due = _due(round + 1, self.options.eval_every) or _due(
            round + 1, self.options.checkpoint_every
        )
        return due or bool(self.options.hooks)

    def _earlier_clients(self) -> Path | None:
        """Returns the file of what a resumed run found of its clients before."""
        workdir = self.options.workdir
        return Path(workdir) / CLIENTS if self.start and workdir is not None else None

    @property
    def _stopping(self) -> bool:
        """Whether to end early; several processes end after the same round, or hang."""
        alone = not self.federation.mesh.is_multi_process
        return self.stop_requested if alone else self.stop_agreed

    @property
    def _ended(self) -> str | None:
        """Why the run ends after its last record, or None; interruptions are none of it."""
        last = self.recorder.records[-1:]
        if self.options.stop_at_target and to_target(last, self.target, self.metric) is not None:
            return f"target_{self.metric.name} = {self.target} is reached"
        if last and STOPPED in last[0]:
            return last[0][STOPPED]
        if self.validation.exhausted:
            return self.validation.exhausted
        return "another process ended the run" if self.ended_elsewhere else None

    def _agree_to_end(self) -> None:
        """Of several processes all end where one does: hosts may round their metrics apart."""
        if self.federation.mesh.is_multi_process:
            vote = any_process(self._ended is not None, self.federation.mesh)
            self.ended_elsewhere = bool(vote)

    def _save_is_due(self, done: int, num_rounds: int) -> bool:
        at_end = done == num_rounds or self._ended is not None
        return at_end or _due(done, self.options.checkpoint_every)

    def _save(self, done: int) -> None:
        if self.options.workdir is None:
            return
        extent = self.recorder.flush()
        self.models.write_best(self.recorder.workdir)
        self.clients.write(self.recorder.write_clients)
        progress = Progress(done, self.totals, self.sampler_state, self.models.best, extent)
        save(self.checkpoints, self.federation, progress, self.options)

    def _finish(self, done: int, num_rounds: int) -> Run:
        federation, recorder = self.federation, self.recorder
        stopped = self._ended if done < num_rounds else None
        interrupted = self._stopping and done < num_rounds and stopped is None
        summary = summarize(
            recorder.records,
            num_clients=federation.dataset.num_clients,
            clients_per_round=federation.options.clients_per_round,
            seed=federation.options.seed,
            metric=self.metric,
            target=self.target,
            compile_seconds=self.compile_seconds,
        )
        summary["interrupted"] = interrupted
        summary["stopped"] = stopped
        if not interrupted:
            self.models.write_final(recorder.workdir, done)
            self.clients.write(recorder.write_clients)
            if self.options.workdir is not None and is_main():
                self.checkpoints().wait()
            # the last of all: with it, the run is over, and a kill takes nothing from it any more
            recorder.write_summary(summary)
        return Run(
            directory=recorder.workdir,
            config=self.config,
            summary=summary,
            rounds=np.array([record["round"] for record in recorder.records], np.int64),
            curves=recorder.curves(),
            client_metrics=self.clients.arrays() or None,
            baselines={},
            variables=federation.variables,
            interrupted=interrupted,
            stopped=stopped,
            best_variables=self.models.best and self.models.best.variables,
            frozen=federation.inputs.frozen,
            about_model=self.models.about(done),
        )


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def check_diverged(record: Mapping[str, Any], clients: np.ndarray, federation: Federation) -> None:
    """Stops a run whose clients all diverged; warns of single ones, by their ids.

    Args:
      record: Of the round.
      clients: int[diverged jobs], whose updates were not finite.
      federation: What is trained.
    """
    diverged = record.get("train/clients_nonfinite", 0)
    if not diverged:
        return
    dataset = federation.dataset
    clients = np.unique(clients)
    named = some_of(clients if dataset.client_ids is None else dataset.client_ids[clients])
    # what a preprocess makes of its rows is its own affair
    found = "" if dataset.preprocess else nonfinite_row(dataset.train, clients)
    if record["train/clients"] == 0:
        raise FloatingPointError(
            f"Round {record['round']}: all {diverged} clients ended with a NaN or infinite update: "
            f"{named}. " + (found or "Lower client_lr (or server_lr).")
        )
    warnings.warn(
        f"Round {record['round']}: {diverged} client(s) ended with a NaN or infinite update and "
        f"were left out: {named}. {found}See train/clients_nonfinite.",
        stacklevel=2,
    )

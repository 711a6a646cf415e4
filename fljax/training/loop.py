"""The loop of rounds: dispatch, record, evaluate, save, and stop when asked to."""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.core import signals
from fljax.core.metrics import target_of
from fljax.engine.devices.distributed import is_main
from fljax.engine.devices.placement import any_process
from fljax.engine.plan.feedback import make_feedback
from fljax.engine.plan.round_plan import HostPlan
from fljax.recording import Checkpoints, Recorder, Run, summarize, to_target
from fljax.recording import progress as progress_bar
from fljax.recording.client_results import ClientResults
from fljax.recording.runs import CLIENTS, TIMELINE
from fljax.recording.timeline import Timeline
from fljax.training.dispatch import Block, Dispatcher
from fljax.training.divergence import check_diverged
from fljax.training.drift import alarm
from fljax.training.evaluations import make_evaluations
from fljax.training.federation import Federation
from fljax.training.model_files import ModelFiles
from fljax.training.options import RunOptions
from fljax.training.privacy_records import ledger_of
from fljax.training.resume import ResumePoint, save
from fljax.training.round_records import LinkSpeeds, diverged, round_record
from fljax.training.selection_summary import of_selection
from fljax.training.stopping import STOPPED, Validation, call_hooks


class Loop:
    """The rounds of one run; holds what changes from round to round on the host.

    Args:
      federation: What is trained.
      recorder: Where records go.
      checkpoints: () -> the run's Checkpoints, opened when first asked for.
      config: What the run's `config.json` holds.
      options: Those around the rounds.
      progress: Where the run starts, or goes on.
      parts: {name: part} that join the summary.
    """

    def __init__(
        self,
        federation: Federation,
        recorder: Recorder,
        checkpoints: Callable[[], Checkpoints],
        config: Mapping[str, Any],
        options: RunOptions,
        progress: ResumePoint,
        parts: Mapping[str, Any],
    ):
        self.federation = federation
        self.recorder = recorder
        self.checkpoints = checkpoints
        self.config = config
        self.options = options
        self.parts = parts
        self.start = progress.round
        self.ledger = ledger_of(federation.options, federation.trials[0].hparams)
        self.num_rounds = federation.options.num_rounds
        if self.ledger is not None:
            self.num_rounds = self.ledger.last_round(self.num_rounds)
        self.evaluations = make_evaluations(
            federation, options.eval_batch_size, options.eval_clients, options.eval_personal
        )
        self.clients = ClientResults(self._earlier(CLIENTS), self.start)
        dataset = federation.dataset
        self.timeline = Timeline(
            dataset.num_clients, dataset.client_ids, self._earlier(TIMELINE), self.start,
            progress.turns,
        )  # fmt: skip
        self.metric = federation.task.metrics[0]
        self.target = target_of(vars(options))
        self.validation = Validation(
            self.metric, options.patience, options.min_delta, recorder.records
        )
        self.models = ModelFiles(federation, progress.best)
        self.ended_elsewhere = False
        self.totals = progress.totals
        self.sampler_state = progress.sampler_state
        self.feedback = make_feedback(federation.cohorts.feedback, progress.feedback)
        self.dispatcher = Dispatcher(
            federation, self._beside, self._is_drained, self._is_over, self.feedback
        )
        self.preparing_seconds = 0.0
        self.stop_requested = False
        self.stop_agreed = False

    def run(self) -> Run:
        federation = self.federation
        num_rounds = federation.options.num_rounds
        name = federation.spec.name
        # a resumed run may have come to its end before
        stop = self.start if self.start and self._ended else self.num_rounds
        with contextlib.ExitStack() as stack:
            stack.enter_context(signals.finishing(self))
            planned = federation.blocks(
                range(self.start, stop),
                self.sampler_state,
                ends=self._must_stop_after,
                feedback=self.feedback,
            )
            stack.enter_context(contextlib.closing(planned))
            blocks = self._prepared(planned)
            shown = self.options.progress and is_main()
            bar = progress_bar(num_rounds, self.start, shown, label=name, metric=self.metric)
            stack.callback(bar.close)
            done = self._rounds(blocks, bar)
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
        self.preparing_seconds = time.perf_counter() - begin
        if outputs is not None:
            found, clients = self.evaluations.finish(outputs)
            self.clients.add(0, clients)
            self._record({"round": 0} | self._of_privacy(0) | found)
        return itertools.chain(first, planned)

    def _rounds(self, planned: Iterator, bar) -> int:
        """Runs the planned blocks; returns how many rounds the run has completed."""
        done = saved = self.start
        clock = _Clock(self.dispatcher)
        for block in self.dispatcher.run(planned):
            self._add(block, clock, bar)
            done = block.facts[-1].round + 1
            if self._save_is_due(done):
                self._save(done)
                saved = done
        if self._stopping and done > saved:
            self._save(done)
        return done

    def _beside(self, facts: Sequence[HostPlan]) -> _Beside:
        """Dispatches the evaluation after a block where one is due, and the vote on stopping."""
        done, outputs = facts[-1].round + 1, None
        if self._is_last(done) or _due(done, self.options.eval_every):
            outputs = self.evaluations.dispatch(self.federation, done)
        return _Beside(outputs, any_process(self.stop_requested, self.federation.mesh))

    def _is_drained(self, facts: Sequence[HostPlan]) -> bool:
        """Returns whether the devices run dry after a block.

        An evaluation would run beside the next round on a CPU, and neither could be timed.
        """
        return self._must_stop_after(facts[-1].round) or self._is_last(facts[-1].round + 1)

    def _add(self, block: Block, clock: _Clock, bar) -> None:
        """Turns a block that has run into records."""
        outputs, vote = block.beside
        self.sampler_state = block.facts[-1].sampler_state
        self.stop_agreed |= bool(vote)
        seconds = clock.lap() / len(block.facts)
        speeds = LinkSpeeds(self.options.uplink_mbps, self.options.downlink_mbps)
        dataset = self.federation.dataset
        records = [
            round_record(facts, stats, self.totals, seconds, speeds, dataset.groups, dataset.root)
            | self._of_privacy(facts.round + 1)
            | self._of_sampler(facts)
            for facts, stats in zip(block.facts, block.stats, strict=True)
        ]
        if outputs is not None:
            found, clients = self.evaluations.finish(outputs)
            self.clients.add(block.facts[-1].round + 1, clients)
            evaluating = clock.lap()
            self.totals.elapsed += evaluating
            records[-1] |= found | {"time/eval_seconds": evaluating}
        for record, facts, stats in zip(records, block.facts, block.stats, strict=True):
            call_hooks(self.options.hooks, self.federation, record)
            self._record(record)
            bar.update(record["round"], record)
            self.timeline.add(record["round"], facts.spans[0])
            check_diverged(record, facts.clients[diverged(stats)], self.federation)
            if said := alarm(record, self.totals):
                warnings.warn(said, stacklevel=2)
        if outputs is not None:
            self._agree_to_end()

    def _of_sampler(self, facts: HostPlan) -> dict[str, int]:
        """Returns how many rounds lie between a cohort and what its sampler knew last."""
        if self.feedback is None or facts.round <= self.feedback.delay:
            return {}
        return {"sampler/feedback_delay": self.feedback.delay}

    def _of_privacy(self, done: int) -> dict[str, float]:
        """Returns what the rounds so far have spent, of a private run."""
        if self.ledger is None:
            return {}
        return self.ledger.record(done, is_last=self._is_last(done))

    def _record(self, record: dict[str, Any]) -> None:
        """Writes a record; keeps the model if its evaluation is the best so far."""
        self.recorder.write(record)
        if self.validation.see(record):
            self.models.keep(record["round"])

    def _must_stop_after(self, round: int) -> bool:
        """Returns whether the host wants a round's state; asked in the planner's thread."""
        due = _due(round + 1, self.options.eval_every) or _due(
            round + 1, self.options.checkpoint_every
        )
        return due or bool(self.options.hooks)

    def _earlier(self, name: str) -> Path | None:
        """Returns a file of what a resumed run found before."""
        workdir = self.options.workdir
        return Path(workdir) / name if self.start and workdir is not None else None

    @property
    def _stopping(self) -> bool:
        """Says whether to end early; several processes end after the same round, or hang."""
        alone = not self.federation.mesh.is_multi_process
        return self.stop_requested if alone else self.stop_agreed

    @property
    def _ended(self) -> str | None:
        """Says why the run ends after its last record, or None; interruptions are none of it."""
        last = self.recorder.records[-1:]
        if self.options.stop_at_target and to_target(last, self.target, self.metric) is not None:
            return f"target_{self.metric.name} = {self.target} is reached"
        if last and STOPPED in last[0]:
            return last[0][STOPPED]
        if self.validation.exhausted:
            return self.validation.exhausted
        if last and last[0]["round"] == self.num_rounds < self.federation.options.num_rounds:
            return self.ledger.why_over()
        return "another process ended the run" if self.ended_elsewhere else None

    def _is_over(self) -> bool:
        return self._stopping or self._ended is not None

    def _agree_to_end(self) -> None:
        """Of several processes all end where one does: hosts may round their metrics apart."""
        if self.federation.mesh.is_multi_process:
            vote = any_process(self._ended is not None, self.federation.mesh)
            self.ended_elsewhere = bool(vote)

    def _is_last(self, done: int) -> bool:
        return done == self.num_rounds

    def _save_is_due(self, done: int) -> bool:
        at_end = self._is_last(done) or self._ended is not None
        return at_end or _due(done, self.options.checkpoint_every)

    def _save(self, done: int) -> None:
        if self.options.workdir is None:
            return
        extent = self.recorder.flush()
        self.models.write_best(self.recorder.workdir)
        self._write_arrays()
        pending = {} if self.feedback is None else self.feedback.pending
        progress = ResumePoint(
            done, self.totals, self.sampler_state, self.models.best, extent, pending,
            self.timeline.turns(),
        )  # fmt: skip
        save(self.checkpoints, self.federation, progress, self.options)

    def _write_arrays(self) -> None:
        self.clients.write(self.recorder.write_clients)
        self.timeline.write(self.recorder.write_timeline)

    def _finish(self, done: int, num_rounds: int) -> Run:
        federation, recorder = self.federation, self.recorder
        stopped = self._ended if done < num_rounds else None
        interrupted = self._stopping and done < num_rounds and stopped is None
        summary = summarize(
            recorder.records,
            num_clients=federation.dataset.members,
            clients_per_round=federation.options.clients_per_round,
            seed=federation.options.seed,
            metric=self.metric,
            target=self.target,
            compile_seconds=self.preparing_seconds + self.dispatcher.compile_seconds,
        )
        if summary["no_best"] and is_main():
            warnings.warn(
                f"No round is the best: {summary['no_best']}. The first metric of a task chooses; "
                "see its formula, and what it is given.",
                stacklevel=2,
            )
        summary["interrupted"] = interrupted
        summary["stopped"] = stopped
        summary |= self.parts
        summary |= of_selection(self.federation, self.timeline)
        if federation.dataset.checks:
            summary["data_checks"] = dict(federation.dataset.checks)
        if self.ledger is not None:
            summary["privacy"] = self.ledger.summary(done, federation.dataset.client_ids)
        if not interrupted:
            self.models.write_final(recorder.workdir, done)
            self._write_arrays()
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
            timeline=self.timeline.arrays() or None,
        )


class _Beside(NamedTuple):
    """The companion of a block: an evaluation or None, and whether to stop."""

    outputs: Any
    vote: Any


class _Clock:
    """Measures laps; what compiles in them counts as no time, since no estimate shall hold it."""

    def __init__(self, dispatcher: Dispatcher):
        self._dispatcher = dispatcher
        self._compiled = dispatcher.compile_seconds
        self._begin = time.perf_counter()

    def lap(self) -> float:
        """Returns the seconds since the last lap."""
        now, compiled = time.perf_counter(), self._dispatcher.compile_seconds
        seconds = now - self._begin - (compiled - self._compiled)
        self._begin, self._compiled = now, compiled
        return seconds


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0

"""Accelerators that are made up: what a round takes on so many lanes is a formula."""

import functools
from types import SimpleNamespace

import numpy as np

from fljax.engine.devices.execution import ExecutionPlan, Forms
from fljax.engine.devices.memory import DoesNotFit
from fljax.engine.plan.lanes import assign_lanes
from fljax.training import autotuning
from fljax.training.autotuning import Allowance, Timing, calibrate

FORMS = Forms()


@functools.cache
def _steps_of_round(steps, lanes):
    """Returns the steps of a round, and its exchanges as the steps that take as long, at best."""
    steps = np.array(steps)
    if lanes == 1 or len({*steps.tolist()}) == 1:
        sizes = {lanes}
    else:
        sizes = {max(2, lanes >> power) for power in range(5)}
    return min(
        assign_lanes(steps, 1, lanes, 2 * len(steps), size).makespan
        + 1.5 * np.ceil(len(steps) / size)
        for size in sizes
    )


class Machine:
    """An accelerator on which a step of L lanes takes start + each * L seconds."""

    def __init__(
        self, steps, start, each, *, overhead=1e-3, most_lanes=10**9, rule=64, speed=lambda forms: 1
    ):
        self.steps, self.line, self.overhead = steps, (start, each), overhead
        self.most_lanes, self.rule, self.speed, self.tried = most_lanes, rule, speed, []

    def seconds(self, lanes, forms=FORMS):
        start, each = self.line
        step = (start + each * lanes) / self.speed(forms)
        return self.overhead + _steps_of_round(tuple(self.steps), lanes) * step

    def assemble(self, layout):
        lanes = min(self.rule, len(self.steps)) if layout is None else layout.lanes
        forms = FORMS if layout is None else layout.forms
        return SimpleNamespace(
            execution=ExecutionPlan(1, lanes, lanes, 1, "device", forms),
            planner=SimpleNamespace(
                capacities=SimpleNamespace(cohort=len(self.steps), jobs=len(self.steps))
            ),
            mesh=SimpleNamespace(local_devices=[SimpleNamespace(platform="gpu")]),
            options=SimpleNamespace(devices=0, rounds_per_dispatch=0),
            store=SimpleNamespace(row_bytes=0),
            cohorts=SimpleNamespace(feedback="none"),
        )

    def timed(self, assemble, layout, allowance=None):
        federation = assemble(layout)
        lanes, forms = federation.execution.lanes, federation.execution.forms
        self.tried.append(lanes if forms == FORMS else forms)
        if lanes > self.most_lanes:
            raise DoesNotFit(federation.execution, "too little.")
        jobs = SimpleNamespace(steps=self.steps[None], client=np.zeros((1, len(self.steps))))
        plan = SimpleNamespace(passes=[SimpleNamespace(jobs=jobs)])
        seconds = self.seconds(lanes, forms)
        return Timing(federation, plan, None, 1.0, 1, seconds, self.overhead, built=5.0)

    def again(self, timing):
        execution = timing.federation.execution
        seconds = self.seconds(execution.lanes, execution.forms)
        return timing._replace(seconds=seconds, overhead=self.overhead)

    def search(self, monkeypatch, allowance=None, memory=None, changes=()):
        monkeypatch.setattr(autotuning, "_timed", self.timed)
        monkeypatch.setattr(autotuning, "_again", self.again)
        allowance = allowance or Allowance(10**9)
        return calibrate(self.assemble, memory, {}, allowance, lambda: changes).execution

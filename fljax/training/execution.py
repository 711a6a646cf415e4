"""Chooses devices, lanes and waves for a run, by rule or by timing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.core.task import Task
from fljax.data.dataset import FederatedDataset
from fljax.engine.devices.execution import (
    ClientBytes,
    ExecutionPlan,
    Forms,
    choose,
    clients_of_size,
    make_mesh,
)
from fljax.engine.plan.batching import LocalWork
from fljax.engine.plan.lanes import shared_exchange_size
from fljax.training.flops import training_flops
from fljax.training.options import RoundOptions

# What the launches of an exchange cost on accelerators, in steps that are launches alone. What its
# jobs read and write they do so in any case, however many exchange together.
EXCHANGE_STEPS = 1.5
# A guess at a step on an accelerator: seconds of its launches, bytes a second, and how often a step
# reads or writes what it needs memory for (4 to 6 times in the workloads of the benchmarks).
_LAUNCH_SECONDS, _BANDWIDTH, _TOUCHES = 4e-5, 3e12, 5
# Runs of fewer rounds, or on CPUs of less time, are over before a timing has paid for itself.
_CALIBRATED_ROUNDS = 50
_CALIBRATED_SECONDS = 5.0
# A guess at what a CPU takes, on the high side: a round without jobs, a job without steps, a step
# without arithmetic; and operations a second.
_ROUND_SECONDS, _JOB_SECONDS, _STEP_SECONDS, _CPU_FLOPS = 1e-3, 1e-4, 5e-5, 5e9


class JobLayout(NamedTuple):
    """A layout of jobs that was timed, saved or found to fit, instead of one by rule.

    Attributes:
      devices, lanes: Their numbers.
      wave: Slots of a wave; 0 is by rule.
      placement: Where data lie; None is as the options say.
      rounds_per_dispatch: Rounds of a dispatch; 0 is as the options say.
      forms: The forms in which operations are computed.
    """

    devices: int
    lanes: int
    wave: int = 0
    placement: str | None = None
    rounds_per_dispatch: int = 0
    forms: Forms = Forms()

    @classmethod
    def of_checkpoint(cls, saved: Mapping[str, Any]) -> JobLayout:
        """Returns the layout under which a checkpoint was taken, so that rounding repeats.

        Args:
          saved: `Federation.layout`, as the checkpoint holds it.

        Raises:
          ValueError: If there are fewer devices now.
        """
        if saved["devices"] > jax.device_count():
            raise ValueError(
                f"The run was laid out on {saved['devices']} devices, and JAX sees "
                f"{jax.device_count()}. Resume it on a machine like the first one, or start again "
                "in another --workdir."
            )
        numbers = {name: saved[name] for name in cls._fields if name != "forms"}
        return cls(**numbers, forms=Forms.of_layout(saved))


def layout_to_go_on_with(
    saved: Mapping[str, Any] | None, narrower: JobLayout | None
) -> dict[str, Any]:
    """Returns the arguments of `fljax.training.federation.build` that say where jobs run.

    Args:
      saved: The layout of the checkpoint that is gone on from, if there is one.
      narrower: What is left of a layout on which memory ran out, if it did.
    """
    layout = None if saved is None else JobLayout.of_checkpoint(saved)
    if narrower is None or (layout is not None and layout.lanes <= narrower.lanes):
        return {"layout": layout}
    if layout is not None:
        narrower = layout._replace(lanes=narrower.lanes, wave=narrower.wave)
    return {"layout": narrower, "is_narrower": True}


def plan_execution(
    dataset: FederatedDataset,
    max_jobs: int,
    param_bytes: int,
    steps: np.ndarray,
    options: RoundOptions,
    client: ClientBytes | None = None,
    *,
    needs_stack: bool = False,
) -> ExecutionPlan:
    """Chooses the execution plan of a run.

    Args:
      dataset: The federated data.
      max_jobs: Largest number of jobs in a round.
      param_bytes: Size of one model.
      steps: int64[N] local steps of each client.
      options: What a round does.
      client: What a client takes; None guesses it from the size of the model.
      needs_stack: Whether the whole cohort's updates must be held at once.
    """
    examples = dataset.train.examples
    in_memory = examples.arrays is not None
    if options.placement == "device" and not in_memory:
        raise ValueError(
            "placement = 'device' needs the training data in memory, but these examples are "
            "generated on demand. Leave it at 'auto', or materialize the data set."
        )
    equal_steps = bool((steps == steps[0]).all())
    execution = choose(
        cohort=max_jobs,
        equal_steps=equal_steps,
        data_bytes=examples.nbytes if in_memory else np.iinfo(np.int64).max,
        param_bytes=param_bytes,
        needs_stack=needs_stack,
        client=client,
        devices=options.devices,
        lanes=options.lanes,
        wave=options.wave,
        placement=options.placement,
    )
    if execution.exchange_size == 1 or equal_steps or options.wave:
        return execution
    size = exchange_size_of(
        _typical(steps, max_jobs),
        execution.devices,
        execution.lanes,
        exchange_steps(client or clients_of_size(param_bytes), execution.lanes),
    )
    return execution._replace(wave=size, exchange_size=size)


def exchange_steps(client: ClientBytes, lanes: int) -> float:
    """Returns how many steps of an accelerator take as long as the launches of an exchange.

    Args:
      client: What a client takes.
      lanes: Lanes on each device.
    """
    moved = _TOUCHES * lanes * (client.carry + client.step)
    return EXCHANGE_STEPS * _LAUNCH_SECONDS / (_LAUNCH_SECONDS + moved / _BANDWIDTH)


def exchange_size_of(
    steps: np.ndarray, devices: int, lanes: int, exchange_steps: float = EXCHANGE_STEPS
) -> int:
    """Returns how many lanes of an accelerator exchange together, by rule.

    Args:
      steps: int64[J] lengths of the jobs of a round.
      devices: Number of devices.
      lanes: Lanes on each device.
      exchange_steps: Steps that take as long as the launches of an exchange.
    """
    if lanes == 1 or len(np.unique(steps)) == 1:
        return lanes
    return shared_exchange_size(steps, devices, lanes, exchange_steps)


def _typical(steps: np.ndarray, jobs: int) -> np.ndarray:
    """Returns int64[jobs], the steps of a cohort that is like the population."""
    part = np.sort(steps[steps > 0])
    return part[((np.arange(jobs if len(part) else 0) + 0.5) / jobs * len(part)).astype(int)]


def is_calibrated(
    options: RoundOptions,
    dataset: FederatedDataset,
    task: Task,
    steps: np.ndarray,
    work: LocalWork,
    max_jobs: int,
) -> bool:
    """Returns whether devices, lanes and waves are found by timing: if free, and if it pays.

    Args:
      options: What a round does.
      dataset: The federated data.
      task: What is trained.
      steps: int64[N] local steps of each client.
      work: What they are made of.
      max_jobs: Largest number of jobs in a round.
    """
    if options.lanes or options.wave:
        return False
    if options.calibrate is not None:
        return options.calibrate
    rounds = options.num_rounds
    if rounds < _CALIBRATED_ROUNDS or jax.default_backend() != "cpu":
        return rounds >= _CALIBRATED_ROUNDS
    jobs = max_jobs / make_mesh(options.devices).size
    taken = _ROUND_SECONDS + jobs * (_JOB_SECONDS + steps.mean() * _STEP_SECONDS)
    if rounds * taken < _CALIBRATED_SECONDS:
        spec, batch = dataset.train.examples.spec, work.width
        flops = training_flops(task, spec, batch, dataset.preprocess)
        taken += jobs * steps.mean() * flops / _CPU_FLOPS
    return bool(rounds * taken >= _CALIBRATED_SECONDS)

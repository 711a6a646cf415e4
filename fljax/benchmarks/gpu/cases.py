"""Times single workloads, one JSON line each: `python -m fljax.benchmarks.gpu.cases CASE ...`.

A case is NAME[:lanes[:exchange_size[:cohort]]], where 0 leaves a choice to fljax. Nothing is
searched for, so a case runs within seconds, and alike under every option of XLA: those of
XLA_FLAGS, and those of fljax's own for round programs, which --plain leaves out. The change of the
parameters over all rounds, of which the line holds a sketch, is then the same but for rounding,
which a small learning rate keeps from growing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import jax

import fljax
from fljax.benchmarks import measure
from fljax.benchmarks.gpu.changes import sketch
from fljax.benchmarks.gpu.common import device, exchanging
from fljax.benchmarks.timing import time_rounds
from fljax.benchmarks.workloads import find, generate, varied
from fljax.engine.devices.execution import ExecutionPlan
from fljax.engine.program import round as round_program
from fljax.recording import peak_memory_bytes
from fljax.training import execution

# clients share examples, so that there are data at once
_POOL = 5000
# of the learning rate, which no time depends on. At all of it, the last bit of a product makes a
# CNN's change another by a third within ten rounds; at this part, TF32 instead of float32 by 2 %.
_LEARNING_RATE_SHARE = 0.01


def run_case(
    case: str, rounds: int, form: str = "auto", fused_updates: bool = False
) -> dict[str, Any]:
    """Returns the figures of a case.

    Args:
      case: NAME[:lanes[:exchange_size[:cohort]]].
      rounds: Timed rounds, after a first one.
      form: The form of convolutions or of a recurrence, where the model has a choice.
      fused_updates: As in `RoundOptions`.

    Raises:
      ValueError: For an unknown name, or numbers that are none.
    """
    name, *numbers = case.split(":")
    lanes, exchange_size, cohort = [*map(int, numbers), 0, 0, 0][:3]
    workload = varied(find(name), pool=_POOL, cohort=cohort, form=form)
    slow = _LEARNING_RATE_SHARE * workload.client_lr
    workload = dataclasses.replace(workload, client_lr=slow)
    dataset = generate(workload)
    begin = time.perf_counter()
    with mock.patch.object(execution, "choose", _exchanging(exchange_size)):
        federation = measure.make_federation(
            workload,
            rounds + 1,
            dataset,
            lanes=lanes,
            calibrate=False,
            fused_updates=fused_updates,
        )
    before = jax.device_get(federation.variables.params)
    found = measure.round_figures(federation, *time_rounds(federation, rounds + 1, begin))
    return {
        "case": case,
        "milliseconds": 1e3 * found["seconds_median"],
        "change": sketch(before, jax.device_get(federation.variables.params)),
        "peak_memory_bytes": peak_memory_bytes(),
        "device": device(),
        **found,
    }


def _exchanging(size: int):
    """Returns the choice of a layout, with so many lanes that exchange at once where not 0."""
    choose = execution.choose

    def chosen(**facts: Any) -> ExecutionPlan:
        return exchanging(choose(**facts), size)

    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the cases of a command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", metavar="CASE")
    parser.add_argument("--rounds", type=int, default=12, help="timed rounds")
    parser.add_argument("--form", default="auto", help="form of convolutions or recurrence")
    parser.add_argument("--fused_updates", action="store_true", help="updates in kernels")
    parser.add_argument("--plain", action="store_true", help="no options of fljax's own")
    given = parser.parse_args(arguments)
    fljax.use_all_cores()
    fljax.use_compilation_cache()
    with contextlib.ExitStack() as stack:
        if given.plain:
            for name in ("cpu_options", "gpu_options"):
                stack.enter_context(mock.patch.object(round_program, name, lambda *_: {}))
        for case in given.cases:
            try:
                line = run_case(case, given.rounds, given.form, given.fused_updates)
            except jax.errors.JaxRuntimeError as error:  # the next case may fit
                line = {"case": case, "error": str(error).splitlines()[0][:300]}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

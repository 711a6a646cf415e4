"""Runs that one process and several must agree on; as a program, one of two processes.

python tests/processes.py PROCESS PORT DIRECTORY [only: narrowed]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import exhausted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
import toy

import fljax
from fljax import algorithms
from fljax.core.transforms import Aggregator, Pipeline
from fljax.engine.devices.distributed import all_or_none, cores

DEVICES = 4
ROUNDS = 5


def median() -> Pipeline:
    """The coordinate-wise median, an aggregator that needs the stacked cohort."""

    def apply(stack, cohort, state):
        count = cohort.valid.sum()
        ordered = jnp.sort(jnp.where(cohort.valid[:, None], stack, jnp.inf), axis=0)
        return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2, state

    return Pipeline(aggregator=Aggregator(needs="stack", apply=apply))


# name -> (algorithm, options)
RUNS = {
    "scaffold": (algorithms.scaffold(0.2), {}),
    "median": (
        algorithms.fedopt("adam", 0.2, 0.05),
        {"pipeline": median(), "placement": "stream", "rounds_per_dispatch": 2},
    ),
    "local_only": (
        algorithms.local_only()._replace(hparams={"client_lr": 0.1}),
        {"eval_personal": -1, "eval_clients": 0},
    ),
}


def run(workdir, name, **options):
    """One of the runs, in float64, on ragged clients, with evaluations and checkpoints."""
    spec, own = RUNS[name]
    defaults = {
        "num_rounds": ROUNDS,
        "clients_per_round": 5,
        "batch_size": 4,
        "eval_every": 2,
        "eval_clients": -1,
        "checkpoint_every": 0 if workdir is None else 2,
        "progress": False,
    }
    data = toy.dataset(toy.clients())
    if "eval_personal" in own:
        data = data.with_validation(0.3)
    with jax.enable_x64(True):
        return fljax.simulate(
            data,
            toy.softmax_task(),
            spec,
            workdir=workdir,
            **(defaults | own | options),
        )


def stopped_and_resumed(workdir):
    """SCAFFOLD, stopped by Ctrl-C in the last process alone, and resumed."""

    def stop(federation, record):
        if record["round"] == 3 and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = run(workdir, "scaffold", hooks=(stop,))
    assert stopped.interrupted and stopped.summary["rounds"] < ROUNDS
    return run(workdir, "scaffold", resume=True)


def ended_by_a_hook(workdir):
    """SCAFFOLD, ended by a hook of the last process alone, and resumed without it."""

    def end(federation, record):
        if record["round"] == 3 and jax.process_index() == jax.process_count() - 1:
            raise fljax.StopTraining("enough")

    ended = run(workdir, "scaffold", hooks=(end,))
    resumed = run(workdir, "scaffold", resume=True)
    for finished in (ended, resumed):
        assert not finished.interrupted and finished.summary["rounds"] == 3 and finished.stopped
    return resumed


def narrowed(workdir):
    """SCAFFOLD on four lanes, of which two fit into the memory of the last process's devices."""
    with pytest.MonkeyPatch.context() as patch:
        exhausted.lay_out_on(patch, 4)
        if jax.process_index() == jax.process_count() - 1:
            exhausted.run_out(patch, lambda _, facts: facts.round >= 3)
        return run(workdir, "scaffold")


def params_of(runs) -> dict[str, np.ndarray]:
    """Returns {"run/leaf": array}, the final parameters of some runs."""
    return {
        f"{name}/{leaf}": np.asarray(values)
        for name, found in runs.items()
        for leaf, values in found.variables.params.items()
    }


def refusals() -> list[str]:
    """Returns what is said where the processes differ, or cannot share the devices."""
    process = jax.process_index()
    said = []

    def attempt(function, *args, **options):
        try:
            function(*args, **options)
        except (ConnectionAbortedError, ValueError) as error:
            said.append(f"{type(error).__name__}: {error}")

    @all_or_none()
    def fail_alone():
        if process == 1:
            raise ValueError("no such file")

    attempt(fail_alone)
    attempt(run, None, "scaffold", seed=process)
    attempt(run, None, "scaffold", devices=3)
    return said


def main(process: int, port: int, directory: Path, only: str = "") -> None:
    quick.compile_equal_programs_once()
    quick.lower_in_few_contexts()
    quick.collect_rarely()
    fljax.initialize_distributed(f"127.0.0.1:{port}", 2, process)
    jax.config.update("jax_num_cpu_devices", DEVICES // 2)
    if only:
        narrowed(directory / only)
        return
    runs = {name: run(directory / name, name) for name in RUNS}
    runs["resumed"] = stopped_and_resumed(directory / "resumed")
    runs["ended"] = ended_by_a_hook(directory / "ended")
    runs["narrowed"] = narrowed(directory / "narrowed")
    np.savez(
        directory / f"process{process}.npz",
        cores=cores(),
        said=refusals(),
        wrote=[found.directory is not None for found in runs.values()],
        **params_of(runs),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])

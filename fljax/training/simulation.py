"""`simulate`: from a dataset, a model and an algorithm to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fljax import algorithms, tasks
from fljax.core import metrics, signals
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.fast_layers import named
from fljax.core.per_client import described
from fljax.core.settings import COMPRESSION, SYSTEMS
from fljax.data.dataset import FederatedDataset
from fljax.engine.devices.compilation import use_compilation_cache
from fljax.engine.devices.distributed import (
    all_or_none,
    allgather,
    check_same,
    exit_on_failure,
    is_main,
    num_processes,
)
from fljax.engine.devices.execution import use_all_cores
from fljax.engine.devices.memory import exhaustion
from fljax.recording import Checkpoints, Recorder, Run, say, versions
from fljax.recording.jsonio import plain
from fljax.recording.lock import locked
from fljax.recording.recorder import CHECKPOINTS, holds_run, read_only, refuse_existing_run
from fljax.training import federation as federations
from fljax.training.autotuning import describe
from fljax.training.baselines import check_baselines, run_baselines, stopped_late
from fljax.training.ceremony import ceremony_of
from fljax.training.compression import compression_of, with_compression
from fljax.training.execution import JobLayout, layout_to_go_on_with
from fljax.training.federation import Federation, RoundOptions
from fljax.training.loop import Loop
from fljax.training.metric_checks import check_described
from fljax.training.narrowing import narrowing, narrowing_at_restart
from fljax.training.options import RunOptions, check_run_options, split_options
from fljax.training.own_code import OWN_CODE, own_code
from fljax.training.preflight import check_judging, check_kinds
from fljax.training.privacy import with_privacy
from fljax.training.privacy_checks import warn_of_choices
from fljax.training.privacy_records import in_a_line, ledger_of, named_protection
from fljax.training.resume import (
    ResumePoint,
    checksum,
    data_checksums,
    find_start,
    fingerprint,
    restore,
)
from fljax.training.robustness import named_robustness, with_robustness, without_own_rows
from fljax.training.stopping import check_patience, check_target
from fljax.training.task_choice import as_task, fitted
from fljax.training.timing import named_systems
from fljax.training.totals import RoundTotals


def simulate(
    dataset: FederatedDataset,
    model: Any,
    algorithm: AlgorithmSpec | str | None = None,
    *,
    task: str | None = None,
    fast_layers: bool = True,
    init_from: str | os.PathLike | None = None,
    adapters: str | None = None,
    augmentation: str | Sequence[tasks.Augmentation] | None = None,
    **options: Any,
) -> Run:
    """Runs a federated simulation.

    Args:
      dataset: The federated data, `fljax.data`.
      model: A task, or what `fljax.tasks.classification` and `next_token` make one of: an NNX
        module factory, a pair of plain functions, ...; or a name, see `fljax.models.make`.
      algorithm: From `fljax.algorithms`, or a name, see `fljax.algorithms.make`; FedAvg by default.
      task: Name of what the model learns, see `fljax.tasks.make`; what the data are made for by
        default. A model by name has the outputs that it wants.
      fast_layers: Whether convolutions of an NNX module are computed from matrix products, many
        times as fast; the run says which, and `config.json` too (`replaced_layers`).
      init_from: A safetensors file whose weights the model starts from, see
        `fljax.models.with_weights`.
      adapters: What is trained in the model's place, such as "lora(rank=8)", see
        `fljax.models.lora`; by default the model.
      augmentation: What changes training examples at random, such as "crop(4), flip", see
        `fljax.tasks.augmented`.
      **options: The fields of `RoundOptions` (num_rounds and clients_per_round are needed) and of
        `RunOptions`, and texts that name compressors as in a configuration (uplink="top_k(0.01)",
        uplink_memory, downlink, ...); docs/configuration.md explains those that one has too.

    Returns:
      The run: `summary`, `curves` {key: array}, `variables` (the final model), `baselines`.

    Ctrl-C ends the run after its round, saved, and the call returns a run that is `interrupted`.
    SIGTERM and SIGHUP do the same where the program does not handle them, and then end the program.
    A second signal ends at once; see `fljax.core.signals`.

    Raises:
      TypeError: For an option that does not exist.
      ValueError: For options that do not fit the data, the model or the memory, and for a resumed
        run of which no checkpoint is whole.
      FloatingPointError: If all clients of a round end with non-finite updates.
      FileExistsError: If the workdir holds a run already, and `resume` is not set.
      FileNotFoundError: If it was removed meanwhile, or its checkpoints after the run's end.
      BlockingIOError: If another process is writing there.
      SystemExit: After SIGTERM or SIGHUP.

    Example:
      >>> dataset = data.digits(partition='dirichlet', num_clients=20, alpha=0.5)
      >>> options = {'num_rounds': 2, 'clients_per_round': 5, 'batch_size': 20, 'progress': False}
      >>> run = fljax.simulate(dataset, "softmax_regression", "fedavg", **options)
      >>> run.rounds.tolist()
      [0, 1, 2]
    """
    compressors = {name: options.pop(name) for name in COMPRESSION if name in options}
    round_options, run_options = split_options(options)
    chosen = compression_of(compressors)
    given = {"model": model, "task": task, "algorithm": algorithm, "adapters": adapters}
    of_model = {"init_from": init_from, "adapters": adapters, "augmentation": augmentation}
    if algorithm is None or isinstance(algorithm, str):
        algorithm = algorithms.make("fedavg" if algorithm is None else algorithm)
    check_kinds(dataset, algorithm)
    check_judging(algorithm, run_options.eval_personal)
    check_run_options(run_options, round_options.rounds_per_dispatch)
    check_baselines(run_options.baselines, round_options, dataset)
    check_patience(run_options.patience, dataset)
    if run_options.hooks:
        # they see the model after every round
        round_options = dataclasses.replace(round_options, rounds_per_dispatch=1)
    use_all_cores()
    use_compilation_cache()
    made = as_task(model, dataset, task, fast_layers, **of_model)
    made = fitted(made, dataset, round_options.privacy)
    told = {key: plain(value) for key, value in (of_model | compressors).items()}
    run_options = _with_settings(run_options, told)
    run_options = _with_own_code(run_options, round_options, dataset, given)
    check_described(made)
    check_target(vars(run_options), made.metrics[0])
    round_options = with_compression(dataset, made, algorithm, round_options, chosen)
    dataset, round_options = with_robustness(dataset, made, algorithm, round_options)
    round_options = with_privacy(dataset, made, algorithm, round_options)
    if round_options.privacy is not None:
        warn_of_choices(dataset, run_options)
    setting = (dataset, made, algorithm, round_options)
    with _held(run_options), matmul_precision(run_options.matmul_precision):
        run = _simulate(*setting, run_options, announced=True)
        if run_options.baselines and not run.interrupted:
            if stopped_late():
                run = run._replace(interrupted=True)
            else:
                clean = without_own_rows(dataset, round_options)
                run = run_baselines(run, _simulate, clean, *setting[1:], run_options)
    where = "nothing is saved" if run.directory is None else f"saved in {run.directory}"
    signals.conclude(f"stopped after round {run.summary['rounds']}, {where}.")
    return run


def _with_settings(options: RunOptions, given: Mapping[str, Any]) -> RunOptions:
    """Returns the options with a config that tells of settings that are set and no options."""
    told = {name: value for name, value in given.items() if value is not None}
    if not told:
        return options
    return dataclasses.replace(options, config={**(options.config or {}), **told})


def _with_own_code(
    options: RunOptions, rounds: RoundOptions, dataset: FederatedDataset, given: Mapping[str, Any]
) -> RunOptions:
    """Returns the options with a config that tells of the user's own code."""
    texts = {name: text for name, text in (options.config or {}).items() if isinstance(text, str)}
    parts = {
        "sampler": rounds.sampler,
        "pipeline": rounds.pipeline,
        "privacy": rounds.privacy,
        "secure_aggregation": rounds.secure_aggregation,
        "preprocess": dataset.preprocess,
    }
    found = own_code({**given, **parts, **texts})
    if not found:
        return options
    return dataclasses.replace(options, config={**(options.config or {}), OWN_CODE: found})


def _held(options: RunOptions):
    """Returns the context in which no other process writes to the workdir; process 0 asks."""
    if options.workdir is None:
        return contextlib.nullcontext()
    workdir = Path(options.workdir)
    if not is_main():
        return contextlib.nullcontext()
    if options.resume and not holds_run(workdir):
        # a scheduler's line is the same for the first start and for all others
        say(f"{workdir} holds no run yet: nothing is resumed.")
    return locked(workdir)


def _simulate(
    dataset,
    task,
    algorithm,
    options: RoundOptions,
    run_options: RunOptions,
    announced: bool = False,
) -> Run:
    """Runs a simulation; where nobody has chosen the lanes, on fewer once memory runs out.

    The run goes on from its last checkpoint then, or starts again.
    """
    setting = dataset, task, algorithm, options, run_options, announced
    if options.lanes:
        return _simulate_on(None, *setting)
    use = lambda layout: _simulate_on(layout, *setting)  # noqa: E731
    if num_processes() > 1:
        workdir = None if run_options.workdir is None else Path(run_options.workdir)
        return narrowing_at_restart(use, workdir, options.wave)
    return narrowing(use, options.wave)


def _simulate_on(
    layout: JobLayout | None,
    dataset,
    task,
    algorithm,
    options: RoundOptions,
    run_options: RunOptions,
    announced: bool,
) -> Run:
    """Runs a simulation on a layout, where it may have begun on another; or, of None, on its own.

    Raises:
      DoesNotFit: If the devices run out of memory.
    """
    workdir = None if run_options.workdir is None else Path(run_options.workdir)
    with contextlib.ExitStack() as stack:

        @functools.cache
        def checkpoints() -> Checkpoints:
            directory = workdir / CHECKPOINTS
            return stack.enter_context(Checkpoints(directory, keep=run_options.keep_checkpoints))

        if layout is not None and workdir is not None:
            resume = allgather(is_main() and holds_run(workdir))[0]
            run_options = dataclasses.replace(run_options, resume=resume)
        with all_or_none():
            start = 0
            if run_options.resume:
                if workdir is None:
                    raise ValueError("resume needs the workdir of the run to go on with.")
                # all processes bring their devices together; process 0 alone would wait for them
                jax.devices()
                found = find_start(checkpoints(), workdir, options.num_rounds) if is_main() else 0
                start = allgather(found)[0]
            elif workdir is not None:
                # before anything is built or compiled, for which processes wait for each other
                with all_or_none():
                    if is_main():
                        refuse_existing_run(workdir)
            saved = checkpoints().metadata(start)["execution"] if start else None
            setting = dataset, task, algorithm, options
            federation = federations.build(*setting, **layout_to_go_on_with(saved, layout))
            if announced and run_options.progress and is_main():
                say(describe(federation))
                if replaced := task.replaced_layers:
                    say(
                        f"fast layers in place of Flax's own: {named(replaced)} "
                        "(fast_layers=False keeps those)"
                    )
            ledger = ledger_of(federation.options, federation.trials[0].hparams)
            if announced and run_options.progress and ledger is not None and is_main():
                say(in_a_line(ledger, options.num_rounds))
            config = _config(federation, run_options)
            if num_processes() > 1:
                check_same(_fingerprint(federation, config), "settings, data or initial models")
            progress = ResumePoint(0, RoundTotals(), federation.cohorts.init())
            if start:
                # before the recorder opens its files: what is refused must stay as it was
                progress = restore(checkpoints(), federation, start, run_options)
            parts = {}
            if run_options.ceremony and is_main():
                parts["secure_aggregation"] = ceremony_of(federation.options)
            # -1: a run that was killed before its first checkpoint starts again from nothing
            resume_round = (start or -1) if run_options.resume else None
            # of several processes, the first one alone writes
            open_files = Recorder if is_main() else read_only
            recorder = stack.enter_context(
                open_files(workdir, resume_round=resume_round, extent=progress.extent)
            )
            for open_sink in run_options.sinks if is_main() else ():
                recorder.add_sink(open_sink())
            recorder.write_config(config)
            loop = Loop(federation, recorder, checkpoints, config, run_options, progress, parts)
        with exit_on_failure(), exhaustion(federation.execution):
            return loop.run()


def _fingerprint(federation: Federation, config: Mapping[str, Any]) -> list[Any]:
    """Returns what all processes of a run must agree on, as JSON values; reads a few rows only."""
    free = ("versions", "data_dir", "code_dir", "wandb", "tensorboard", "mlflow")
    return [
        {name: value for name, value in config.items() if name not in free},
        fingerprint(federation.dataset.train.partition),
        data_checksums(federation.dataset),
        checksum(jax.tree.leaves((federation.variables, federation.inputs.frozen))),
    ]


def _config(federation: Federation, options: RunOptions) -> dict[str, Any]:
    """Returns config.json: every resolved value; of the execution, what was asked for as well."""
    resolved = {
        name: described(getattr(federation.options, name))
        for name in (field.name for field in dataclasses.fields(RoundOptions))
        if name not in _PARTS and not callable(getattr(federation.options, name))
    }
    if isinstance(federation.options.sampler, str):
        resolved["sampler"] = federation.options.sampler
    resolved |= named_protection(federation.options) | named_robustness(federation.options)
    resolved |= named_systems(federation.options)
    own = {
        name: getattr(options, name)
        for name in (field.name for field in dataclasses.fields(RunOptions))
        if name not in ("workdir", "resume", "progress", "hooks", "sinks", "config")
    }
    known = dict(options.config or {})
    if "num_clients" in known:  # held-out clients included, or unset
        known["configured_clients"] = known["num_clients"]
    return plain(
        resolved
        | own
        | {"algorithm": federation.spec.name, "hparams": dict(federation.trials[0].hparams)}
        | {"dataset": federation.dataset.name}
        | {"replaced_layers": list(federation.task.replaced_layers)}
        | _named_classes(federation.dataset)
        | known
        | {
            "num_clients": federation.dataset.members,
            "metrics": metrics.plain(federation.task.metrics),
            "execution": federation.layout,
            "processes": num_processes(),
            "numerics": numerics(federation.options.compute_dtype, options.matmul_precision),
            "versions": versions(),
        }
    )


# Options that are records of functions, or long lists.
_PARTS = (
    "pipeline",
    "initial_params",
    "cohorts",
    "steps_per_round",
    "sampler",
    "privacy",
    "secure_aggregation",
    "aggregator",
    "attack",
    *SYSTEMS,
)


def _named_classes(dataset: FederatedDataset) -> dict[str, Any]:
    return {} if dataset.class_names is None else {"class_names": list(dataset.class_names)}


def numerics(compute_dtype: str | None, precision: str | None) -> dict[str, Any]:
    """Returns what decides on the rounding of a run, as config.json says it."""
    return {
        "compute_dtype": compute_dtype,
        "matmul_precision": precision or jax.config.jax_default_matmul_precision or "default",
        "prng": str(jax.config.jax_default_prng_impl),
        "x64": bool(jax.config.jax_enable_x64),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "platform": jax.default_backend(),
    }


def matmul_precision(precision: str | None):
    """Returns the context in which JAX computes at a matmul precision; None changes nothing."""
    return (
        contextlib.nullcontext() if precision is None else jax.default_matmul_precision(precision)
    )

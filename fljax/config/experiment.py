"""Makes the arguments of `simulate` from a configuration: every name is looked up here."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.compression import names
from fljax.config import ConfigError, resolve, to_plain
from fljax.config.algorithm import make_algorithm
from fljax.config.dry_run import describe
from fljax.config.key_checks import partition_options
from fljax.config.schema import FIELDS
from fljax.core import random
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.digits import figures
from fljax.core.durations import duration
from fljax.core.metrics import Metric
from fljax.core.settings import OPTIONS
from fljax.core.task import Task
from fljax.core.transforms import Pipeline, PipelineSpec
from fljax.core.values import checked, checked_path
from fljax.data import sources
from fljax.data.checks import checked as checked_data
from fljax.data.dataset import FederatedDataset
from fljax.data.splits.root import with_root
from fljax.engine.devices.distributed import all_or_none, is_main
from fljax.recording import Run
from fljax.recording.sinks import sinks_of
from fljax.training import compression
from fljax.training.baselines import MEANT_BY
from fljax.training.federation import RoundOptions
from fljax.training.hyperparameters import hyperparameters
from fljax.training.options import RunOptions, check_workdir, split_options
from fljax.training.privacy import with_privacy
from fljax.training.privacy_records import described, ledger_of
from fljax.training.robustness import with_robustness
from fljax.training.simulation import simulate
from fljax.training.task_choice import as_task, fitted


class Experiment(NamedTuple):
    """A configuration made concrete: `simulate(dataset, task, algorithm, **options)`.

    Attributes:
      dataset, task, algorithm, options: Those arguments.
      built_in: {name: value} of what follows from seed and data but is no argument of a program:
        a sweep compiles trials that differ in it apart.
    """

    dataset: FederatedDataset
    task: Task
    algorithm: AlgorithmSpec
    options: dict[str, Any]
    built_in: Mapping[str, float] = {}

    @property
    def hparams(self) -> dict[str, float]:
        """{name: number} of all that is traced."""
        return hyperparameters(self.algorithm, self.options.get("pipeline", Pipeline()))


def run_config(
    config,
    workdir: str | Path,
    *,
    resume: bool = False,
    profile: str | Path | None = None,
) -> tuple[Run, list[Path]]:
    """Runs a configuration from its data to its plots.

    Args:
      config: From `fljax.config`.
      workdir: Directory for what the run leaves behind.
      resume: Go on from the newest checkpoint; start where there is none.
      profile: Directory for a profiler trace, or None.

    Returns:
      (run, PNG files); of several processes, only the first one draws and writes.

    Example:
      >>> config = fljax.load_config("configs/quickstart.py")  # doctest: +SKIP
      >>> run, plots = fljax.run_config(config, "runs/first")  # doctest: +SKIP
    """
    profile = None if profile is None else checked_path("profile", profile)
    if profile is not None and profile.exists() and not profile.is_dir():
        raise NotADirectoryError(f"profile = {str(profile)!r} is no directory.")
    check_workdir(workdir)
    workdir = checked_path("workdir", workdir)
    resume = checked("resume", resume, OPTIONS["resume"])
    config = resolve(config)
    traced = profile is not None and is_main()
    tracing = jax.profiler.trace(str(profile)) if traced else contextlib.nullcontext()
    with tracing:
        run = simulate_config(config, workdir, resume=resume)
    return run, run.plot() if is_main() and not run.interrupted else []


def simulate_config(config, workdir: str | Path, *, resume: bool = False) -> Run:
    """Runs a configuration, as `run_config` does, and draws nothing."""
    with all_or_none():
        experiment = make_experiment(config)
    plain = to_plain(resolve(config))
    return simulate(
        experiment.dataset,
        experiment.task,
        experiment.algorithm,
        workdir=workdir,
        resume=resume,
        sinks=tuple(sinks_of(plain, workdir)),
        config=plain,
        **experiment.options,
    )


def dry_run(config) -> str:
    """Returns what a configuration would do and cost, as a text; runs no round."""
    experiment = make_experiment(config)
    round_options, run_options = split_options(experiment.options)
    dataset, task = experiment.dataset, experiment.task
    links = run_options.uplink_mbps, run_options.downlink_mbps
    update = names.update_size(
        compression_names(resolve(config)), _shapes(task), dataset.num_clients
    )
    text = describe(dataset, task, experiment.algorithm, round_options, update, links)
    return "\n".join([text, *_privacy_lines(experiment)])


def privacy_report(config) -> str:
    """Returns what a configuration spends of privacy and promises, as a text; runs no round.

    Raises:
      fljax.config.ConfigError: If nothing of it is private.
    """
    lines = _privacy_lines(make_experiment(config))
    if not lines:
        raise ConfigError(
            "privacy is unset, so that a run promises nothing. Name a mechanism, such as "
            "--config.privacy='gaussian(0.3)'."
        )
    return "\n".join(lines)


def _privacy_lines(experiment: Experiment) -> list[str]:
    """Returns what is said of a private run; nothing of others."""
    round_options, _ = split_options(experiment.options)
    ledger = ledger_of(round_options, experiment.hparams)
    rows = [] if ledger is None else described(ledger, round_options.num_rounds)
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def report(run: Run, plots: list[Path]) -> str:
    """Returns the closing lines of a run: results, costs, and where they lie."""
    if run.interrupted:
        name, stopped = next(
            ((name, baseline) for name, baseline in run.baselines.items() if baseline.interrupted),
            ("", run),
        )
        where = f" of the baseline {name}" if name else ""
        return (
            f"Stopped after round {stopped.summary['rounds']}{where}; everything is saved in "
            f"{run.directory}. Go on with the same command, --workdir={run.directory} and --resume."
        )
    lines = []
    for name, trained in {"federated": run, **run.baselines}.items():
        final = trained.summary["final"] or {}
        found = [
            f"{split} {metric} {figures(final[key])}"
            for split in ("test", "val")
            for metric in dict.fromkeys((trained.metrics[0].name, "loss"))
            if (key := f"eval/{split}/{metric}") in final
        ]
        round = f"(round {final.get('round', 0)})"
        lines.append(f"{name}: final {', '.join(found)} {round}{MEANT_BY.get(name, '')}")
    summary = run.summary
    if summary["best"]:
        best = summary["best"]
        lines.append(f"best by {best['selected_by']}: " + _best_line(best, run.metrics[0]))
    elif summary["no_best"]:
        lines.append(f"best: none, since {summary['no_best']}")
    if summary["to_target"]:
        target = summary["to_target"]
        value = target[f"target_{run.metrics[0].name}"]
        line = f"target {value} reached in round {target['rounds']}"
        if target["simulated_seconds"] is not None:
            line += f", after {duration(target['simulated_seconds'])} of simulated time"
        lines.append(line)
    if run.stopped:
        lines.append(f"ended early: {run.stopped}")
    speed = f"{summary['rounds']} rounds in {summary['seconds']:.1f} s"
    if summary["rounds"]:
        speed += f", {summary['clients_per_second']:,.0f} clients/s"
        speed += f", {summary['examples_per_second']:,.0f} examples/s"
    if summary["compile_seconds"]:
        speed += f", after {summary['compile_seconds']:.1f} s of compiling"
    if summary["simulated_seconds"] is not None:
        speed += f"; {duration(summary['simulated_seconds'])} of simulated time"
    lines.append(speed)
    if "selection" in summary:
        lines.append(_selection_line(summary["selection"]))
    lines.append(f"run directory: {run.directory}")
    lines += [f"plot: {path}" for path in plots]
    return "\n".join(lines)


def _selection_line(selection: Mapping[str, Any]) -> str:
    """Says how jobs were spread over clients."""
    asked, arrived = (selection[kind]["all"]["all"] for kind in ("asked", "arrived"))
    return (
        f"{asked['coverage']:.1%} of the clients were ever asked, and updates of "
        f"{arrived['coverage']:.1%} arrived; jobs a client: Gini {asked['gini']:.3f}, Jain "
        f"{asked['jain']:.3f}"
    )


def _best_line(best: Mapping[str, Any], metric: Metric) -> str:
    key = f"eval/test/{metric.name}"
    key = key if key in best else best["metric"]
    words = key.removeprefix("eval/").replace("/", " ")
    return f"{words} {figures(best[key])} (round {best['round']})"


def make_experiment(
    config, dataset: FederatedDataset | None = None, traced: Collection[str] = ()
) -> Experiment:
    """Builds dataset, task, algorithm and options from a configuration.

    Args:
      config: From `fljax.config`.
      dataset: The configured data, where they are loaded already.
      traced: Keys whose numbers the program takes as arguments as far as it can: of an algorithm
        always, of compression and robustness where they are named here.

    Raises:
      fljax.config.ConfigError: For wrong keys or values, and for names or options that the dataset,
        partition, task or model refuses.
    """
    with _as_config_error():
        return with_protection(plain_experiment(config, dataset, traced), traced)


def plain_experiment(
    config, dataset: FederatedDataset | None = None, traced: Collection[str] = ()
) -> Experiment:
    """Returns the experiment before its protection is drawn; arguments as for `make_experiment`.

    Its data may be replaced by some of their rows: what protects clients depends on how many rows
    there are, and is drawn for these.
    """
    config = resolve(config)
    dataset = dataset or make_dataset(config)
    task = _make_task(config, dataset)
    options = _options(config, dataset.num_clients)
    options["pipeline"] = make_pipeline(config, dataset, task, traced)
    built_in = _built_in(config, dataset, task)
    with _as_config_error():
        return Experiment(dataset, task, make_algorithm(config), options, built_in)


def with_protection(experiment: Experiment, traced: Collection[str] = ()) -> Experiment:
    """Returns the experiment with its task fitted to the data, and its protection drawn.

    Args:
      experiment: The experiment.
      traced: Keys whose numbers the program takes as arguments, as for `make_experiment`.
    """
    dataset, task, algorithm, options, _ = experiment
    given, _ = split_options(options)
    task = fitted(task, dataset, given.privacy)
    experiment = experiment._replace(task=task)
    dataset, robust = with_robustness(dataset, task, algorithm, given, traced)
    drawn = with_privacy(dataset, task, algorithm, robust)
    if drawn is given:
        return experiment
    built_in = dict(experiment.built_in)
    if drawn is not robust and drawn.privacy.fixed_norm is not None:
        built_in["fixed_norm"] = drawn.privacy.fixed_norm
    own = {name: getattr(drawn, name) for name in ("privacy", "aggregator", "pipeline")}
    return experiment._replace(dataset=dataset, options=options | own, built_in=built_in)


def parameter_shapes(config) -> Any:
    """Returns the shapes of a configuration's model parameters."""
    config = resolve(config)
    return _shapes(_make_task(config, make_dataset(config)))


def make_dataset(config) -> FederatedDataset:
    """Loads and partitions the configured data."""
    keys = {"partition": "partition", "num_clients": "num_clients", "seed": "data_seed"}
    same = (
        "data_dir",
        "rows_per_client",
        "own_test_fraction",
        "feature_skew",
        "concept_shift",
        "label_noise",
        "held_out_fraction",
        "held_out_folds",
        "held_out_fold",
        "val_fraction",
        "concept_drift",
    )
    keys |= {name: name for name in (*same, *partition_options(config))}
    offered = {name: config[key] for name, key in keys.items() if config[key] is not None}
    with _as_config_error():
        dataset = sources.make(
            config.dataset,
            offered,
            needed=[name for name in offered if config[keys[name]] != FIELDS[keys[name]].default],
            given=config.dataset_options.to_dict(),
            said={name: f"the key {key!r}" for name, key in keys.items()},
        )
        if config.data_checks:
            dataset = checked_data(dataset, config.data_checks)
        # last of all: what would change clients or rows behind it is refused
        return (
            with_root(dataset, config.root_rows, config.data_seed) if config.root_rows else dataset
        )


@contextlib.contextmanager
def _as_config_error() -> Iterator[None]:
    """Raises what a part refuses of a configuration as the one kind of error that that has."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def unfitted_task(config, dataset: FederatedDataset) -> Task:
    """Returns the configured task before it takes anything from the training targets."""
    with _as_config_error():
        options = config.model_options.to_dict()
        keys = ("fast_layers", "init_from", "adapters", "augmentation")
        of_model = {key: config[key] for key in keys}
        return as_task(config.model, dataset, config.task, model_options=options, **of_model)


def _make_task(config, dataset: FederatedDataset) -> Task:
    with _as_config_error():
        return fitted(unfitted_task(config, dataset), dataset, config.privacy)


def make_pipeline(
    config, dataset: FederatedDataset, task: Task, traced: Collection[str] = ()
) -> Pipeline | PipelineSpec:
    """Returns the configured compression of what clients send and receive."""
    chosen = compression_names(config)
    if chosen == names.Names():
        return Pipeline()
    sides = [side for side in ("uplink", "downlink") if side in traced]
    weighting = config.weighting or "uniform"  # of an algorithm of the user's, its own
    setting = dataset, task, make_algorithm(config), _rounds(config, dataset)
    with _as_config_error():
        return compression.make_pipeline(chosen, *setting, weighting, sides)


def num_participants(config, dataset: FederatedDataset, task: Task | None = None) -> int:
    """Returns how many clients ever take part: those whose rows are enough for a step.

    Args:
      config: From `fljax.config`.
      dataset: The configured data.
      task: The configured task, where it is made already.
    """
    task = task or _make_task(config, dataset)
    return compression.num_participants(
        dataset, task, make_algorithm(config), _rounds(config, dataset)
    )


def _rounds(config, dataset: FederatedDataset) -> RoundOptions:
    return split_options(_options(config, dataset.num_clients))[0]


def _built_in(config, dataset: FederatedDataset, task: Task) -> dict[str, int]:
    found = names.uplink_memory(compression_names(config))
    match found and found[0]:
        case "marina":  # its coins are the run's, thrown for all clients at once
            return {"seed": config.seed}
        case "ef21" | "diana":
            return {"participants": num_participants(config, dataset, task)}
    return {}


def compression_names(config) -> names.Names:
    """Returns the keys of a configuration that say what is compressed."""
    return names.Names(**{name: config[name] for name in names.Names._fields})


def _shapes(task: Task) -> Any:
    """Returns the shapes of the model's parameters."""
    return jax.eval_shape(task.init, jax.random.key(0))[0]


def _options(config, num_clients: int) -> dict[str, Any]:
    """Returns the options of `simulate` that stand in the configuration by the same name."""
    known = {
        name
        for record in (RoundOptions, RunOptions)
        for name in inspect.signature(record).parameters
    } - {"config", "workdir", "resume", "sinks"}
    options = {name: config[name] for name in config if name in known}
    options["local_epochs"] = config.local_epochs
    if config.max_local_epochs is not None:
        # of no seed: trials of unlike seeds share a program, which has one such list
        draw = random.generator(0, "local epochs")
        most = config.max_local_epochs + 1
        options["local_epochs"] = draw.integers(config.local_epochs, most, num_clients).tolist()
    options["local_steps"] = config.local_steps
    for side in ("client", "server"):
        options[f"{side}_lr_schedule"] = make_schedule(
            config[f"{side}_lr_schedule"],
            num_rounds=config.num_rounds,
            decay_rate=config[f"{side}_lr_decay_rate"],
            decay_rounds=config[f"{side}_lr_decay_rounds"],
            warmup_rounds=config[f"{side}_lr_warmup_rounds"],
        )
    return options


def make_schedule(
    name: str, *, num_rounds: int, decay_rate: float, decay_rounds: int, warmup_rounds: int
) -> Callable | None:
    """Returns round -> factor of a learning rate, or None where it is always 1.

    Args:
      name: "constant", "cosine" (to zero), "exponential" (smooth), or "step".
      num_rounds: Rounds of the run.
      decay_rate: Factor that an exponential or step schedule applies every `decay_rounds`.
      decay_rounds: Rounds of one decay; 0 is 1 for exponential and step, the rest for cosine.
      warmup_rounds: Rounds of linear growth before the schedule starts.
    """
    if name == "constant" and not warmup_rounds:
        return None
    rest = max(num_rounds - warmup_rounds, 1)
    shapes: Mapping[str, Callable] = {
        "constant": lambda t: jnp.ones_like(t),
        "cosine": lambda t: (
            0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(t / (decay_rounds or rest), 0, 1)))
        ),
        "exponential": lambda t: decay_rate ** (t / max(decay_rounds, 1)),
        "step": lambda t: decay_rate ** jnp.floor(t / max(decay_rounds, 1)),
    }

    def schedule(round):
        time = jnp.asarray(round, jnp.float32)
        factor = shapes[name](jnp.maximum(time - warmup_rounds, 0))
        if not warmup_rounds:
            return factor
        return jnp.where(time < warmup_rounds, (time + 1) / (warmup_rounds + 1), factor)

    return schedule

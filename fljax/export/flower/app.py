"""Writes a Flower app of a run, and reads it on the machines that run it.

OUT/pyproject.toml             the app, as `flwr run` wants it
OUT/README.md                  how it is run
OUT/fljax_app/                 client_app.py, server_app.py, records.py
OUT/fljax_app/federation.json  the configuration, and what all machines know of the data
OUT/fljax_app/model.json       the model that the first round starts from
OUT/clients/                   with `--data=files`: the rows of each client, for its node alone
"""

from __future__ import annotations

import ast
import base64
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import jax
import numpy as np

import fljax
from fljax.config import ConfigError, resolve
from fljax.config.experiment import make_experiment, unfitted_task
from fljax.config.prediction import as_configured
from fljax.core.values import shown
from fljax.engine.devices.compilation import use_compilation_cache
from fljax.export.flower.deployment import Deployment, deploy, of_experiment
from fljax.export.flower.rows import clients_in, dataset_of, facts_of, write_rows
from fljax.recording import load_run
from fljax.recording.models import SavedModel, load_saved, read_model, save_model
from fljax.training.simulation import numerics

__all__ = ["clients_in", "read_app", "read_facts", "write_app"]

PACKAGE = "fljax_app"
DATA, START = ("source", "files"), ("initial", "final", "best")
FACTS, MODEL, OWN = "federation.json", "model.json", "own"
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{0,31}")
# Of Flower's bundle of an app; base64 makes four bytes of three
_MOST_BYTES = 7_000_000
# What a run's record calls it -> JAX's variable
_VARIABLES = {"x64": "JAX_ENABLE_X64", "prng": "JAX_DEFAULT_PRNG_IMPL"}
# What a node has of its own, or what nothing of a round depends on.
_LEFT_OUT = ("data_dir", "init_from")


def write_app(
    run: str | Path, out: str | Path, *, data: str = "source", start: str = "initial"
) -> Path:
    """Writes the Flower app of a run.

    Args:
      run: The run's directory; it was made from a configuration.
      out: A new folder, whose name is the app's.
      data: "source": each node loads the run's data by their name, and takes its clients' share;
        "files": rows of each client are written to files, of which a node is given its own.
      start: The model of the first round: the run's "initial" one, its "final" or its "best" one.

    Returns:
      `out`.

    Raises:
      ValueError: If the run cannot be deployed, with the reason, or for a name that Flower refuses.
      FileExistsError: If `out` is there.

    Example:
      >>> write_app("runs/first", "flower-app", data="files")  # doctest: +SKIP
    """
    for name, value, known in (("data", data, DATA), ("start", start, START)):
        if value not in known:
            raise ValueError(f"{name} = {shown(value)}; choose from {', '.join(known)}.")
    out = Path(out)
    if not _NAME.fullmatch(out.name):
        raise ValueError(
            f"out = {shown(str(out))}; Flower calls an app by its folder: up to 32 letters, digits "
            "and hyphens, a letter first, such as flower-app."
        )
    if out.exists():
        raise FileExistsError(f"{out} is there already. Name a new folder, or remove it.")
    recorded = load_run(run).config
    config = configuration(recorded, run)
    wanted = {name: recorded.get("numerics", {}).get(name, value) for name, value in _of_jax()}
    check_jax(wanted)
    experiment = make_experiment(config)
    if experiment.dataset.members != recorded["num_clients"]:
        raise ValueError(
            f"The run had {recorded['num_clients']} clients, and its data have "
            f"{experiment.dataset.members} now. Give it the data that it had, or run it again."
        )
    deployment = of_experiment(experiment)
    _check_visits(deployment)
    facts: dict[str, Any] = {"fljax": fljax.__version__, "jax": wanted}
    if data == "files":
        facts["data"] = facts_of(experiment.dataset)
        _check_machines(config, facts["data"], deployment)
    model = _model(deployment, run, start)
    text = _as_text(model)
    own = _own_code(config, recorded)
    facts["config"] = config | {"code_dir": OWN if own else None}
    package = out / PACKAGE
    package.mkdir(parents=True)
    (package / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    (package / MODEL).write_text(text)
    for path in own:
        (package / OWN).mkdir(exist_ok=True)
        shutil.copyfile(path, package / OWN / path.name)
    for name in ("__init__.py", "client_app.py", "records.py", "server_app.py"):
        (package / name).write_text(_template(name))
    texts = _texts(deployment, out, run, data, start)
    for name in ("pyproject.toml", "README.md"):
        (out / name).write_text(Template(_template(f"{name}.txt")).substitute(texts))
    if data == "files":
        write_rows(experiment.dataset, out / "clients")
    return out


def configuration(recorded: Mapping[str, Any], run: str | Path) -> dict[str, Any]:
    """Returns the configuration that a run was made from.

    Raises:
      ValueError: If it was made by `fljax.simulate`, from objects that no machine can make again.

    Example:
      >>> configuration({"dataset": "mine"}, "runs/first")
      Traceback (most recent call last):
      ValueError: runs/first was made by fljax.simulate from objects in memory, which no node can \
make again. Run a configuration (fljax.run_config, fljax run), and export that.
    """
    if "dataset_options" not in recorded:
        raise ValueError(
            f"{run} was made by fljax.simulate from objects in memory, which no node can make "
            "again. Run a configuration (fljax.run_config, fljax run), and export that."
        )
    config = as_configured(recorded)
    return {name: value for name, value in config.items() if name not in _LEFT_OUT}


def read_facts(package: str) -> dict[str, Any]:
    """Returns what an app says of its federation.

    Args:
      package: A file of the app's package.
    """
    folder = Path(package).parent
    facts = json.loads((folder / FACTS).read_text())
    if facts["config"]["code_dir"] is not None:
        facts["config"]["code_dir"] = str(folder / facts["config"]["code_dir"])
    return facts


def read_app(
    package: str, folder: str | None = None, sizes: Mapping[int, int] | None = None
) -> Deployment:
    """Returns the deployment of an app, on one of its machines.

    Args:
      package: A file of the app's package.
      folder: Of a node, where its clients' files lie, if the app has such.
      sizes: Of the server, {client: rows} that the nodes have told.
    """
    use_compilation_cache()
    facts = read_facts(package)
    check_jax(facts["jax"])
    dataset = None
    if "data" in facts:
        dataset = dataset_of(facts["data"], folder, sizes)
    elif folder is not None:
        raise ValueError(
            "The node names a folder of clients, but the app was exported with --data=source. Give "
            "the node partition-id and num-partitions, or export with --data=files."
        )
    return deploy(facts["config"], _read_model(Path(package).parent / MODEL), dataset)


def check_jax(wanted: Mapping[str, Any]) -> None:
    """Raises ValueError if JAX draws or rounds otherwise here than where the run was made.

    Args:
      wanted: {"x64": whether it had 64 bits, "prng": its generator of random numbers}.

    Example:
      >>> check_jax({"x64": False, "prng": "rbg"})
      Traceback (most recent call last):
      ValueError: The run was made with JAX_DEFAULT_PRNG_IMPL=rbg, and here it is threefry2x32. \
Set it on all machines.
    """
    for name, here in _of_jax():
        if wanted[name] != here:
            raise ValueError(
                f"The run was made with {_VARIABLES[name]}={wanted[name]}, and here it is {here}. "
                "Set it on all machines."
            )


def _of_jax() -> list[tuple[str, Any]]:
    """Returns (name, value) of what JAX's environment decides of the numbers of a run."""
    here = numerics(None, None)
    return [(name, here[name]) for name in _VARIABLES]


def _check_visits(deployment: Deployment) -> None:
    """Refuses clients that keep state and are drawn twice for a round: which state counts then?"""
    if not jax.tree.leaves(deployment.client_rows):
        return
    for round, clients in enumerate(_cohorts(deployment)):
        if len(set(clients.tolist())) < len(clients):
            raise ValueError(
                "This run cannot be deployed as it was simulated: clients keep state, and one "
                f"is drawn twice in round {round}. Take a sampler without replacement."
            )


def _check_machines(config: Mapping[str, Any], facts: Mapping[str, Any], whole: Deployment) -> None:
    """Refuses what can only be built with everybody's rows at hand.

    Args:
      config: The configuration.
      facts: What all machines know of the data.
      whole: The deployment of a machine that has all rows.
    """
    remedy = "no machine has all rows with --data=files. Export with --data=source."
    shell = dataset_of(facts, None)
    if unfitted_task(resolve(config), shell).fit is not None:
        raise ValueError(f"The task counts the labels of all clients to balance them, and {remedy}")
    apart = deploy(config, dataset=shell)
    if any(
        (ours != theirs).any()
        for ours, theirs in zip(_cohorts(whole), _cohorts(apart), strict=True)
    ):
        raise ValueError(f"The sampler chooses by the labels of all clients, and {remedy}")


def _cohorts(deployment: Deployment) -> Iterator[np.ndarray]:
    """Yields the clients of each round."""
    cohorts = deployment.blueprint.cohorts
    state = cohorts.init()
    for round in range(deployment.num_rounds):
        drawn = cohorts.draw(round, state)
        state = drawn.states
        yield drawn.jobs.client


def _model(deployment: Deployment, run: str | Path, start: str) -> SavedModel:
    if start == "initial":
        return SavedModel(deployment.variables, deployment.inputs.frozen, {"round": 0})
    if deployment.blueprint.initial.several is not None:
        raise ValueError(
            f"{deployment.blueprint.spec.name} starts from several models, and a run keeps one. "
            "Export with --start=initial."
        )
    return load_saved(run, start)


def _as_text(model: SavedModel) -> str:
    """Returns a model as JSON, since bundles of Flower hold texts alone."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.npz"
        save_model(file, model.variables, model.frozen, model.about)
        content = file.read_bytes()
    if len(content) > _MOST_BYTES:
        raise ValueError(
            f"The model has {len(content) / 1e6:,.1f} MB, and Flower's bundle of an app at most 10 "
            "MB as text. Export a smaller one, or train adapters (docs/models.md)."
        )
    return json.dumps({"npz": base64.b64encode(content).decode()})


def _read_model(path: Path) -> SavedModel:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.npz"
        file.write_bytes(base64.b64decode(json.loads(path.read_text())["npz"]))
        return read_model(file)


def _own_code(config: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[Path]:
    """Returns the files of the user's own modules, which go with the app, and what they import.

    Raises:
      ConfigError: If one of them lies elsewhere by now.
    """
    names = sorted({file for file, _ in recorded.get("own_code", {}).values()})
    for name in names:
        if not (Path(config["code_dir"]) / name).is_file():
            raise ConfigError(
                f"The run is made of code in {name}, which is not in {config['code_dir']} (any "
                "more). Put it there, or run the configuration again."
            )
    return _with_imports([Path(config["code_dir"]) / name for name in names])


def _with_imports(files: Sequence[Path]) -> list[Path]:
    """Returns files of Python, and those beside them that they import."""
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            waiting += [file.with_name(f"{name.partition('.')[0]}.py") for name in names]
    return sorted(found)


def _texts(
    deployment: Deployment, out: Path, run: str | Path, data: str, start: str
) -> dict[str, str]:
    """Returns what the templates leave open."""
    blueprint = deployment.blueprint
    clients = blueprint.dataset.num_clients
    return {
        "name": out.name,
        "publisher": "fljax",
        "description": f"{blueprint.spec.name} on {blueprint.dataset.name}, from fljax",
        "version": fljax.__version__,
        "rounds": str(deployment.num_rounds),
        "clients": str(clients),
        "run": Path(run).name,
        "start": start,
        "nodes": _template(f"nodes_{data}.txt").rstrip(),
        "rows": _template(f"rows_{data}.txt").rstrip(),
    }


def _template(name: str) -> str:
    return (resources.files("fljax.export.flower") / "template" / name).read_text()

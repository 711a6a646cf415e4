"""Sends records to MLflow, as a sink of the recorder."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fljax.core import optional
from fljax.core.files import atomic_file
from fljax.core.values import Field, checked
from fljax.recording import jsonio
from fljax.recording.recorder import Sink
from fljax.recording.runs import METRICS, read_records
from fljax.recording.tensorboard_sink import numbers_of

MLFLOW_MODES = ("disabled", "offline", "online")
DATABASE = "mlflow.db"
_RUN_ID = "mlflow_run_id.txt"
# What MLflow takes in one call, and seconds after which records are sent.
_MOST_METRICS, _MOST_PARAMS, _LONGEST = 1000, 100, 500
_FLUSH_SECONDS = 5.0


def mlflow_sink(
    mode: str,
    *,
    experiment: str = "fljax",
    name: str | None = None,
    uri: str | None = None,
    config: Mapping[str, Any] | None = None,
    workdir: str | Path | None = None,
) -> Sink:
    """Opens an MLflow run and returns the sink that feeds it.

    Every number of a record is a metric at its round, the configuration is the run's parameters,
    and numbers of the summary are metrics below `summary/`. The run's id is kept in the workdir,
    and a later call with the same workdir goes on with that run: rounds that MLflow has are not
    sent again, and those that a kill kept from it are, from `metrics.jsonl`. Offline runs never
    touch the network.

    Args:
      mode: "disabled", "offline" or "online".
      experiment: Name of the experiment, created if absent.
      name: Of the run; that of the workdir if None.
      uri: Where to: of an online run a server, $MLFLOW_TRACKING_URI if None; of an offline one a
        database such as "sqlite:///runs/mlflow.db", `mlflow.db` in the workdir if None.
      config: The run's configuration.
      workdir: The run's directory; None for the current one, and no resuming.

    Raises:
      ValueError: An unknown mode; an online run without a server, or an offline one with one.
      ImportError: MLflow is not installed.

    Example:
      >>> sink = recording.mlflow_sink("disabled")  # or "offline", "online"
      >>> sink.write({"round": 1, "train/loss": 0.5})
      >>> sink.close(True)
    """
    checked("mode", mode, Field("disabled", str, MLFLOW_MODES))
    if mode == "disabled":
        return Sink(lambda record: None, lambda summary: None, lambda succeeded: None)
    place = _uri(mode, uri, workdir)
    if mode == "offline":
        # before the import, which else tells MLflow's makers that it is used
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with optional.needed("mlflow"):
        from mlflow import MlflowClient
    # the console stays the program's own
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)

    client = MlflowClient(tracking_uri=place)
    run_id = _run_id(client, experiment, name, config, workdir)
    sent = int(client.get_run(run_id).data.metrics.get("round", -1))
    waiting: list[Any] = []
    state = {"sent": sent, "flushed": time.monotonic(), "begun": False}

    def flush() -> None:
        for start in range(0, len(waiting), _MOST_METRICS):
            client.log_batch(run_id, metrics=waiting[start : start + _MOST_METRICS])
        waiting.clear()
        state["flushed"] = time.monotonic()

    def add(record: Mapping[str, Any]) -> None:
        if record["round"] > state["sent"]:
            waiting.extend(_metrics(numbers_of(record), record["round"]))
            state["sent"] = record["round"]

    def write(record: Mapping[str, Any]) -> None:
        if not state["begun"] and workdir is not None:
            for _, earlier in read_records(Path(workdir) / METRICS, record["round"] - 1):
                add(earlier)
        state["begun"] = True
        add(record)
        is_late = time.monotonic() - state["flushed"] >= _FLUSH_SECONDS
        if is_late or len(waiting) >= _MOST_METRICS:
            flush()

    def summary(found: Mapping[str, Any]) -> None:
        named = ((f"summary/{name}", value) for name, value in numbers_of(found))
        waiting.extend(_metrics(named, found.get("rounds") or 0))
        flush()

    def close(succeeded: bool) -> None:
        flush()
        client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED")

    return Sink(write, summary, close)


def _uri(mode: str, uri: str | None, workdir: str | Path | None) -> str:
    """Returns where records go; raises ValueError where that contradicts the mode."""
    if mode == "online":
        if found := uri or os.environ.get("MLFLOW_TRACKING_URI"):
            return found
        raise ValueError(
            "mode = 'online' needs a server: give uri, or set the variable MLFLOW_TRACKING_URI."
        )
    if uri is None:
        return f"sqlite:///{(Path(workdir or '.') / DATABASE).resolve()}"
    if not uri.startswith(("sqlite:", "file:")):
        raise ValueError(
            f"uri = {uri!r} is no local database, which mode = 'offline' needs, such as "
            "'sqlite:///runs/mlflow.db'. Give one, or mode='online'."
        )
    return uri


def _run_id(
    client: Any,
    experiment: str,
    name: str | None,
    config: Mapping[str, Any] | None,
    workdir: str | Path | None,
) -> str:
    """Returns the id kept in the workdir, that of a new run the first time."""
    path = None if workdir is None else Path(workdir) / _RUN_ID
    if path is not None and path.exists():
        run_id = path.read_text().strip()
        client.update_run(run_id, status="RUNNING")
        return run_id
    found = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if found is None else found.experiment_id
    called = name or (path and path.resolve().parent.name)
    run_id = client.create_run(number, run_name=called).info.run_id
    _log_config(client, run_id, jsonio.plain(config or {}))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(run_id.encode())
    return run_id


def _log_config(client: Any, run_id: str, config: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(key, text[:_LONGEST]) for key, text in _texts(config)]
    for start in range(0, len(params), _MOST_PARAMS):
        client.log_batch(run_id, params=params[start : start + _MOST_PARAMS])


def _texts(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yields (key, text) of what is set, nested keys with dots."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _texts(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def _metrics(named: Iterable[tuple[str, float]], round: int) -> list[Any]:
    """Returns metrics at a round; its number comes last, so that it tells that all are there."""
    from mlflow.entities import Metric

    now = int(1000 * time.time())
    ordered = sorted(named, key=lambda pair: pair[0] == "round")
    return [Metric(name, value, now, round) for name, value in ordered]

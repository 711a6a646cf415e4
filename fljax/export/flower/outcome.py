"""Writes what a deployment leaves behind, as a run of `fljax.simulate` leaves it.

So `fljax.load_run`, `fljax.predictor` and `fljax report` read a deployment like a simulation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fljax.core import metrics
from fljax.export.flower.server import Progress, Server, variables
from fljax.recording import Recorder, summarize, versions
from fljax.recording.models import FINAL, model_path, save_model
from fljax.training.model_files import about_model


def begin(server: Server, recorder: Recorder, config: Mapping[str, Any]) -> None:
    """Writes the configuration of a deployment.

    Args:
      server: Whose rounds are recorded.
      recorder: Of its directory.
      config: Of the app.
    """
    blueprint = server.deployment.blueprint
    known = {
        "num_clients": blueprint.dataset.members,
        "configured_clients": config.get("num_clients"),
        "metrics": metrics.plain(blueprint.task.metrics),
        "versions": versions(),
    }
    recorder.write_config({**config, **known})


def finish(server: Server, progress: Progress, recorder: Recorder) -> None:
    """Writes the model and the summary of a deployment that has ended.

    Args:
      server, recorder: As for `begin`; the recorder has a directory.
      progress: Behind the last round.

    Example:
      >>> from fljax.export.flower.deployment import deploy
      >>> from fljax.export.flower.server import make_server, start
      >>> config = {"clients_per_round": 5, "num_clients": 10, "partition": "iid"}
      >>> config |= {"dataset": "digits", "model": "softmax_regression"}
      >>> server = make_server(deploy(config))
      >>> with recording.Recorder("runs/deployed") as recorder:
      ...     begin(server, recorder, config)
      ...     finish(server, start(server), recorder)
      >>> run = fljax.load_run("runs/deployed")
      >>> run.variables, run.config["configured_clients"]
      (Variables(650 parameters in 2 arrays), 10)
    """
    deployment = server.deployment
    blueprint = deployment.blueprint
    dataset, task, options = blueprint.dataset, blueprint.task, blueprint.options
    about = about_model(dataset, task, progress.round, "a deployment is not evaluated")
    path = model_path(recorder.workdir, FINAL)
    save_model(path, variables(server, progress), deployment.inputs.frozen, about)
    summary = summarize(
        recorder.records,
        num_clients=dataset.members,
        clients_per_round=options.clients_per_round,
        seed=options.seed,
        metric=task.metrics[0],
    )
    recorder.write_summary({**summary, "interrupted": False, "stopped": None})

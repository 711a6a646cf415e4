"""Names the further places that a configuration sends records to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fljax.recording.mlflow_sink import mlflow_sink
from fljax.recording.recorder import Sink
from fljax.recording.tensorboard_sink import tensorboard_sink
from fljax.recording.wandb_sink import wandb_sink


def sinks_of(config: Mapping[str, Any], workdir: str | Path) -> list[Callable[[], Sink]]:
    """Returns what opens the sinks that a configuration turns on, in the order of its keys.

    Args:
      config: As a plain dict, from `fljax.config.to_plain`.
      workdir: The run's directory.

    Example:
      >>> from fljax.recording.sinks import sinks_of
      >>> config = {"wandb": {"mode": "offline"}, "mlflow": {"mode": "disabled"}}
      >>> len(sinks_of(config | {"tensorboard": True}, "runs/first"))
      2
    """
    found: list[Callable[[], Sink]] = []
    for name, open_sink in (("wandb", wandb_sink), ("mlflow", mlflow_sink)):
        options = config[name]
        if options["mode"] != "disabled":
            found.append(functools.partial(open_sink, **options, config=config, workdir=workdir))
    if config["tensorboard"]:
        found.append(functools.partial(tensorboard_sink, workdir, config=config))
    return found

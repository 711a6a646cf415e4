"""Leaves out of a run what a page cannot show: values of another kind than runs have.

A configuration may have been written by the user's own loop, or changed by hand. The page then
shows the rest, and says what it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fljax.core.values import Field, checked
from fljax.recording.runs import CONFIG, SUMMARY, Run

_CONFIG = {
    **dict.fromkeys(("num_clients", "clients_per_round", "num_rounds"), int),
    **dict.fromkeys(("target", "target_accuracy"), float),
    **dict.fromkeys(("execution", "numerics", "versions", "wandb", "mlflow"), dict),
    **dict.fromkeys(("model_options", "dataset_options"), dict),
}
_SUMMARY = {
    **dict.fromkeys(("final", "best", "to_target", "versions", "privacy", "selection"), dict),
    **dict.fromkeys(("seconds", "compile_seconds", "seconds_per_round_median"), float),
    **dict.fromkeys(("clients_per_second", "examples_per_second", "utilization"), float),
    "peak_memory_bytes": float,
    "num_clients": int,
}
_OF_A_ROUND = {"round": int, "rounds": int, "selected_by": str}


def sieved(run: Run) -> tuple[Run, list[str]]:
    """Returns a run without values that a page cannot show, and a sentence on each of them.

    Example:
      >>> with recording.Recorder("runs/first") as recorder:
      ...     recorder.write_config({"num_clients": "ten", "client_lr": 0.1})
      ...     recorder.write({"round": 1})
      >>> run, left_out = sieved(fljax.load_run("runs/first"))
      >>> run.config, left_out
      ({'client_lr': 0.1}, ["config.json: num_clients = 'ten' (str) must be a whole number. It is \
left out."])
    """
    left_out: list[str] = []
    config = _fitting(run.config, _CONFIG, CONFIG, left_out)
    summary = run.summary
    if summary:
        summary = _fitting(summary, _SUMMARY, SUMMARY, left_out)
        for part in ("final", "best", "to_target"):
            if summary.get(part):
                numbers = {key: float for key in summary[part] if "/" in key}
                found = _fitting(
                    summary[part], numbers | _OF_A_ROUND, f"{SUMMARY}, {part}", left_out
                )
                # a round of which something is missing is not known
                summary[part] = found if found == summary[part] else None
    return run._replace(config=config, summary=summary), left_out


def _fitting(
    values: Mapping[str, Any], kinds: Mapping[str, type], where: str, left_out: list[str]
) -> dict[str, Any]:
    """Returns the values that are of their kind or unset, and adds to `left_out`."""
    found = {}
    for name, value in values.items():
        try:
            if name in kinds:
                checked(name, value, Field(None, kinds[name], optional=True))
            found[name] = value
        except ValueError as error:
            left_out.append(f"{where}: {error} It is left out.")
    return found

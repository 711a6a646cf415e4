"""What a run is good for: its metrics, of all clients, of each, and of groups of rows."""

from __future__ import annotations

from typing import Any

from fljax.data.dataset import FederatedDataset
from fljax.recording.runs import Run

_GROUPS = "eval/groups/"


def utility_of(run: Run, dataset: FederatedDataset) -> dict[str, Any]:
    """Returns the metrics of a run's last round, as JSON values.

    Args:
      run: The run.
      dataset: Its data.

    Returns:
      {"metrics": names, the first one is what the task is judged by; "test": {metric: number};
      "clients": a dict of name, examples and metrics for each client, where `eval_clients` had
      them evaluated; "groups": {"NAME/VALUE/METRIC": number}; "baselines": {name: as "test"}}.
    """
    names = [metric.name for metric in run.metrics]
    final = run.summary["final"]
    return {
        "metrics": names,
        "test": _of_test(final, names),
        "clients": _of_clients(run, names),
        "groups": {
            key.removeprefix(_GROUPS): value
            for key, value in final.items()
            if key.startswith(_GROUPS)
        },
        "baselines": {
            name: _of_test(baseline.summary["final"], names)
            for name, baseline in run.baselines.items()
        },
    }


def _of_test(final: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: final[key] for name in names if final.get(key := f"eval/test/{name}") is not None}


def _of_clients(run: Run, names: list[str]) -> list[dict[str, Any]]:
    found = run.client_metrics
    if found is None:
        return []
    labels = found.get("id", found["client"])
    return [
        {"client": str(labels[place]), "examples": int(found["examples"][place])}
        | {name: float(found[name][place]) for name in names if name in found}
        for place in range(len(labels))
        if found["split"][place] == "training"
    ]

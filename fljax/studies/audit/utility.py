"""Utility of a run: its metrics, of all clients, of each, and of groups of rows."""

from __future__ import annotations

from typing import Any

from fljax.recording.runs import Run

# Where metrics are, in this order: of test rows of the global model, or of clients' own models.
_PLACES = ("eval/test/", "eval/personal/")


def utility_of(run: Run) -> dict[str, Any]:
    """Returns the metrics of a run's last round, as JSON values.

    Args:
      run: The run.

    Returns:
      {"metrics": names, the first one is what the task is judged by; "of": "test", or "personal"
      where clients' own models alone are judged; "test": {metric: number}; "clients": a dict of
      name, examples and metrics for each client, where they were evaluated one by one; "groups":
      {"NAME/VALUE/METRIC": number}, gaps between groups among them; "baselines": {name: as
      "test"}}.
    """
    names = [metric.name for metric in run.metrics]
    final = run.summary["final"]
    place = next((each for each in _PLACES if f"{each}{names[0]}" in final), _PLACES[0])
    return {
        "metrics": names,
        "of": place.split("/")[1],
        "test": _of(final, names, place),
        "clients": _of_clients(run, names),
        "groups": _of_groups(final, place),
        "baselines": {
            name: _of(baseline.summary["final"], names, _PLACES[0])
            for name, baseline in run.baselines.items()
        },
    }


def _of(final: dict[str, Any], names: list[str], place: str) -> dict[str, Any]:
    return {name: final[key] for name in names if final.get(key := f"{place}{name}") is not None}


def _of_groups(final: dict[str, Any], place: str) -> dict[str, Any]:
    """Returns metrics of groups of rows, and the gaps between them."""
    base = place if place == _PLACES[1] else "eval/"
    starts = [f"{base}{kind}/" for kind in ("groups", "fairness")]
    return {
        key.removeprefix(start): value
        for start in starts
        for key, value in final.items()
        if key.startswith(start)
    }


def _of_clients(run: Run, names: list[str]) -> list[dict[str, Any]]:
    found = run.client_metrics
    if found is None:
        return []
    own = "" if "client" in found else "personal/"
    clients = found[f"{own}client"]
    labels = found.get(f"{own}id", clients)
    return [
        {"client": str(labels[place]), "examples": int(found[f"{own}examples"][place])}
        | {name: float(found[own + name][place]) for name in names if own + name in found}
        for place in range(len(clients))
        if found[f"{own}split"][place] == "training"
    ]

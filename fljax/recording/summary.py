"""The summary of a run: what `summary.json` says."""

from __future__ import annotations

import functools
import importlib.metadata
import math
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fljax import __version__
from fljax.core.metrics import ACCURACY, Metric

Record = Mapping[str, Any]

# The clock of a run that has simulated time.
SIMULATED = "time/simulated_seconds"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def summarize(
    records: Sequence[Record],
    *,
    num_clients: int,
    clients_per_round: int,
    seed: int,
    metric: Metric = ACCURACY,
    target: float | None = None,
    compile_seconds: float | None = None,
) -> dict[str, Any]:
    """Condenses the records of a run.

    Rates and seconds per round are medians over rounds, so that compilation and evaluation do not
    weigh on them.

    Args:
      records: One a round, as in `Recorder.records`; `round` counts completed rounds.
      num_clients: Size of the population.
      clients_per_round: Size of the cohort.
      seed: The run's seed.
      metric: The task's first metric, which chooses the best round.
      target: Value of it, see `to_target`; None for no target.
      compile_seconds: Seconds spent on compilation.

    Returns:
      The dict of `summary.json`; a figure that the records do not give is None.

    Example:
      >>> records = [{"round": r, "eval/val/accuracy": v} for r, v in ((1, 0.8), (2, 0.7))]
      >>> summary = recording.summarize(records, num_clients=100, clients_per_round=10, seed=0)
      >>> summary["rounds"], summary["best"]["round"], summary["seconds"]
      (2, 1, None)
    """
    return {
        "final": final(records),
        "best": best(records, metric),
        "no_best": no_best(records, metric),
        "to_target": to_target(records, target, metric),
        "rounds": records[-1]["round"] if records else 0,
        "num_clients": num_clients,
        "clients_per_round": clients_per_round,
        "seconds": _last(records, "time/elapsed_seconds"),
        "seconds_per_round_median": _median(records, "time/round_seconds"),
        "compile_seconds": compile_seconds,
        "clients_per_second": _median(records, "throughput/clients_per_second"),
        "examples_per_second": _median(records, "throughput/examples_per_second"),
        "utilization": _mean(records, "utilization"),
        "uplink_bytes": _last(records, "comm/uplink_bytes"),
        "downlink_bytes": _last(records, "comm/downlink_bytes"),
        "transfer_seconds": _last(records, "comm/transfer_seconds"),
        "simulated_seconds": _last(records, SIMULATED),
        "peak_memory_bytes": peak_memory_bytes(),
        "host_peak_memory_bytes": host_peak_memory_bytes(),
        "seed": seed,
        "device": device(),
        "versions": versions(),
    }


def final(records: Sequence[Record]) -> dict[str, Any] | None:
    """Returns round, training loss and metrics of the last evaluation.

    Without any evaluation, those of the last round; None without records.

    Example:
      >>> recording.final([{"round": 1, "eval/test/loss": 0.7}, {"round": 2, "train/loss": 0.5}])
      {'round': 1, 'eval/test/loss': 0.7}
    """
    evaluated = [record for record in records if _evaluation(record)]
    last = (evaluated or list(records))[-1:]
    return _metrics(last[0]) if last else None


def best(records: Sequence[Record], metric: Metric = ACCURACY) -> dict[str, Any] | None:
    """Chooses a round on validation data and returns the metrics of that round.

    The best value of the metric wins, such as the highest `eval/val/accuracy`, and the earliest
    round among equals. Without a validation set the choice falls on test data, which flatters the
    result, and `selected_by` says so.

    Args:
      records: One a round.
      metric: The task's first metric.

    Returns:
      {"selected_by": "val" | "test", "metric": key, "round": ..., "train/loss": ..., "eval/...":
      ...}, or None if nothing was evaluated to a finite number.

    Example:
      >>> records = [{"round": r, "eval/val/accuracy": v} for r, v in ((1, 0.5), (2, 0.8))]
      >>> recording.best(records)
      {'selected_by': 'val', 'metric': 'eval/val/accuracy', 'round': 2, 'eval/val/accuracy': 0.8}
    """
    key = _deciding_key(records, metric)
    candidates = [record for record in records if key and _finite(record.get(key))]
    if not candidates:
        return None
    chosen = max(candidates, key=lambda record: metric.sign * record[key])
    return {"selected_by": key.split("/")[1], "metric": key, **_metrics(chosen)}


def no_best(records: Sequence[Record], metric: Metric = ACCURACY) -> str | None:
    """Returns why no round is the best although some were evaluated; None where there is one.

    Args:
      records: One a round.
      metric: The task's first metric.

    Example:
      >>> no_best([{"round": r, "eval/val/accuracy": float("nan")} for r in (1, 2)])
      'eval/val/accuracy was no finite number in any of 2 evaluations'
    """
    key = _deciding_key(records, metric)
    if key is None or best(records, metric) is not None:
        return None
    evaluations = sum(key in record for record in records)
    return f"{key} was no finite number in any of {evaluations} evaluations"


def to_target(
    records: Sequence[Record], target: float | None, metric: Metric = ACCURACY
) -> dict[str, Any] | None:
    """Returns what it cost to reach a value of a metric for the first time.

    Counted on test data, as rounds-to-accuracy is reported since McMahan et al., 2017
    (arXiv:1602.05629); on validation data if no test set was evaluated.

    Args:
      records: One a round.
      target: The value, which a better one reaches as well; None for no target.
      metric: The task's first metric.

    Returns:
      {"target_NAME" of the metric, "metric", "rounds", "seconds", "bytes", "uplink_bytes",
      "downlink_bytes", "transfer_seconds", "simulated_seconds"}, `bytes` both ways, all of them 0
      where the initial model (round 0) reached it; or None if there is no target or it was never
      reached. "transfer_seconds" is None where transfers are not simulated, "simulated_seconds"
      where time is not.

    Example:
      >>> records = [{"round": r, "eval/test/error": v} for r, v in ((1, 0.5), (2, 0.2), (3, 0.1))]
      >>> found = recording.to_target(records, 0.3, fljax.tasks.Metric("error", "lower"))
      >>> found["target_error"], found["rounds"]
      (0.3, 2)
    """
    if target is None:
        return None
    keys = [f"eval/{split}/{metric.name}" for split in ("test", "val")]
    key = next((key for key in keys if any(key in record for record in records)), None)
    for record in records:
        value = record.get(key)
        if _finite(value) and metric.sign * value >= metric.sign * target:
            return {
                f"target_{metric.name}": target,
                "metric": key,
                "rounds": record["round"],
                "seconds": _spent(record, "time/elapsed_seconds", records),
                "bytes": _total_bytes(record, records),
                "uplink_bytes": _spent(record, "comm/uplink_bytes", records),
                "downlink_bytes": _spent(record, "comm/downlink_bytes", records),
                "transfer_seconds": _spent(record, "comm/transfer_seconds", records),
                "simulated_seconds": _spent(record, SIMULATED, records),
            }
    return None


def versions() -> dict[str, str | None]:
    """Returns the versions of Python and of what computes; None for a package not installed.

    Example:
      >>> sorted(recording.versions())
      ['flax', 'fljax', 'jax', 'jaxlib', 'numpy', 'optax', 'python']
    """
    # a checkout that is not installed has a version, too
    found: dict[str, str | None] = {"python": platform.python_version(), "fljax": __version__}
    return found | {package: _version(package) for package in _PACKAGES}


@functools.cache  # which reads files
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def device() -> str:
    """Names the devices that JAX computes on, such as `8 x NVIDIA H100` or `2 x cpu`.

    Example:
      >>> recording.device()  # doctest: +SKIP
    """
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def peak_memory_bytes() -> int | None:
    """Returns the most memory used at once: by the fullest accelerator, or by the process.

    Example:
      >>> recording.peak_memory_bytes() > 1e6
      True
    """
    stats = [device.memory_stats() for device in jax.local_devices() if device.platform != "cpu"]
    peaks = [stat["peak_bytes_in_use"] for stat in stats if stat and "peak_bytes_in_use" in stat]
    return max(peaks) if peaks else host_peak_memory_bytes()


def host_peak_memory_bytes() -> int | None:
    """Returns the process's largest resident size; None where the system does not tell.

    Example:
      >>> recording.host_peak_memory_bytes() > 1e6
      True
    """
    try:
        # on Linux, getrusage would include the process that this one was forked from
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    if own := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
        return 1024 * int(own[1])
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kibibytes, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def _deciding_key(records: Sequence[Record], metric: Metric) -> str | None:
    """Returns the key that chooses the best round: on validation data, if there are some."""
    keys = [f"eval/{split}/{metric.name}" for split in ("val", "test")]
    return next((key for key in keys if any(key in record for record in records)), None)


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _evaluation(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key.startswith("eval/")}


def _metrics(record: Record) -> dict[str, Any]:
    basics = {key: record[key] for key in ("round", "train/loss") if key in record}
    return basics | _evaluation(record)


_ALWAYS_COUNTED = ("time/elapsed_seconds", "comm/uplink_bytes", "comm/downlink_bytes")


def _spent(record: Record, key: str, records: Sequence[Record]) -> float | int | None:
    """Returns a running total at a record; that of round 0, which holds none, is 0."""
    at_start = record.get("round") == 0 and (
        key in _ALWAYS_COUNTED or any(key in record for record in records)
    )
    return record.get(key, 0 if at_start else None)


def _total_bytes(record: Record, records: Sequence[Record]) -> int | None:
    counts = [_spent(record, f"comm/{side}_bytes", records) for side in ("uplink", "downlink")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _last(records: Sequence[Record], key: str) -> Any:
    """Returns the newest value; a run that ended at round 0 has spent nothing."""
    found = (record[key] for record in reversed(records) if key in record)
    return next(found, _spent(records[-1], key, records) if records else None)


def _values(records: Sequence[Record], key: str) -> list[float]:
    return [record[key] for record in records if _finite(record.get(key))]


def _median(records: Sequence[Record], key: str) -> float | None:
    values = _values(records, key)
    return float(np.median(values)) if values else None


def _mean(records: Sequence[Record], key: str) -> float | None:
    values = _values(records, key)
    return float(np.mean(values)) if values else None

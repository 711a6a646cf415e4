"""Runs a workload file in fljax: what `scripts/run_workload.py` prints."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from fljax import algorithms, models
from fljax.benchmarks import neutral, workload_file
from fljax.benchmarks.timing import time_rounds
from fljax.benchmarks.workload_file import WorkloadFile
from fljax.data.dataset import ArrayExamples, FederatedDataset, Partition, Split
from fljax.recording import host_peak_memory_bytes, versions
from fljax.tasks import classification
from fljax.training.evaluations import make_evaluations
from fljax.training.federation import Federation, RoundOptions, build


def run(path: str | Path, workload: str, rounds: int = 5, **options: Any) -> dict[str, Any]:
    """Runs one first round and `rounds` timed ones; returns what the comparison asks for.

    Args:
      path: A workload file.
      workload: The name that the file must have.
      rounds: Timed rounds.
      **options: Fields of `RoundOptions` beyond the workload's, such as lanes.

    Returns:
      Seconds a round (median_s_per_round, min, max, times), first_round_s (building and compiling
      included), examples_per_s, clients_per_s, peak_rss_mb before the evaluation, and
      final_train_loss: the mean loss on the evaluation examples after all rounds, dropout off.

    Raises:
      ValueError: If the file holds another workload, or a model that fljax does not have.
    """
    content = workload_file.read(path)
    if content.meta["name"] != workload:
        raise ValueError(f"{path} holds the workload {content.meta['name']!r}, not {workload!r}.")
    begin = time.perf_counter()
    federation = make_federation(content, rounds + 1, **options)
    (first, *seconds), facts = time_rounds(federation, rounds + 1, begin)
    peak = host_peak_memory_bytes()
    evaluations = make_evaluations(federation)
    losses, _ = evaluations.finish(evaluations.dispatch(federation, rounds + 1))
    median = statistics.median(seconds)
    rates = [planned.rows_real / second for planned, second in zip(facts[1:], seconds, strict=True)]
    return {
        "peer": "fljax",
        "workload": workload,
        "rounds": rounds,
        "median_s_per_round": median,
        "min": min(seconds),
        "max": max(seconds),
        "first_round_s": first,
        "examples_per_s": statistics.median(rates),
        "clients_per_s": content.cohorts.shape[1] / median,
        "peak_rss_mb": None if peak is None else peak / 2**20,
        "final_train_loss": losses["eval/test/loss"],
        "times": seconds,
        "rounds_per_dispatch": federation.rounds_per_dispatch,
        "execution": federation.execution.as_plain(),
        "versions": versions(),
    }


def make_federation(content: WorkloadFile, rounds: int, **options: Any) -> Federation:
    """Builds the federation that a workload file describes."""
    meta = content.meta
    dataset = FederatedDataset(
        name=meta["name"],
        kind="classification",
        num_classes=meta["classes"],
        train=Split(ArrayExamples({"x": content.x, "y": content.y}), Partition(content.offsets)),
        test=Split(ArrayExamples({"x": content.eval_x, "y": content.eval_y})),
    )
    name, model_options = neutral.model_of(meta["model"], content.params)
    model = models.make(name, meta["classes"], meta["shape"], **model_options)
    return build(
        dataset,
        classification(model, meta["classes"]),
        algorithms.fedavg(meta["lr"], meta["server_lr"]),
        RoundOptions(
            num_rounds=rounds,
            clients_per_round=content.cohorts.shape[1],
            cohorts=content.cohorts_of(rounds),
            local_epochs=meta["epochs"],
            batch_size=meta["batch"],
            shuffle=False,
            initial_params=neutral.to_fljax(meta["model"], content.params),
            **({"calibrate": True} | options),
        ),
    )

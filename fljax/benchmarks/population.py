"""Times rounds of one cohort size in small and large populations.

The rows of all clients lie in a file that is mapped into memory, or are generated when they are
asked for; only the cohort's rows ever reach a device. A round is timed as in
`fljax.benchmarks.timing`: from the arrival of one server model to that of the next.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fljax import algorithms, data, models
from fljax.data.dataset import FederatedDataset, Partition, offsets_of
from fljax.recording import host_peak_memory_bytes
from fljax.tasks import classification
from fljax.training.federation import RoundOptions, build

PIXELS, CLASSES = 196, 10
SOURCES = ("memmap", "generated")
_CHUNK = 1 << 18


def population_scaling(
    populations: Sequence[int] = (10_000, 1_000_000), cohort: int = 1000, **options: Any
) -> dict[str, Any]:
    """Runs the same cohort size over several populations, smallest first.

    Args:
      populations: Numbers of clients.
      cohort: Clients a round.
      **options: Those of `run`.

    Peak memory is the process's, so give each population a process of its own to compare it.

    Returns:
      {"runs": what `run` returns for each, "ratio": median seconds a round of the largest
      population over the smallest}.
    """
    runs = [run(population, cohort, **options) for population in sorted(populations)]
    return {"runs": runs, "ratio": runs[-1]["seconds_median"] / runs[0]["seconds_median"]}


def run(
    population: int,
    cohort: int = 1000,
    rounds: int = 20,
    placement: str = "stream",
    *,
    source: str = "memmap",
    directory: str | Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Times rounds of softmax regression; returns the figures.

    Args:
      population: Number of clients.
      cohort: Clients a round.
      rounds: Timed rounds; one more, which compiles, comes before.
      placement: "stream", or "device" where the data are to be compared there.
      source: "memmap" writes 10 to 30 rows a client of 196 bytes (4 GB for a million clients) to a
        file and forgets what the system holds of it in memory; "generated" takes Synthetic(1, 1)
        with 50 to 100 rows a client, row by row a hash.
      directory: Where the file lies while it is needed; the system's temporary directory by
        default.
      seed: Seed of data and run.

    Raises:
      ValueError: For another source.
    """
    if source not in SOURCES:
        raise ValueError(f"source = {source!r}; choose {' or '.join(map(repr, SOURCES))}.")
    with tempfile.TemporaryDirectory(dir=directory, prefix="fljax-") as folder:
        if source == "memmap":
            dataset = mapped_images(Path(folder), population, seed)
        else:
            dataset = data.synthetic(
                1, 1, num_clients=population, seed=seed, max_size=111, materialize=False
            )
        return {"source": source} | timed(dataset, cohort, rounds, placement, seed)


def mapped_images(folder: Path, population: int, seed: int = 0) -> FederatedDataset:
    """Writes noisy class prototypes to files in a folder, and returns them mapped into memory."""
    generator = np.random.default_rng(seed)
    offsets = offsets_of(generator.integers(10, 31, population))
    prototypes = generator.integers(0, 128, (CLASSES, PIXELS), np.uint8)
    paths = [folder / "x.bin", folder / "y.bin"]
    with open(paths[0], "wb") as images, open(paths[1], "wb") as labels:
        for start in range(0, offsets[-1], _CHUNK):
            y = generator.integers(0, CLASSES, min(_CHUNK, offsets[-1] - start), np.int32)
            x = generator.integers(0, 128, (len(y), PIXELS), np.uint8) + prototypes[y]
            x.tofile(images)
            y.tofile(labels)
    for path in paths:
        _forget(path)
    return data.from_arrays(
        np.memmap(paths[0], np.uint8, "r", shape=(offsets[-1], PIXELS)),
        np.memmap(paths[1], np.int32, "r", shape=(offsets[-1],)),
        partition=Partition(offsets),
        num_classes=CLASSES,
        preprocess=lambda batch: {**batch, "x": batch["x"].astype(np.float32) / 255},
    )


def _forget(path: Path) -> None:
    """Writes a file back and drops it from the system's cache, so that it is read from disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(dataset: FederatedDataset, cohort: int, rounds: int, placement: str, seed: int):
    """Returns the figures of `rounds` rounds after a first one."""
    begin = time.perf_counter()
    federation = build(
        dataset,
        classification(
            models.make("softmax_regression", CLASSES, dataset.spec["x"].shape), CLASSES
        ),
        algorithms.fedavg(0.05),
        RoundOptions(
            num_rounds=rounds + 1,
            clients_per_round=cohort,
            batch_size=10,
            placement=placement,
            calibrate=True,
            seed=seed,
        ),
    )
    build_seconds = time.perf_counter() - begin
    seconds, planning, rows, memory, processor = [], [], [], [], []
    begin, busy = time.perf_counter(), time.process_time()
    for plan, facts in federation.plans(0, rounds + 1):
        federation.step(plan, facts)
        jax.block_until_ready(federation.state)
        end = time.perf_counter()
        seconds.append(end - begin)
        begin = end
        processor.append(time.process_time() - busy)
        busy += processor[-1]
        planning.append(facts.seconds)
        rows.append(facts.rows_real)
        memory.append(_anonymous_bytes())
    return {
        "population": dataset.num_clients,
        "cohort": cohort,
        "rounds": rounds,
        "placement": federation.execution.placement,
        "data_bytes": dataset.train.examples.nbytes,
        "rows_per_round": statistics.mean(rows[1:]),
        "build_seconds": build_seconds,
        "first_round_seconds": seconds[0],
        "seconds_median": statistics.median(seconds[1:]),
        "seconds_max": max(seconds[1:]),
        "cpu_seconds_median": statistics.median(processor[1:]),
        "plan_seconds_median": statistics.median(planning[1:]),
        "plan_seconds_max": max(planning[1:]),
        "anonymous_memory_bytes": max(memory),
        "anonymous_memory_bytes_grown": memory[-1] - memory[len(memory) // 2],
        "peak_memory_bytes": host_peak_memory_bytes(),
    }


def _anonymous_bytes() -> int:
    """Returns what the process holds in memory now besides mapped files; 0 where Linux is not.

    The pages of a mapped file that were read count as resident too, though the system takes them
    back whenever somebody needs the memory.
    """
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024
    except OSError:
        return 0

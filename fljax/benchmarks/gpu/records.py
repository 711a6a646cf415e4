"""Holds the report's records: its size, a section's context, and the table that it returns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fljax.benchmarks.comparison import Runner


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of the report.

    Attributes:
      rounds: Rounds of the protocols.
      eval_every: Rounds between evaluations of CIFAR-10; ten times as many for EMNIST.
      population: Clients of CIFAR-10, of 50 images each.
      cohort: Clients a round of CIFAR-10.
      writers: Clients of EMNIST.
      shapes: {"color": input shape of CIFAR-10's CNN, "gray": EMNIST's}.
      test_rows: Size of generated test sets.
      real_data: Whether CIFAR-10 is looked for in the data directory.
      cohorts: Cohort sizes of the scaling table, the most important one first.
      lanes: Numbers of lanes that are tried.
      lanes_cohort: Cohort they are tried with.
      timed_rounds: Timed rounds of a single figure.
      precisions: Of matrix products, where both are measured; the important one first.
      small_cohort: Clients a round of the softmax regression, all that there are.
      flag_cases: Cases that run under every option of XLA (`cases.py`).
      peak_sizes: Sizes of the matrices of the peak; None chooses.
      peak_operations: Of a timed run of their products, at least; None chooses.
      conv_layers: Layers whose forms are compared, of `fljax.benchmarks.kernels.layers.LAYERS`.
      conv_clients: For how many clients side by side; 0 is one without that axis.
      conv_batch: Batch of each client.
      cpu_rounds: Rounds of the run on the CPU.
      peer_workloads: What runners are given, of `fljax.benchmarks.workloads.WORKLOADS`.
      peer_rounds: Timed rounds of a runner.
      peer_repetitions: How often each runner is run.
      calibrate: Whether layouts are searched for, which compiles each candidate.
    """

    rounds: int = 1500
    eval_every: int = 10
    population: int = 1000
    cohort: int = 50
    writers: int = 3400
    shapes: Mapping[str, tuple[int, int, int]] = dataclasses.field(
        default_factory=lambda: {"color": (32, 32, 3), "gray": (28, 28, 1)}
    )
    test_rows: int = 10_000
    real_data: bool = True
    cohorts: tuple[int, ...] = (1000, 100, 10, 10_000)
    lanes: tuple[int, ...] = (1, 16, 64, 256)
    lanes_cohort: int = 256
    timed_rounds: int = 5
    precisions: tuple[str, ...] = ("TF32", "float32")
    small_cohort: int = 1000
    flag_cases: tuple[str, ...] = (
        "softmax_1000",
        "cifar10_cnn_50",
        "cifar10_cnn_50:0:0:1000",
    )
    peak_sizes: tuple[int, ...] | None = None
    peak_operations: float | None = None
    conv_layers: tuple[str, ...] = (
        "CIFAR-10 CNN, second",
        "EMNIST CNN, second",
        "CIFAR-10 CNN, first",
        "EMNIST CNN, first",
        "ResNet, 16 x 16",
    )
    conv_clients: tuple[int, ...] = (50, 10)
    conv_batch: int = 20
    cpu_rounds: int = 150
    peer_workloads: tuple[str, ...] = ("cifar10_cnn_50", "emnist_cnn_10")
    peer_rounds: int = 10
    peer_repetitions: int = 2
    calibrate: bool = True


SIZES = {
    "full": Size(),
    # what continuous integration runs on a CPU: every line of code, no figure worth keeping
    "small": Size(
        rounds=2,
        eval_every=1,
        population=6,
        cohort=3,
        writers=4,
        shapes={"color": (8, 8, 3), "gray": (8, 8, 1)},
        test_rows=40,
        real_data=False,
        cohorts=(4,),
        lanes=(1, 2),
        lanes_cohort=4,
        timed_rounds=1,
        precisions=("TF32",),
        small_cohort=5,
        flag_cases=("softmax_60:2:0:4",),
        peak_sizes=(64,),
        peak_operations=1e7,
        conv_layers=("LeNet, second",),
        conv_clients=(0, 2),
        conv_batch=1,
        cpu_rounds=2,
        peer_workloads=("cifar10_cnn_50",),
        peer_rounds=1,
        peer_repetitions=1,
    ),
}


@dataclasses.dataclass(frozen=True)
class Bar:
    """The bar that a figure is held against.

    Attributes:
      what: The figure.
      found: Its value.
      limit: What it must not be above, or below.
      unit: Of both.
      at_least: Whether it must reach the limit instead of staying within it.
    """

    what: str
    found: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Says whether a figure is where it must be; a NaN never is."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit


@dataclasses.dataclass(frozen=True)
class Table:
    """The result of a section, or what it has found so far.

    Attributes:
      title: Its heading.
      notes: Sentences that stand above the table.
      columns: Names of the columns.
      rows: Their cells, as text.
      data: What other programs may want to read.
      problem: What is wrong with the figures; None if nothing is.
      bars: What figures are held against.
    """

    title: str
    notes: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    data: Any = None
    problem: str | None = None
    bars: Sequence[Bar] = ()


@dataclasses.dataclass(frozen=True)
class Context:
    """The context of a section.

    Attributes:
      size: How much is measured.
      workdir: Where results and files go.
      runners: Runners of other simulators.
      seconds: After so many the section is ended.
      is_cold: Whether the section has never run in this directory, so that it compiles all it runs.
    """

    size: Size
    workdir: Path
    runners: Mapping[str, Runner]
    seconds: float = math.inf
    is_cold: bool = True

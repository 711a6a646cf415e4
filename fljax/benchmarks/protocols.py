"""Times published protocols end to end: data, rounds and evaluations, once all has compiled."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fljax
from fljax import data
from fljax.benchmarks.machine import compilation_clock
from fljax.benchmarks.workloads import WORKLOADS, Workload, generate, make_model, make_task
from fljax.core.algorithm import AlgorithmSpec
from fljax.data.dataset import FederatedDataset

# JAX's names for the precision of float32 matrix products
PRECISIONS = {"float32": "highest", "TF32": "tensorfloat32"}
# (workload, rows of the test set) -> data
Generate = Callable[[Workload, int], FederatedDataset]
_POOL = 20_000
# shorter protocols only try out the code
_CALIBRATED_ROUNDS = 50


@dataclasses.dataclass(frozen=True)
class Protocol:
    """An experiment whose time is measured.

    Attributes:
      workload: Population, cohort, model, batch size.
      algorithm: What is run.
      rounds: Rounds that count.
      eval_every: Rounds between evaluations on the test set.
      test_rows: Size of the test set, where data are generated.
    """

    workload: Workload
    algorithm: AlgorithmSpec
    rounds: int
    eval_every: int
    test_rows: int


def cifar10(rounds: int = 1500, eval_every: int = 10) -> Protocol:
    """pfl-research's CIFAR-10 benchmark (arXiv:2404.06430): FedAvg, cohorts of 50."""
    workload = WORKLOADS["cifar10_cnn_50"]
    algorithm = fljax.algorithms.fedavg(workload.client_lr)
    return Protocol(workload, algorithm, rounds, eval_every, test_rows=10_000)


def emnist(rounds: int = 1500, eval_every: int = 100) -> Protocol:
    """FedJAX's EMNIST example (arXiv:2108.02117): cohorts of 10 writers, server Adam."""
    workload = dataclasses.replace(WORKLOADS["emnist_cnn_10"], population=3400, client_lr=10**-1.5)
    algorithm = fljax.algorithms.fedopt(
        "adam", workload.client_lr, 10**-2.5, beta1=0.9, beta2=0.999, tau=1e-4,
        bias_correction=True,
    )  # fmt: skip
    return Protocol(workload, algorithm, rounds, eval_every, test_rows=10_000)


def generated(workload: Workload, test_rows: int) -> FederatedDataset:
    """Generates the data of a workload."""
    return generate(workload, test_rows=test_rows)


def cifar10_data(
    protocol: Protocol, real: bool = True, make: Generate = generated
) -> tuple[FederatedDataset, str]:
    """Returns CIFAR-10 in clients of 50 images, or data of its shape; and which of both it is.

    Args:
      protocol: What the data are for.
      real: Whether to look for the images in the data directory.
      make: Generates data where there are none.
    """
    clients = protocol.workload.population
    try:
        if not real:
            raise FileNotFoundError
        options = {"partition": "iid", "download": False}
        found = data.load("cifar10", num_clients=1, **options)
        clients = min(clients, found.train.num_rows // 50)
        dataset = data.load("cifar10", num_clients=clients, **options)
        return dataset, f"{dataset.name}, {clients:,} clients"
    except FileNotFoundError:
        dataset = make(protocol.workload, protocol.test_rows)
        return dataset, f"synthetic data of CIFAR-10's shape, {clients:,} clients"


def emnist_data(protocol: Protocol, make: Generate = generated) -> tuple[FederatedDataset, str]:
    """Returns data of EMNIST's shape: prototypes of 62 classes plus noise."""
    # images of their own for 3,400 writers would be 2 GB
    workload = dataclasses.replace(protocol.workload, pool=_POOL)
    dataset = make(workload, protocol.test_rows)
    writers = f"{workload.population:,} writers, whose rows are drawn from {_POOL:,} images"
    return dataset, f"synthetic data of EMNIST's shape, {writers}"


def run(
    protocol: Protocol, dataset: FederatedDataset, precision: str | None, **options: Any
) -> dict[str, Any]:
    """Runs a protocol and times it after compilation.

    As many rounds as lie between two evaluations come first and are not counted: within them,
    everything compiles.

    Args:
      protocol: What is run.
      dataset: Its data.
      precision: One of `PRECISIONS`, or None for JAX's default.
      **options: Options of `fljax.simulate` beyond the protocol's.

    Returns:
      seconds (of `rounds` rounds with their evaluations), wall_seconds (of the whole run),
      first_round_seconds (of all but the rounds after the first), compile_seconds,
      examples_per_second, accuracy and loss on the test set after `rounds` rounds, curve {round:
      accuracy}, execution.
    """
    workload = protocol.workload
    warm_up = protocol.eval_every
    begin = time.perf_counter()
    with compilation_clock() as compiled:
        run = fljax.simulate(
            dataset,
            make_task(workload, make_model(workload)),
            protocol.algorithm,
            num_rounds=protocol.rounds + warm_up,
            clients_per_round=workload.cohort,
            batch_size=workload.batch_size,
            eval_every=protocol.eval_every,
            matmul_precision=PRECISIONS.get(precision),
            progress=False,
            # to its end, whatever it costs: its seconds are those of the warm-up
            **({"calibrate": protocol.rounds >= _CALIBRATED_ROUNDS} | options),
        )
        wall_seconds, compile_seconds = time.perf_counter() - begin, compiled()
    at = dict(zip(run.rounds.tolist(), range(len(run.rounds)), strict=True))
    elapsed = run.curves["time/elapsed_seconds"]
    seconds = float(elapsed[at[protocol.rounds + warm_up]] - elapsed[at[warm_up]])
    counted = slice(at[warm_up] + 1, None)
    rates = run.curves["throughput/examples_per_second"] * run.curves["time/round_seconds"]
    accuracy, loss = run.curves["eval/test/accuracy"], run.curves["eval/test/loss"]
    return {
        "seconds": seconds,
        "wall_seconds": wall_seconds,
        "first_round_seconds": wall_seconds - float(elapsed[-1] - elapsed[at[1]]),
        "compile_seconds": compile_seconds,
        "examples_per_second": float(np.sum(rates[counted])) / seconds,
        "accuracy": float(accuracy[at[protocol.rounds]]),
        "loss": float(loss[at[protocol.rounds]]),
        "curve": {round: float(accuracy[i]) for round, i in at.items() if accuracy[i] >= 0},
        "execution": run.config["execution"],
    }

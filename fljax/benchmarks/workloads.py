"""Names workloads on generated data: what is benchmarked, and how it grows."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from fljax import models, tasks
from fljax.core.task import Task
from fljax.data.dataset import ArrayExamples, FederatedDataset, Partition, Split, offsets_of
from fljax.training.flops import training_flops

Sizes = Callable[[np.random.Generator, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Workload:
    """One benchmark: plain FedAvg, one local epoch, on generated data.

    Attributes:
      title: What it is.
      model: Name in `fljax.models`.
      shape: Shape of one input.
      classes: Number of classes, or size of the vocabulary.
      population: Number of clients.
      cohort: Clients a round.
      sizes: (generator, population) -> rows of each client.
      batch_size: Rows of a batch.
      client_lr: Learning rate.
      pool: Number of different examples, from which the clients' rows are drawn; None gives every
        row an example of its own. Populations beyond the memory need a pool.
      model_options: Options of the model, such as {"hidden": (100,)}.
      options: Fields of `RoundOptions`, such as {"devices": 2}.
    """

    title: str
    model: str
    shape: tuple[int, ...]
    classes: int
    population: int
    cohort: int
    sizes: Sizes
    batch_size: int
    client_lr: float
    pool: int | None = None
    model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def power_law(generator: np.random.Generator, count: int) -> np.ndarray:
    """Returns Pareto-tailed sizes from 10 to 1,000 with a mean near 60."""
    return np.clip(np.round(10 + 20 * generator.pareto(1.35, count)), 10, 1000).astype(np.int64)


def log_normal(mean: float, deviation: float, low: int, high: int) -> Sizes:
    """Returns a function that draws log-normal sizes, cut off at both ends."""

    def sizes(generator, count):
        variance = np.log(1 + (deviation / mean) ** 2)
        drawn = generator.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), count)
        return np.clip(np.round(drawn), low, high).astype(np.int64)

    return sizes


def equal(size: int) -> Sizes:
    """Returns a function that gives every client the same number of rows."""
    return lambda generator, count: np.full(count, size)


# like FEMNIST's writers and Shakespeare's roles
writers = log_normal(200, 80, 10, 500)
roles = log_normal(100, 40, 10, 250)

_GRAY, _COLOR = (28, 28, 1), (32, 32, 3)
WORKLOADS = {
    "softmax_60": Workload(
        "softmax regression 60-10, cohort 100", "softmax_regression", (60,), 10, 1000, 100,
        power_law, 10, 0.01,
    ),
    "softmax_100": Workload(
        "softmax regression, cohort 100", "softmax_regression", (784,), 10, 1000, 100, power_law,
        10, 0.01,
    ),
    "softmax_1000": Workload(
        "softmax regression, cohort 1,000", "softmax_regression", (784,), 10, 1000, 1000,
        power_law, 10, 0.01,
    ),
    "mlp_100": Workload(
        "MLP 784-200-200-10, cohort 100 x 600 rows", "mlp", (784,), 10, 100, 100, equal(600), 10,
        0.1,
    ),
    "emnist_cnn_10": Workload(
        "EMNIST CNN, cohort 10", "emnist_cnn", _GRAY, 62, 300, 10, writers, 20, 0.1
    ),
    "emnist_cnn_100": Workload(
        "EMNIST CNN, cohort 100", "emnist_cnn", _GRAY, 62, 300, 100, writers, 20, 0.1
    ),
    "mcmahan_cnn_10": Workload(
        "McMahan CNN, cohort 10 x 600 rows", "mcmahan_cnn", _GRAY, 10, 100, 10, equal(600), 10, 0.1
    ),
    "lenet_10": Workload(
        "LeNet, cohort 10 x 500 rows", "lenet_cnn", _COLOR, 10, 100, 10, equal(500), 64, 0.01
    ),
    "cifar10_cnn_50": Workload(
        "CIFAR-10 CNN, cohort 50 x 50 rows", "pfl_cifar10_cnn", _COLOR, 10, 1000, 50, equal(50),
        10, 0.1,
    ),
    "resnet18_10": Workload(
        "ResNet-18 with GroupNorm, cohort 10 x 20 rows", "resnet18_gn", _COLOR, 10, 100, 10,
        equal(20), 10, 0.01,
    ),
    "shakespeare_10": Workload(
        "Shakespeare LSTM, 80 characters, cohort 10", "char_lstm", (80,), 90, 200, 10, roles, 10,
        1.0,
    ),
}  # fmt: skip


def _small(title: str, population: int, cohort: int, **options) -> Workload:
    return Workload(
        f"softmax regression 60-10, {title}", "softmax_regression", (60,), 10, population, cohort,
        equal(50), 10, 0.01, pool=50_000, **options,
    )  # fmt: skip


# what grows -> {name: workload}
SWEEPS: dict[str, dict[str, Workload]] = {
    "cohort": {
        f"cohort_{cohort}": _small(f"cohort {cohort:,} of 10,000", 10_000, cohort)
        for cohort in (10, 100, 1000, 10_000)
    },
    "population": {
        f"population_{population}": _small(f"cohort 100 of {population:,}", population, 100)
        for population in (1000, 10_000, 100_000, 1_000_000)
    },
    "devices": {
        f"devices_{count}": dataclasses.replace(
            WORKLOADS["mlp_100"],
            title=f"{WORKLOADS['mlp_100'].title}, {count} device(s)",
            options={"devices": count},
        )
        for count in (1, 2, 4, 8)
    },
    "model_size": {
        f"mlp_width_{width}": Workload(
            f"MLP 784-{width}-{width}-10, cohort 20 x 100 rows", "mlp", (784,), 10, 100, 20,
            equal(100), 10, 0.1, model_options={"hidden": (width, width)},
        )
        for width in (50, 200, 800, 3200)
    },
}  # fmt: skip


def find(name: str) -> Workload:
    """Returns a workload by name, those of the sweeps included.

    Raises:
      ValueError: For an unknown name.
    """
    known = {
        **WORKLOADS,
        **{key: workload for sweep in SWEEPS.values() for key, workload in sweep.items()},
    }
    if name not in known:
        raise ValueError(f"Unknown workload {name!r}; there are {', '.join(known)}.")
    return known[name]


def varied(workload: Workload, *, pool: int, cohort: int = 0, form: str = "auto") -> Workload:
    """Returns a workload whose clients share examples, with another cohort or form of layers.

    Args:
      workload: The workload.
      pool: Number of different examples.
      cohort: Clients a round; 0 leaves it.
      form: The form of convolutions or of a recurrence, where the model has a choice.
    """
    takes = inspect.signature(models.MODELS[workload.model]).parameters
    forms = {name: form for name in ("conv_form", "lstm_form") if name in takes}
    cohort = cohort or workload.cohort
    return dataclasses.replace(
        workload,
        cohort=cohort,
        population=max(workload.population, cohort),
        pool=pool,
        model_options={**workload.model_options, **forms},
    )


def make_model(workload: Workload) -> Callable[[nnx.Rngs], nnx.Module]:
    """Returns the model factory of a workload."""
    return models.make(workload.model, workload.classes, workload.shape, **workload.model_options)


def make_task(workload: Workload, model: Callable[[nnx.Rngs], nnx.Module]) -> Task:
    """Returns the task: next characters for the language model, classes for all others."""
    make = tasks.next_token if workload.model == "char_lstm" else tasks.classification
    return make(model, workload.classes)


def flops_per_example(workload: Workload) -> float:
    """Returns the operations of training on one example, convolutions counted as direct ones.

    What the kernels compute instead (Winograd's transform, or whole rows) does not enter, so that
    figures of different kernels, simulators and machines can be set side by side.
    """
    tiny = generate(dataclasses.replace(workload, population=1, sizes=equal(1), pool=None))
    task = make_task(workload, make_model(workload))
    return training_flops(task, tiny.train.examples.spec, batch_size=1)


def generate(workload: Workload, seed: int = 0, test_rows: int = 0) -> FederatedDataset:
    """Generates the data of a workload: learnable, so that a loss shows that training works.

    Args:
      workload: What the data are for.
      seed: Seed of everything in them.
      test_rows: Examples of the test set; 0 for no test set.
    """
    generator = np.random.default_rng([seed, 7])
    offsets = offsets_of(workload.sizes(generator, workload.population))
    count, index = int(offsets[-1]), None
    if workload.pool is not None:
        index = generator.integers(0, workload.pool, count, np.int32)
        count = workload.pool
    is_text = workload.model == "char_lstm"
    x, y = (_text if is_text else _images)(workload, count + test_rows, generator)
    test = Split(ArrayExamples({"x": x[count:], "y": y[count:]})) if test_rows else None
    return FederatedDataset(
        name="benchmark",
        kind="next_token" if is_text else "classification",
        num_classes=workload.classes,
        train=Split(ArrayExamples({"x": x[:count], "y": y[:count]}), Partition(offsets, index)),
        test=test,
    )


def _images(workload: Workload, count: int, generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns class prototypes plus noise."""
    labels = generator.integers(0, workload.classes, count).astype(np.int32)
    prototypes = generator.standard_normal((workload.classes, *workload.shape), np.float32)
    x = generator.standard_normal((count, *workload.shape), np.float32)
    x *= 0.5
    x += 0.15 * prototypes[labels]
    return x, labels


def _text(workload: Workload, count: int, generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns sequences in which a token determines the next one seven times out of ten."""
    length, vocabulary = workload.shape[0], workload.classes
    following = 1 + generator.permutation(vocabulary - 1)
    tokens = generator.integers(1, vocabulary, (count, length + 1)).astype(np.int32)
    determined = generator.random((count, length)) < 0.7
    for time in range(length):
        expected = following[tokens[:, time] - 1]
        tokens[:, time + 1] = np.where(determined[:, time], expected, tokens[:, time + 1])
    return tokens[:, :-1].copy(), tokens[:, 1:].copy()

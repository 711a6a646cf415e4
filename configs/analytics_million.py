"""A million clients, asked for statistics of two million numbers.

For `fljax analytics`. Each client has one to three log-normal numbers; without noise, answers
are those of NumPy on the pooled rows, bit for bit (`pooled()` returns these rows).
Costs: about a second each for mean, variance and histogram, 4 s for the median, on two cores.
Reaches: mean 4.479, median 2.720.
"""

import numpy as np

from fljax.config import default_config
from fljax.data import ArrayExamples, FederatedDataset, Partition, Split

CLIENTS = 1_000_000


def pooled():
    """Returns (int64[N] rows of each client, float32[R] all numbers)."""
    draw = np.random.default_rng(0)
    sizes = draw.integers(1, 4, CLIENTS)
    return sizes, draw.lognormal(1, 1, sizes.sum()).astype(np.float32)


def visits(data_dir=None, num_clients=CLIENTS, **rest):
    """Returns the numbers as federated data."""
    sizes, numbers = pooled()
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    examples = ArrayExamples({"x": numbers, "y": numbers})
    return FederatedDataset("visits", "targets", None, Split(examples, Partition(offsets)))


def get_config():
    config = default_config()
    config.dataset = "analytics_million:visits"
    config.task = "regression"
    config.model = "softmax_regression"
    config.partition = None
    config.clients_per_round = 100
    return config


def get_queries():
    return {
        "mean": {"query": "mean", "column": "y"},
        "variance": {"query": "variance", "column": "y"},
        "histogram": {"query": "histogram(0, 20, 100)", "column": "y"},
        "median": {"query": "quantile(0.5)", "column": "y"},
    }

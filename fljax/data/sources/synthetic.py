"""Generates Synthetic(alpha, beta), the data of FedProx, for any number of clients.

Li et al. (arXiv:1812.06127), section 5.1, in the form of the authors' released program: client k
has a softmax model of its own, and features around a mean of its own:

    u_k ~ N(0, alpha),    W_k[j, c] ~ N(u_k, 1),    b_k[c] ~ N(u_k, 1)
    B_k ~ N(0, beta),     v_k[j]    ~ N(B_k, 1)
    x   ~ N(v_k, diag(j^-1.2)),  j = 1..60          y = argmax(x W_k + b_k),  10 classes
    n_k = int(exp(N(4, 2))) + 50 rows, of which the first int(0.9 n_k) train and the others test

The second argument of N is the standard deviation, as in that program. The paper's `iid` data set
shares one standard normal W and b among the clients, and has v_k = 0.

Every number is a hash of (seed, client, row, place): a row is the same whether it is generated
alone, in a cohort, or with all others, and a million clients cost an array of offsets.
"""

from __future__ import annotations

import functools

import jax
import numpy as np

from fljax.core import random
from fljax.core.values import NON_NEGATIVE, Field, checked
from fljax.data.dataset import FederatedDataset, LazyExamples, Partition, Split, offsets_of
from fljax.data.partitions.partition_arguments import check_count, partition_setting

NUM_FEATURES = 60
NUM_CLASSES = 10

_SCALE = np.arange(1, NUM_FEATURES + 1) ** (-1.2 / 2)
_SPEC = {
    "x": jax.ShapeDtypeStruct((NUM_FEATURES,), np.float32),
    "y": jax.ShapeDtypeStruct((), np.int32),
}
_CHUNK = 8192


def synthetic(
    alpha: float = 1.0,
    beta: float = 1.0,
    *,
    num_clients: int = 30,
    seed: int = 0,
    iid: bool = False,
    max_size: int | None = None,
    materialize: bool | None = None,
    val_fraction: float = 0.0,
    partition: str | None = None,
    data_dir=None,
) -> FederatedDataset:
    """Builds Synthetic(alpha, beta).

    Args:
      alpha: Standard deviation of the clients' model means: how much models differ.
      beta: Standard deviation of the clients' feature means: how much features differ.
      num_clients: N, such as 30 (the paper's) or 1,000,000.
      seed: Of all numbers.
      iid: The paper's IID data set; alpha and beta then play no part.
      max_size: Most rows of a client, training and test together. The log-normal tail is heavy: the
        mean is 453 rows, but the largest of 1,000 clients has some 35,000, and the largest of a
        million some 1,000,000; None leaves it so, as the paper does.
      materialize: Hold the rows in arrays rather than generate them on demand; the rows are the
        same. None: where all training rows are smaller than 200 MB.
      val_fraction: Share of the training rows to split off for validation.
      partition: None or "natural": the data have clients of their own.
      data_dir: Not used; no files are needed.

    Returns:
      Classification data with x float32[60], and a test split over the same clients.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> dataset = data.synthetic(1.0, 1.0, num_clients=5)
      >>> dataset.num_clients, dataset.num_classes
      (5, 10)
    """
    del data_dir
    if not (partition is None or isinstance(partition, str) and partition == "natural"):
        raise ValueError(
            f"synthetic data have clients of their own: partition must be 'natural', not "
            f"{partition!r}"
        )
    num_clients = check_count("num_clients", num_clients)
    if max_size is not None:
        max_size = check_count("max_size", max_size, least=2)
    alpha, beta = (
        checked(name, value, Field(1.0, float, NON_NEGATIVE))
        for name, value in (("alpha", alpha), ("beta", beta))
    )
    checked("iid", iid, Field(False, bool))
    checked("materialize", materialize, Field(None, bool, optional=True))
    seed = partition_setting("seed", seed)
    val_fraction = partition_setting("val_fraction", val_fraction)
    sizes = _client_sizes(num_clients, seed, max_size)
    train_sizes = (0.9 * sizes).astype(np.int64)
    model = functools.partial(_generate, seed=seed, alpha=alpha, beta=beta, iid=iid)
    train = _split(train_sizes, np.zeros(num_clients, np.int64), model, materialize)
    dataset = FederatedDataset(
        name="synthetic_iid" if iid else f"synthetic({alpha:g},{beta:g})",
        kind="classification",
        num_classes=NUM_CLASSES,
        train=train,
        test=_split(sizes - train_sizes, train_sizes, model, materialize),
    )
    return dataset.with_validation(val_fraction, seed) if val_fraction else dataset


def _client_sizes(num_clients: int, seed: int, max_size: int | None) -> np.ndarray:
    """Returns int64[N] rows of each client, training and test together."""
    log_sizes = 4.0 + 2.0 * random.normal(seed, "synthetic/size", np.arange(num_clients))
    sizes = np.exp(log_sizes).astype(np.int64) + 50
    return sizes if max_size is None else np.minimum(sizes, max_size)


def _split(sizes: np.ndarray, first: np.ndarray, model, materialize: bool | None) -> Split:
    """Returns a split in which client k owns `sizes[k]` rows, numbered from `first[k]` on."""
    offsets = offsets_of(sizes)

    def generate(rows: np.ndarray) -> dict[str, np.ndarray]:
        clients = np.searchsorted(offsets, rows, side="right") - 1
        return model(clients, rows - offsets[clients] + first[clients])

    examples = LazyExamples(int(offsets[-1]), generate, _SPEC)
    if examples.nbytes < 200e6 if materialize is None else materialize:
        examples = examples.materialize()
    return Split(examples, Partition(offsets))


def _generate(clients, numbers, *, seed, alpha, beta, iid) -> dict[str, np.ndarray]:
    """Generates rows, a chunk at a time so that memory stays bounded.

    Args:
      clients: int64[R].
      numbers: int64[R], which of the client's rows.
      seed: Of all numbers.
      alpha: See `synthetic`.
      beta: See `synthetic`.
      iid: See `synthetic`.

    Returns:
      {"x": float32[R, 60], "y": int32[R]}.
    """
    x = np.empty((clients.size, NUM_FEATURES), np.float32)
    y = np.empty(clients.size, np.int32)
    for start in range(0, clients.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        ids, which = np.unique(clients[part], return_inverse=True)
        mean, weights, bias = _client_models(ids, seed, alpha, beta, iid)
        noise = _normals(NUM_FEATURES, seed, "synthetic/x", clients[part], numbers[part])
        x[part] = mean[which] + noise * _SCALE
        logits = bias[which]
        # Feature by feature rather than a matrix product, whose rounding, and with it a label in a
        # near tie, could depend on which other rows are asked for.
        for j in range(NUM_FEATURES):
            logits += x[part, j, None] * weights[:, j][which]
        y[part] = logits.argmax(axis=1)
    return {"x": x, "y": y}


def _client_models(ids, seed, alpha, beta, iid):
    """Returns float64 (feature means [C, 60], weights [C, 60, 10], biases [C, 10])."""
    num_weights = NUM_FEATURES * NUM_CLASSES
    if iid:
        normals = _normals(num_weights + NUM_CLASSES, seed, "synthetic/model", np.zeros(1))
        normals = np.repeat(normals, ids.size, axis=0)
        mean = np.zeros((ids.size, NUM_FEATURES))
    else:
        normals = _normals(num_weights + NUM_CLASSES, seed, "synthetic/model", ids)
        normals += alpha * random.normal(seed, "synthetic/alpha", ids)[:, None]
        mean = beta * random.normal(seed, "synthetic/beta", ids)[:, None]
        mean = mean + _normals(NUM_FEATURES, seed, "synthetic/mean", ids)
    weights = normals[:, :num_weights].reshape(-1, NUM_FEATURES, NUM_CLASSES)
    return mean, weights, normals[:, num_weights:].copy()


def _normals(count: int, seed: int, purpose: str, *coordinates) -> np.ndarray:
    """Returns float64[R, count] standard normals (count even), keyed by their coordinates.

    One random word gives two normals (Box and Muller, 1958): its upper half the radius, its lower
    half the angle. 32 bits end the tails at 6.7 standard deviations.
    """
    coordinates = [np.asarray(c)[:, None] for c in coordinates]
    words = random.bits(seed, purpose, *coordinates, np.arange(count // 2))
    high = (words >> np.uint64(32)).astype(np.float64)
    low = (words & np.uint64(0xFFFFFFFF)).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((high + 0.5) * 2.0**-32))
    angle = (2.0 * np.pi * 2.0**-32) * low
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

"""The scene of a reconstruction: rows, the model, and what clients make of their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.audits.reconstruction.clients import Client, gradient, local_training
from fljax.config.experiment import Experiment
from fljax.core import random
from fljax.core.gradients import LossSums
from fljax.core.trees import leaf_paths
from fljax.data.dataset import FederatedDataset
from fljax.privacy.mechanism import Mechanism
from fljax.privacy.per_example import clipped_gradients
from fljax.privacy.protection import CLIP_NORM, NOISE, Protection
from fljax.training.binding import bound
from fljax.training.trials import TrialInputs, initial_trials

PyTree = Any
# (gradient of a layer's kernel [D, C], of its bias [C])
Layer = Callable[[PyTree], tuple[np.ndarray, np.ndarray | None]]
# Noise of clients that acts on single gradients; the accountant knows it by these numbers.
_IN_GRADIENTS = "dpsgd"


class Scene(NamedTuple):
    """The attacker's knowledge, and what only the judge knows.

    Attributes:
      client: (params, x, y) -> the gradient of the mean loss of rows.
      trainer: (batches of `local_training`) -> the client that trains on them as configured; None
        where clients have no optimizer of their own, or noise in their gradients.
      params: The model that the first round starts from.
      head: (gradient) -> that of the last layer; None where there is none.
      dense: (gradient) -> that of a layer which reads x itself, and has a bias; None likewise.
      sent: (x, y, seed) -> the gradient that a client of these rows sends: of DP-SGD, which clips
        those of single rows and adds noise to their sum, before it is divided by their number.
      x: float32[R, ...], rows as the model sees them.
      y: int32[R] their labels.
      num_classes: Of the task.
      box: (least, largest) value of x.
      is_image: Whether x are images.
    """

    client: Client
    trainer: Callable[[np.ndarray], Client] | None
    params: PyTree
    head: Layer | None
    dense: Layer | None
    sent: Callable[[jax.Array, jax.Array, int], PyTree]
    x: np.ndarray
    y: np.ndarray
    num_classes: int
    box: tuple[float, float]
    is_image: bool


def make_scene(experiment: Experiment, count: int, seed: int) -> Scene:
    """Returns the scene of some rows that clients train on.

    Args:
      experiment: With its protection drawn; of a task with one label a row.
      count: Rows, drawn by the seed, one of each client as far as there are so many.
      seed: Of the draw.
    """
    dataset, task = experiment.dataset, experiment.task
    variables, frozen = _start(experiment)
    rows = _rows(experiment, count, seed)
    x, y = seen_rows(dataset, rows)

    def losses(params, x, y):
        own = {"x": x, "y": y, "mask": jnp.ones(len(y), bool)}
        (value, _), _ = task.loss(params, frozen, variables.model_state, own, None, False)
        return value

    return Scene(
        client=gradient(losses),
        trainer=_trainer(experiment, losses),
        params=variables.params,
        head=_head(experiment, variables, frozen),
        dense=_dense(variables.params, x[0].size),
        sent=_sender(experiment, variables.params, losses),
        x=x,
        y=y,
        num_classes=task.num_classes,
        box=(float(x.min()), float(x.max())),
        is_image=is_image(x.shape[1:]),
    )


def seen_rows(dataset: FederatedDataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (float32 x, int32 y) of training rows, as a model sees them."""
    batch = jax.tree.map(jnp.asarray, dataset.train.examples.take(rows))
    seen = dataset.preprocess(batch) if dataset.preprocess else batch
    return np.asarray(seen["x"], np.float32), np.asarray(seen["y"], np.int32)


def is_image(shape: tuple[int, ...]) -> bool:
    """Returns whether rows of a shape are images: [H, W], [H, W, 1] or [H, W, 3].

    Example:
      >>> is_image((8, 8, 1)), is_image((13,))
      (True, False)
    """
    is_grid = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    return is_grid and min(shape[:2]) > 1


def _start(experiment: Experiment):
    """Returns (variables, constants) of the model before the first round."""
    seed = experiment.options.get("seed", 0)
    inputs = [TrialInputs(seed, experiment.hparams)]
    start = initial_trials(experiment.task, inputs, [experiment.dataset.num_clients])
    return jax.tree.map(lambda leaf: leaf[0], start.variables), start.frozen


def _rows(experiment: Experiment, count: int, seed: int) -> np.ndarray:
    """Returns row numbers: a row of each client first, in an order that the seed draws."""
    partition = experiment.dataset.train.partition
    rows, owners = partition.all_rows(), partition.owners()
    order = np.argsort(random.bits(seed, "audit/reconstruction", rows), kind="stable")
    rows, owners = rows[order], owners[order]
    _, first = np.unique(owners, return_index=True)
    others = np.setdiff1d(np.arange(len(rows)), first)
    return rows[np.concatenate([np.sort(first), others])[:count]]


def _trainer(experiment: Experiment, losses) -> Callable[[np.ndarray], Client] | None:
    """Returns what makes clients that train as configured, but for what algorithms add to it."""
    make, hparams = experiment.algorithm.client_optimizer, experiment.hparams
    if make is None or _mechanism(experiment) is not None:
        return None
    return lambda batches: local_training(losses, make(hparams), batches)


def _head(experiment: Experiment, variables, frozen) -> Layer | None:
    local = bound(experiment.task, frozen, experiment.dataset)
    try:
        chosen = jax.tree.leaves(local.head(*variables))
    except ValueError:
        return None
    shapes = [leaf.shape for leaf in jax.tree.leaves(variables.params)]
    kernels = [place for place, own in enumerate(chosen) if own and len(shapes[place]) == 2]
    biases = [place for place, own in enumerate(chosen) if own and len(shapes[place]) == 1]
    if len(kernels) != 1 or len(biases) > 1:
        return None
    return _layer(kernels[0], biases[0] if biases else None)


def _dense(params: PyTree, features: int) -> Layer | None:
    """Returns the one dense layer with a bias that reads as many numbers as a row has."""
    names, leaves = leaf_paths(params), jax.tree.leaves(params)
    found = []
    for place, leaf in enumerate(leaves):
        if leaf.ndim == 2 and leaf.shape[0] == features and names[place].endswith("kernel"):
            bias = names[place].removesuffix("kernel") + "bias"
            if bias in names:
                found.append((place, names.index(bias)))
    return _layer(*found[0]) if len(found) == 1 else None


def _layer(kernel: int, bias: int | None) -> Layer:
    def of(gradients: PyTree) -> tuple[np.ndarray, np.ndarray | None]:
        leaves = jax.tree.leaves(gradients)
        return np.asarray(leaves[kernel]), None if bias is None else np.asarray(leaves[bias])

    return of


def _sender(experiment: Experiment, params: PyTree, losses) -> Callable[..., PyTree]:
    """Returns what makes the gradient that a client sends of its rows."""
    mechanism = _mechanism(experiment)
    if mechanism is None or mechanism.name != _IN_GRADIENTS:
        client = gradient(losses)
        return lambda x, y, seed: client(params, x, y)

    def loss(params, model_state, batch, key, train):
        return LossSums(losses(params, batch["x"], batch["y"]).sum(), batch["mask"].sum()), {}

    norm, noise = (mechanism.hparams[name] for name in (CLIP_NORM, NOISE))
    estimate = clipped_gradients(norm, noise)(loss)

    def sent(x, y, seed: int) -> PyTree:
        batch = {"x": x, "y": y, "mask": jnp.ones(len(y), bool)}
        return estimate(params, {}, batch, jax.random.key(seed))[0]

    return sent


def _mechanism(experiment: Experiment) -> Mechanism | None:
    privacy = experiment.options.get("privacy")
    return privacy.mechanism if isinstance(privacy, Protection) else None

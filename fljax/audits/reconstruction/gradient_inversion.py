"""Draws the rows again behind what a client sent: its gradient, or its update after local training.

Rows are searched for that would have sent the same (Zhu et al. 2019, arXiv:1906.08935; Zhao et al.
2020, arXiv:2001.02610; Geiping et al. 2020, arXiv:2003.14053). The attacker knows the model, how
clients train (`clients`), and how many rows they have. All restarts run side by side in one
program, and the one of the least objective is chosen: nothing looks at the truth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fljax.audits.reconstruction.clients import Client
from fljax.audits.reconstruction.label_inference import label_counts, label_of
from fljax.audits.reconstruction.objectives import DISTANCES, total_variation
from fljax.audits.reconstruction.search import adam, lbfgs, search
from fljax.audits.reconstruction.settings import Inversion, make_inversion
from fljax.core import random
from fljax.core.values import COUNT, SEED, Field, checked, whole_numbers, wrong

__all__ = ["Reconstruction", "reconstruct"]

PyTree = Any
# When the rate of Adam falls to a tenth, as a share of all steps.
_DECAYS = (3 / 8, 5 / 8, 7 / 8)


class Reconstruction(NamedTuple):
    """Rows that would have sent what was observed, or nearly so.

    Attributes:
      x: float32[B, ...], in no order that the attacker could know.
      labels: int64[B], of each of them.
      objectives: float64[R], the least objective of each restart; infinite where it was no number.
      restart: Which one x is of, that of the least objective.
    """

    x: np.ndarray
    labels: np.ndarray
    objectives: np.ndarray
    restart: int


def reconstruct(
    observed: PyTree,
    client: Client,
    params: PyTree,
    shape: Sequence[int],
    *,
    attack: str | Inversion = "geiping",
    labels: Any = None,
    num_classes: int | None = None,
    head: Callable[[PyTree], tuple[Any, Any]] | None = None,
    seed: int = 0,
) -> Reconstruction:
    """Returns rows that would have sent what was observed.

    The program is compiled once for each client (the same function), shape and settings.

    Args:
      observed: What was sent, a pytree like what `client` returns.
      client: (params, x, y) -> what rows would have sent, see `clients`.
      params: What the client was sent.
      shape: (B, ...), that of x: how many rows, and the shape of one.
      attack: Settings by name, such as "dlg" or "geiping(1e-2)", or a record of them.
      labels: int[B] where the attacker knows them; None lets the attack find them.
      num_classes: Number of classes; needed where labels are optimized.
      head: (observed) -> (kernel [D, C], bias [C] or None), the gradient of the last layer, or what
        is a positive multiple of it; needed where labels are inferred. Of an update, which points
        the other way, give the negative.
      seed: Draws the starts.

    Raises:
      ValueError: If what was observed is not finite or not like what the client sends, or if
        something that the attack needs is missing.

    References: arXiv:1906.08935, arXiv:2001.02610, arXiv:2003.14053.

    Example:
      >>> from fljax.audits.reconstruction.clients import gradient
      >>> losses = lambda w, x, y: (x @ w[0] + w[1] - y) ** 2
      >>> client, w = gradient(losses), (jnp.array([0.5, 2.0]), jnp.float32(0.1))
      >>> observed = client(w, jnp.array([[0.3, 0.8]]), jnp.array([1]))
      >>> found = reconstruct(observed, client, w, (1, 2), attack="idlg(200)", labels=[1])
      >>> bool(np.abs(found.x - np.array([[0.3, 0.8]])).max() < 1e-3)
      True
    """
    settings = make_inversion(attack)
    shape = tuple(checked("shape", size, Field(None, int, COUNT)) for size in shape)
    if not shape:
        raise wrong("shape", shape, "(rows, ...): how many rows there are, and the shape of one")
    if settings.total_variation and len(shape) not in (3, 4):
        raise ValueError(
            f"total_variation = {settings.total_variation:g} is a prior of images [H, W] or "
            f"[H, W, C], and rows have the shape {shape[1:]}: use geiping(0)."
        )
    known = _labels(observed, settings, shape[0], labels, num_classes, head)
    _check_observed(observed, client, params, shape, known, num_classes)
    seed = checked("seed", seed, Field(0, int, SEED))
    starts = _starts(settings, shape, num_classes if known is None else 0, seed)
    x, found, objectives = _reconstruct(observed, params, known, starts, client, shape, settings)
    objectives = np.asarray(objectives, np.float64)
    best = int(objectives.argmin())
    chosen = found[best].argmax(-1) if known is None else known
    return Reconstruction(np.asarray(x[best]), np.asarray(chosen, np.int64), objectives, best)


def _labels(observed, settings, rows, labels, num_classes, head) -> np.ndarray | None:
    """Returns int32[B] labels that are known or inferred, or None where they are optimized."""
    if labels is not None:
        known = whole_numbers("labels", labels)
        if len(known) != rows:
            raise ValueError(f"{len(known)} labels were given for {rows} rows: give one for each.")
        return known.astype(np.int32)
    if settings.labels == "optimized":
        if num_classes is None:
            raise ValueError(
                "labels are optimized, and num_classes is not given: say how many classes there "
                "are, or give the labels if the attacker knows them."
            )
        checked("num_classes", num_classes, Field(None, int, COUNT))
        return None
    if head is None:
        raise ValueError(
            "labels are inferred from the gradient of the last layer, and head is not given: say "
            "which part of what was observed it is, or give the labels if the attacker knows them."
        )
    kernel, bias = head(observed)
    if rows == 1:
        return np.array([label_of(kernel, bias).label], np.int32)
    counts = label_counts(kernel, bias, rows=rows).counts
    return np.repeat(np.arange(len(counts)), counts).astype(np.int32)


def _check_observed(observed, client, params, shape, known, num_classes) -> None:
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    y = jnp.zeros((shape[0], num_classes or 1)) if known is None else known
    sent = jax.eval_shape(client, params, x, y)
    ours, theirs = (jax.tree.map(jnp.shape, tree) for tree in (sent, observed))
    if ours != theirs:
        raise ValueError(
            f"What was observed has the shapes {theirs}, and the client sends {ours}: give them "
            "alike."
        )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(observed)):
        raise ValueError("What was observed is not finite, and tells nothing of any row.")


def _starts(settings: Inversion, shape, num_classes: int, seed: int) -> np.ndarray:
    """Returns float32[R, n]: of each restart x, and behind it the logits of labels, row by row."""
    generator = random.generator(seed, "starts of reconstructions")
    sizes = (settings.restarts, int(np.prod(shape))), (settings.restarts, shape[0] * num_classes)
    if settings.start == "normal":
        x = generator.normal(size=sizes[0])
    else:
        x = generator.uniform(*(settings.box or (0.0, 1.0)), size=sizes[0])
    return np.concatenate([x, generator.normal(size=sizes[1])], axis=1).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _reconstruct(observed, params, known, starts, client, shape, settings):
    """Returns x [R, B, ...], probabilities [R, B, C] or [R, B, 0], and objectives [R]."""
    size = int(np.prod(shape))
    distance = DISTANCES[settings.distance]
    optimizer = _optimizer(settings, size)

    def parted(point):
        return point[:size].reshape(shape), point[size:].reshape(shape[0], -1)

    def objective(point):
        x, logits = parted(point)
        y = jax.nn.softmax(logits) if known is None else known
        value = distance(client(params, x, y), observed)
        if settings.total_variation:
            value += settings.total_variation * total_variation(x)
        return value

    def restart(start):
        best, value = search(objective, optimizer, start, settings.steps, settings.tolerance)
        x, logits = parted(best)
        return x, jax.nn.softmax(logits), value

    return jax.vmap(restart)(starts)


def _optimizer(settings: Inversion, size: int):
    """Returns the optimizer of points of which the first `size` numbers are x."""
    if settings.optimizer == "lbfgs":
        return lbfgs()
    falls = {int(share * settings.steps): 0.1 for share in _DECAYS}
    rate = settings.learning_rate
    if settings.decay:
        rate = optax.piecewise_constant_schedule(rate, falls)

    def of_x(function, point):
        return point.at[:size].set(function(point[:size]))

    def transform(gradient):
        return of_x(jnp.sign, gradient) if settings.signed else gradient

    def project(point):
        return of_x(lambda x: jnp.clip(x, *settings.box), point) if settings.box else point

    return adam(rate, transform, project)

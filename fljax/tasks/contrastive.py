"""Makes tasks without targets: two views of an example are to be told from those of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.metrics import LOSS, LOWER, Metric, Sum
from fljax.core.network import as_network
from fljax.core.task import Measured, Task
from fljax.core.values import COUNT, NON_NEGATIVE, POSITIVE, Field, checked, wrong
from fljax.tasks.augmentation import chain_of
from fljax.tasks.batches import applied, only_real
from fljax.tasks.keys import row_keys
from fljax.tasks.metric_names import chosen
from fljax.tasks.probes import nearest_neighbors
from fljax.tasks.supervised import floats

# Of the keys of a step, whose smaller numbers are the model's.
_VIEWS = 1 << 20
_DROPPED, _NOISE = 0.2, 0.1
# Of what a model by name returns.
DIMENSIONS = 64


def contrastive(
    model: Any,
    *,
    dimensions: int | None = None,
    temperature: float = 0.5,
    augment: str | Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    compared: int = 256,
    neighbors: int = 0,
    metrics: Sequence[str] | None = None,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a task of contrastive learning: SimCLR's NT-Xent (Chen et al., arXiv:2002.05709).

    Two views of each example are made in the step. The loss of a view is -log of the softmax of its
    cosine similarity to the other view of the same example, divided by the temperature, among all
    other views of the batch; that of an example is the mean of both. A client compares its own
    examples alone.

    An evaluation does not depend on batches: the views of a row follow from what it holds, and each
    is compared with those of `compared` consecutive rows, of all rows, a client or a group alike,
    in float64. Beside the loss it reports the share of views whose most similar one is the other
    view of the same example (of equal ones, another example's is ahead), and the alignment of Wang
    and Isola (arXiv:2005.10242), the mean squared distance of both views.

    Args:
      model: As for `classification`; it maps x[B, ...] to [B, dimensions].
      dimensions: Length of its vectors; None is any, and 64 of a model by name.
      temperature: What similarities are divided by.
      augment: What makes a view: names of `AUGMENTATIONS`, such as "crop(4), flip, noise(0.1)", or
        a function (key, x of one example) -> a view of it, of the same shape. By default a fifth of
        the features become 0, and the others have noise of 0.1 added.
      compared: How many examples are compared with each other in evaluation.
      neighbors: Where above 0, labels y are read, in evaluation alone: "knn_accuracy" is the share
        of rows whose label most of their so many nearest rows have, by cosine similarity.
      metrics: Names of what it is judged by, the one that chooses first; all by default.
      frozen, fast_layers: As for `classification`.

    Returns:
      The task; x is float[B, ...], and y is not read unless for `neighbors`.

    Raises:
      ValueError: For numbers out of range, or another `augment`.

    Example:
      >>> task = tasks.contrastive(models.mlp((64, 32, 8)))
      >>> [metric.name for metric in task.metrics]
      ['loss', 'contrastive_accuracy', 'alignment']
    """
    network = as_network(model, frozen, fast_layers)
    temperature = checked("temperature", temperature, Field(0.5, float, POSITIVE))
    compared = checked("compared", compared, Field(256, int, COUNT))
    dimensions = checked("dimensions", dimensions, Field(None, int, COUNT, optional=True))
    neighbors = checked("neighbors", neighbors, Field(0, int, NON_NEGATIVE))
    augment = _view_maker(augment)

    def embedded(params, frozen, model_state, x, key, train, mask):
        """Returns unit vectors float[B, D] and model_state'."""
        found, model_state = applied(network, params, frozen, model_state, x, key, train, mask)
        length = jnp.shape(found)[-1] if dimensions is None and jnp.ndim(found) == 2 else dimensions
        found = floats(found, (len(x), length or 1), "a vector for each view of an example")
        return found * jax.lax.rsqrt(jnp.square(found).sum(1, keepdims=True) + 1e-12), model_state

    def views(params, frozen, model_state, batch, key, train):
        """Returns unit vectors float[2, B, D] of both views, the mask, and model_state'."""
        mask = jnp.asarray(batch["mask"])
        x = only_real(mask, jnp.asarray(batch["x"]))
        keys = row_keys(None if key is None else jax.random.fold_in(key, _VIEWS), x)
        both = [jax.vmap(augment)(_folded(keys, view), x) for view in range(2)]
        if any(view.shape != x.shape for view in both):
            raise ValueError(
                f"augment makes {list(both[0].shape[1:])} of an example {list(x.shape[1:])}; a "
                "view has the shape of the example."
            )
        pairs, twice = jnp.concatenate(both), jnp.concatenate([mask, mask])
        found, state = embedded(params, frozen, model_state, pairs, key, train, twice)
        return found.reshape(2, len(x), -1), mask, state

    def loss(params, frozen, model_state, batch, key, train):
        key_of_views = key if train else None
        both, mask, state = views(params, frozen, model_state, batch, key_of_views, train)
        return (_nt_xent(both, mask, temperature), mask.astype(jnp.int32)), state

    def measure(params, frozen, model_state, batch):
        both, mask, _ = views(params, frozen, model_state, batch, None, False)
        real = mask.astype(jnp.int32)
        apart = jnp.square(both[0] - both[1]).sum(1)
        sums = {
            # its weight counts; the loss of an evaluation follows from the views
            "loss": _nt_xent(both, mask, temperature),
            "alignment": jnp.where(mask, apart, 0),
            VIEWS: both.swapaxes(0, 1),
        }
        if neighbors:
            x = only_real(mask, jnp.asarray(batch["x"]))
            sums[EMBEDDING], _ = embedded(params, frozen, model_state, x, None, False, mask)
            sums[LABEL] = only_real(mask, _labels(batch["y"]))
        return Measured({name: Sum(value, real) for name, value in sums.items()})

    def apply(params, frozen, model_state, x):
        return network.apply(params, frozen, model_state, x, None, False, None)[0]

    judged = partial(_judged, temperature=temperature, compared=compared)
    known = [
        LOSS._replace(value=lambda sums: judged(sums)[0], of_examples=True),
        ACCURACY._replace(value=lambda sums: judged(sums)[1]),
        ALIGNMENT,
    ]
    if neighbors:
        known.append(KNN_ACCURACY._replace(value=partial(_probed, neighbors=neighbors)))
    return Task(
        init=network.init,
        loss=loss,
        measure=measure,
        metrics=chosen(metrics, known, [metric.name for metric in known]),
        kind="contrastive",
        needs_full_batches=network.needs_full_batches,
        apply=apply,
        replaced_layers=network.replaced_layers,
        compares_examples=True,
    )


def _view_maker(augment: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns a function (key, x of one example) -> a view of it."""
    if augment is None or callable(augment):
        return augment or _corrupted
    if not isinstance(augment, str):
        must = "names of augmentations, a function (key, x) of one example, or None"
        raise wrong("augment", augment, must)
    chain = chain_of(augment)
    if any(each.change is None for each in chain):
        raise ValueError(
            f"augment = {augment!r} mixes examples, and a view is made of one. Leave mixup out."
        )

    def view(key, x):
        batch = {"x": x[None], "y": jnp.zeros(1), "mask": jnp.ones(1, bool)}
        for number, each in enumerate(chain):
            batch = each.change(jax.random.fold_in(key, number), batch)
        return batch["x"][0]

    return view


def _corrupted(key: jax.Array, x: jax.Array) -> jax.Array:
    """Returns an example of which some features are 0, and the others have noise added."""
    of_drop, of_noise = jax.random.split(key)
    kept = jax.random.bernoulli(of_drop, 1 - _DROPPED, x.shape)
    noise = _NOISE * jax.random.normal(of_noise, x.shape, x.dtype)
    return jnp.where(kept, x + noise, 0)


def _folded(keys: jax.Array, number: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _labels(y: Any) -> jax.Array:
    y = jnp.asarray(y)
    if y.ndim != 1 or not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(
            f"neighbors needs a label of each row, and y is {y.dtype}{list(y.shape)}: give "
            "integers [rows], or leave neighbors out."
        )
    return y


def _nt_xent(views: jax.Array, mask: jax.Array, temperature: float) -> jax.Array:
    """Returns float[B], each example's loss among those of the batch; 0 in padding rows."""
    size = len(mask)
    flat = views.reshape(2 * size, -1)
    similar = flat @ flat.T / temperature
    place = jnp.arange(2 * size)
    is_pair = place == (place[:, None] + size) % (2 * size)
    others = (place != place[:, None]) & jnp.tile(mask, 2) | is_pair
    whole = jax.nn.logsumexp(jnp.where(others, similar, -jnp.inf), axis=1)
    value = whole - jnp.sum(similar, where=is_pair, axis=1)
    return jnp.where(mask, value.reshape(2, size).mean(0), 0)


VIEWS, EMBEDDING, LABEL = "views", "embedding", "label"


def _judged(sums: Mapping[str, Sum], temperature: float, compared: int) -> tuple[float, float]:
    """Returns (mean NT-Xent, share of views that are told from all others), in float64."""
    views = np.asarray(sums[VIEWS].value, np.float64)[np.asarray(sums[VIEWS].weight) > 0]
    if not len(views):
        return np.nan, np.nan
    total, told = 0.0, 0
    for start in range(0, len(views), compared):
        some = views[start : start + compared]
        size = len(some)
        flat = np.concatenate([some[:, 0], some[:, 1]])
        similar = flat @ flat.T / temperature
        place = np.arange(2 * size)
        own = similar[place, (place + size) % (2 * size)]
        np.fill_diagonal(similar, -np.inf)
        total += (np.logaddexp.reduce(similar, axis=1) - own).sum()
        # more than once where another one is as similar
        told += ((similar >= own[:, None]).sum(1) == 1).sum()
    return total / (2 * len(views)), told / (2 * len(views))


def _probed(sums: Mapping[str, Sum], neighbors: int) -> float:
    real = np.asarray(sums[LABEL].weight) > 0
    vectors, labels = (np.asarray(sums[name].value)[real] for name in (EMBEDDING, LABEL))
    return nearest_neighbors(vectors, labels, neighbors)


ACCURACY = Metric("contrastive_accuracy", of_examples=True, label="Contrastive accuracy")
ALIGNMENT = Metric("alignment", LOWER, label="Alignment")
KNN_ACCURACY = Metric("knn_accuracy", of_examples=True, label="Accuracy of nearest neighbors")

"""Makes tasks that recommend items to users, judged by what each user chose later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.item_sets import members
from fljax.core.metrics import LOSS, Metric, Sum
from fljax.core.task import Measured, Task
from fljax.core.values import COUNT, Field, checked, sequence, wrong
from fljax.tasks.batches import only_real, per_example
from fljax.tasks.keys import row_keys
from fljax.tasks.metric_names import chosen
from fljax.tasks.supervised import floats, supervised

_LOSSES = ("softmax", "bpr")
# Of the keys of a step, whose smaller numbers are the model's.
_NEGATIVES = 1 << 20


def recommendation(
    model: Any,
    num_classes: int,
    *,
    loss: str = "softmax",
    negatives: int | None = None,
    cutoffs: Sequence[int] = (10,),
    metrics: Sequence[str] | None = None,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a task of implicit feedback: users and the items that they chose.

    An example is a user: x are the items chosen so far, y those to recommend. Training rows repeat
    x as y, or hold a part of it; test rows hold what was chosen later. In federated recommendation
    a client is one user (Ammad-ud-din et al., arXiv:1901.09888): the items' vectors are shared, and
    the user's vector stays at the client, by fedper(personal="user") or fedrep; or it follows from
    the items chosen so far. See `fljax.models.matrix_factorization` and
    `fljax.data.from_interactions`.

    Candidates are the items of y and those not in x. The loss of an item of y is, with "softmax",
    -log of its softmax among the candidates (Liang et al., arXiv:1802.05814), or among itself and
    `negatives` others; with "bpr" the mean of log(1 + exp(score of another - its own score)) over
    `negatives` others (Rendle et al., arXiv:1205.2618). The others are drawn uniformly from the
    candidates that are not in y, with replacement; in evaluation each user's are always the same.

    recall@k is the share of the user's y among the k candidates of the highest scores, NDCG@k the
    sum of 1 / log2(1 + place) over those, divided by the largest that is possible; both are means
    over users who have a y. Of equal scores, items that are not in y come first, then smaller
    numbers: a model that knows nothing gains nothing by it.

    Args:
      model: As for `classification`; it maps x[B, H] to scores [B, num_classes].
      num_classes: Number of items plus one: items are 1, 2, ..., and 0 fills rows up.
      loss: "softmax" or "bpr".
      negatives: How many others each item of y is compared with; of "softmax", None is all, and of
        "bpr", 1.
      cutoffs: k, one or several; NDCG at the first one chooses the best round.
      metrics: Names of what it is judged by, the one that chooses first; all by default.
      frozen, fast_layers: As for `classification`.

    Returns:
      The task; x is int[B, H] and y int[B, K].

    Raises:
      ValueError: For another loss, for no cutoffs, or where outputs and data do not fit.

    Example:
      >>> task = tasks.recommendation(models.matrix_factorization(50, dim=4), num_classes=50)
      >>> [metric.name for metric in task.metrics]
      ['ndcg@10', 'recall@10', 'loss']
    """
    num_items = checked("num_classes", num_classes, Field(None, int, COUNT))
    loss = checked("loss", loss, Field("softmax", str, _LOSSES))
    negatives = checked("negatives", negatives, Field(None, int, COUNT, optional=True))
    draws = 1 if negatives is None and loss == "bpr" else negatives
    cutoffs = _checked_cutoffs(cutoffs)

    def counted(batch):
        users = _read(batch, num_items)
        # who chose everything has nothing to be compared with by draws
        return (users.items > 0) & (draws is None or users.free.any(1, keepdims=True))

    def scored(outputs, batch, counts):
        """Returns losses [B, K], the users, and their scores [B, I]."""
        users = _read(batch, num_items)
        scores = floats(outputs, users.chosen.shape, "a score of each item for each user")
        scores = only_real(jnp.asarray(batch["mask"]), scores)
        if draws is None:
            losses = _softmax_losses(users, scores)
        else:
            keys = row_keys(batch.get(STEP), jnp.asarray(batch["x"]))
            losses = _sampled_losses(users, scores, _drawn(keys, users, draws), loss)
        return jnp.where(counts, losses, 0), users, scores

    def measured(scores, counts):
        losses, users, of_items = scores
        chosen = users.chosen.sum(1, dtype=jnp.int32)
        judged = (chosen > 0).astype(jnp.int32)
        hits = _hits(users, of_items, min(max(cutoffs), num_items - 1))
        of_loss = Sum(per_example(losses), per_example(counts.astype(jnp.int32)))
        sums = {HITS: Sum(hits.astype(jnp.int32), judged), CHOSEN: Sum(chosen, judged)}
        return Measured({"loss": of_loss, **sums})

    known = [
        Metric(f"{name}@{k}", value=partial(value, k=k), of_examples=True, label=f"{label}@{k}")
        for k in cutoffs
        for name, value, label in (("ndcg", _ndcg_of, "NDCG"), ("recall", _recall_of, "Recall"))
    ]
    known.append(LOSS)
    task = supervised(
        model,
        kind="recommendation",
        metrics=chosen(metrics, known, [metric.name for metric in known]),
        scored=scored,
        measured=measured,
        counted=counted,
        num_classes=num_items,
        frozen=frozen,
        fast_layers=fast_layers,
    )

    def loss_of_step(params, frozen, model_state, batch, key, train):
        if train and draws is not None:
            batch = {**batch, STEP: jax.random.fold_in(key, _NEGATIVES)}
        return task.loss(params, frozen, model_state, batch, key, train)

    return task._replace(loss=loss_of_step)


# What a batch of a training step has beside x and y.
STEP = "step"


class Users(NamedTuple):
    """The choices of the users of a batch; of rows of padding, none.

    Attributes:
      items: int[B, K] items to recommend, 0 where there is none.
      chosen: bool[B, I], the same as a set.
      free: bool[B, I] the other candidates.
    """

    items: jax.Array
    chosen: jax.Array
    free: jax.Array


def _read(batch: Mapping[str, Any], num_items: int) -> Users:
    mask = jnp.asarray(batch["mask"])
    x, y = (only_real(mask, batch[name]) for name in ("x", "y"))
    for name, items in (("x", x), ("y", y)):
        if items.ndim != 2 or not jnp.issubdtype(items.dtype, jnp.integer):
            raise ValueError(
                f"{name} is {items.dtype}{list(items.shape)}, and a recommendation task needs the "
                "items of each user, integers [rows, items], filled up with 0: "
                "fljax.data.from_interactions makes them."
            )
    chosen = members(y, num_items)
    free = ~members(x, num_items) & ~chosen & mask[:, None]
    return Users(y, chosen, free.at[:, 0].set(False))


def _softmax_losses(users: Users, scores: jax.Array) -> jax.Array:
    """Returns float[B, K], -log of the softmax of each item among the candidates."""
    candidates = users.chosen | users.free
    # a user of padding has none
    scores = jnp.where(candidates | ~candidates.any(1, keepdims=True), scores, -jnp.inf)
    whole = jax.nn.logsumexp(scores, axis=1, keepdims=True)
    return whole - jnp.take_along_axis(scores, users.items, 1)


def _sampled_losses(users: Users, scores: jax.Array, drawn: jax.Array, loss: str) -> jax.Array:
    """Returns float[B, K], the loss of each item beside those that were drawn for it."""
    own = jnp.take_along_axis(scores, users.items, 1)[..., None]
    others = jnp.take_along_axis(scores[:, None], drawn, 2)
    if loss == "bpr":
        return jax.nn.softplus(others - own).mean(-1)
    return jax.nn.logsumexp(jnp.concatenate([own, others], -1), axis=-1) - own[..., 0]


def _drawn(keys: jax.Array, users: Users, draws: int) -> jax.Array:
    """Returns int[B, K, draws] items that are free, each as likely as any other."""
    shape = (users.items.shape[1], draws)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)
    places = users.free.cumsum(1)
    number = jnp.floor(uniform * places[:, -1, None, None]).astype(places.dtype)
    # rounding may reach the number of them
    number = jnp.minimum(number, places[:, -1, None, None] - 1)
    found = jax.vmap(partial(jnp.searchsorted, side="right"))(places, number)
    return found.clip(0, users.free.shape[1] - 1)


def _hits(users: Users, scores: jax.Array, length: int) -> jax.Array:
    """Returns bool[B, length]: whether the candidate of each place is one to recommend."""
    # of equal values `top_k` takes the first; a NaN is behind everything
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    by_set = [jnp.where(each, scores, -jnp.inf) for each in (users.free, users.chosen)]
    best, place = jax.lax.top_k(jnp.concatenate(by_set, 1), length)
    return (place >= scores.shape[1]) & (best > -jnp.inf)


HITS, CHOSEN = "hits", "chosen"


def _judged(sums: Mapping[str, Sum], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (hits [users, up to k], items to recommend [users]) of those who have any."""
    users = sums[CHOSEN].weight > 0
    return np.asarray(sums[HITS].value)[users, :k], np.asarray(sums[CHOSEN].value)[users]


def _recall_of(sums: Mapping[str, Sum], k: int) -> float:
    hits, chosen = _judged(sums, k)
    return (hits.sum(1) / chosen).sum() / len(hits) if len(hits) else np.nan


def _ndcg_of(sums: Mapping[str, Sum], k: int) -> float:
    hits, chosen = _judged(sums, k)
    gains = 1 / np.log2(np.arange(2, k + 2))
    ideal = gains.cumsum()[np.minimum(chosen, k).astype(int) - 1]
    found = (hits * gains[: hits.shape[1]]).sum(1)
    return (found / ideal).sum() / len(hits) if len(hits) else np.nan


def _checked_cutoffs(cutoffs: Sequence[int]) -> tuple[int, ...]:
    cutoffs = sequence("cutoffs", cutoffs, "a list of whole numbers, such as (10, 20)")
    found = tuple(
        checked(f"cutoffs[{place}]", k, Field(None, int, COUNT)) for place, k in enumerate(cutoffs)
    )
    if not found or len(set(found)) < len(found):
        raise wrong("cutoffs", cutoffs, "one or several different whole numbers, such as (10, 20)")
    return found

"""Makes tasks of masked language modelling: tokens that are hidden are to be found again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.task import Task
from fljax.core.values import COUNT, FACTOR, Field, Interval, checked
from fljax.tasks.integer_targets import next_token
from fljax.tasks.keys import row_keys
from fljax_kernels import random_words

# What becomes of a chosen token, in shares: the mask, another token, or itself.
_MASKED, _OTHER = 0.8, 0.1
# Of the keys of a step, whose smaller numbers are the model's.
_CHOICE = 1 << 20
# Stands in y for what the model is not to tell.
_UNCHOSEN = -1


def masked_token(
    model: Any,
    num_classes: int,
    *,
    mask_id: int,
    mask_fraction: float = 0.15,
    pad_id: int | None = 0,
    metrics: Sequence[str] | None = None,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a masked-language-modelling task (Devlin et al., arXiv:1810.04805).

    Each token of x is chosen with the probability `mask_fraction`. Of the chosen ones, the model
    sees 80 % as `mask_id`, 10 % as a token drawn uniformly from the vocabulary, and 10 % as they
    are; at those places alone it is to tell the token. The choice is made anew in each local step;
    in evaluation it depends on a row's tokens alone, so that evaluations can be compared.

    Args:
      model: As for `classification`; maps tokens [B, T] to logits [B, T, num_classes].
      num_classes: Size of the vocabulary, `mask_id` included.
      mask_id: The token that stands for a hidden one: one that does not occur in the data.
      mask_fraction: Share of the tokens that are chosen.
      pad_id: Tokens of this value are never chosen or drawn; None if all may be.
      metrics, frozen, fast_layers: As for `classification`.

    Returns:
      The task; x is int[B, T], and y is not read.

    Raises:
      ValueError: For numbers out of range.

    Example:
      >>> task = tasks.masked_token(models.char_lstm(91, hidden=16), 91, mask_id=90)
      >>> task, task.metrics[0].name
      (Task('masked_token', 91 classes), 'accuracy')
    """
    vocabulary = checked("num_classes", num_classes, Field(None, int, COUNT))
    token = Field(None, int, Interval(0, vocabulary - 1))
    mask_id = checked("mask_id", mask_id, token)
    pad_id = checked("pad_id", pad_id, token._replace(optional=True))
    fraction = checked("mask_fraction", mask_fraction, Field(0.15, float, FACTOR))
    task = next_token(
        model, vocabulary, pad_id=_UNCHOSEN, metrics=metrics, frozen=frozen, fast_layers=fast_layers
    )

    def masked(batch, key):
        """Returns the batch as the model sees it, with what it is to tell as y."""
        tokens, mask = jnp.asarray(batch["x"]), jnp.asarray(batch["mask"])
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(
                f"x is {tokens.dtype}{list(tokens.shape)}, and a masked_token task needs token "
                "ids, integers [rows, length]."
            )
        key = None if key is None else jax.random.fold_in(key, _CHOICE)
        choice, fate, other = _uniform(row_keys(key, tokens), tokens.shape[1])
        chosen = (choice < fraction) & mask[:, None]
        first = 0 if pad_id is None else 1
        other = jnp.floor(other * (vocabulary - first)).astype(tokens.dtype)
        if pad_id is not None:
            chosen &= tokens != pad_id
            other += other >= pad_id
        seen = jnp.where(fate < _MASKED, mask_id, jnp.where(fate < _MASKED + _OTHER, other, tokens))
        x = jnp.where(chosen, seen, tokens).astype(tokens.dtype)
        y = jnp.where(chosen, tokens.astype(jnp.int32), _UNCHOSEN)
        return {**batch, "x": x, "y": y}

    def loss(params, frozen, model_state, batch, key, train):
        seen = masked(batch, key if train else None)
        return task.loss(params, frozen, model_state, seen, key, train)

    def measure(params, frozen, model_state, batch):
        return task.measure(params, frozen, model_state, masked(batch, None))

    return task._replace(kind="masked_token", loss=loss, measure=measure, judge=None)


def _uniform(keys: jax.Array, length: int) -> list[jax.Array]:
    """Returns three float32[B, length] of uniform numbers below 1."""
    words = random_words(keys, 3 * length)
    return jnp.split((words >> 8).astype(jnp.float32) * 2.0**-24, 3, axis=1)

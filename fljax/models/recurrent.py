"""A character-level language model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from fljax.core.values import Field, checked
from fljax.models.inputs import count
from fljax_kernels.lstm import FORMS, lstm

_FORM = Field("auto", str, FORMS)


def char_lstm(
    vocab: int = 90,
    *,
    embedding: int = 8,
    hidden: int = 256,
    layers: int = 2,
    lstm_form: str = "auto",
) -> Callable[[nnx.Rngs], nnx.Module]:
    """Returns the LSTM that Reddi et al. (arXiv:2003.00295) train on Shakespeare.

    820,522 parameters with the default sizes. Gates have one bias each, and 1 is added to the
    forget gate's (Jozefowicz et al., 2015).

    Args:
      vocab: Number of tokens.
      embedding: Size of the token embedding.
      hidden: Size of the state of each layer.
      layers: Number of LSTM layers.
      lstm_form: How the recurrence is computed; see `fljax_kernels.lstm`.

    Raises:
      ValueError: For sizes that are not whole numbers of at least 1, and for an unknown form.

    Example:
      >>> model = nnx.eval_shape(lambda: models.char_lstm(90)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      820522
    """
    sizes = {"vocab": vocab, "embedding": embedding, "hidden": hidden, "layers": layers}
    sizes = {name: count(name, size) for name, size in sizes.items()}
    return partial(CharLSTM, **sizes, form=checked("lstm_form", lstm_form, _FORM))


class CharLSTM(nnx.Module):
    """Predicts the next token at every position: int[B, T] -> float[B, T, vocab]."""

    def __init__(
        self, rngs: nnx.Rngs, *, vocab: int, embedding: int, hidden: int, layers: int, form: str
    ):
        normal = nnx.initializers.truncated_normal(1.0)
        self.embed = nnx.Embed(vocab, embedding, embedding_init=normal, rngs=rngs)
        sizes = [embedding] + [hidden] * (layers - 1)
        self.layers = nnx.List([LSTM(size, hidden, rngs, form) for size in sizes])
        self.dense = nnx.Linear(hidden, vocab, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return next_tokens(self.embed, self.layers, self.dense, tokens)


def next_tokens(
    embed: nnx.Embed, layers: nnx.List, dense: nnx.Linear, tokens: jax.Array
) -> jax.Array:
    """Returns logits [B, T, vocab] of the next token at every position, of layers time first."""
    # nnx.Embed returns the dtype it was made with, even where its parameter is cast
    x = jnp.take(embed.embedding[...], tokens.T, axis=0)
    for layer in layers:
        x = layer(x)
    return dense(x.swapaxes(0, 1))


class LSTM(nnx.Module):
    """One layer, time first: [T, B, inputs] -> [T, B, hidden], from a state of zeros."""

    def __init__(self, inputs: int, hidden: int, rngs: nnx.Rngs, form: str = "auto"):
        normal = nnx.initializers.truncated_normal((inputs + hidden) ** -0.5)
        self.hidden, self.form = hidden, form
        self.input_kernel = nnx.Param(normal(rngs.params(), (inputs, 4 * hidden)))
        self.hidden_kernel = nnx.Param(normal(rngs.params(), (hidden, 4 * hidden)))
        self.bias = nnx.Param(jnp.zeros(4 * hidden))

    def __call__(self, x: jax.Array) -> jax.Array:
        # one product for all times; only the product with the state must wait for the time before
        gates = x @ self.input_kernel[...] + self.bias[...]
        return lstm(gates, self.hidden_kernel[...], form=self.form)

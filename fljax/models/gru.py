"""Gated recurrent units: a language model, and a classifier of sequences.

Cho et al. 2014 (arXiv:1406.1078), with the reset gate behind the product, as cuDNN and PyTorch have
it: with gates r, z from input and state,

    n = tanh(W_n x + b_n + r (U_n h + c_n))         h <- (1 - z) n + z h
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from fljax.core.values import COUNT, Field, checked
from fljax.models.inputs import count, counts
from fljax.models.recurrent import next_tokens

Factory = Callable[[nnx.Rngs], nnx.Module]


def char_gru(vocab: int = 90, *, embedding: int = 8, hidden: int = 256, layers: int = 2) -> Factory:
    """Returns a language model like `char_lstm`, of gated recurrent units: 621,866 parameters.

    Args:
      vocab: Number of tokens.
      embedding: Size of the token embedding.
      hidden: Size of the state of each layer.
      layers: Number of layers.

    Raises:
      ValueError: For sizes that are not whole numbers of at least 1.

    Example:
      >>> model = nnx.eval_shape(lambda: models.char_gru(90)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      621866
    """
    sizes = {"vocab": vocab, "embedding": embedding, "hidden": hidden, "layers": layers}
    return partial(CharGRU, **{name: count(name, size) for name, size in sizes.items()})


def gru_classifier(
    num_classes: int,
    input_shape: Sequence[int],
    *,
    hidden: int = 64,
    layers: int = 1,
    vocab: int | None = None,
    embedding: int = 32,
) -> Factory:
    """Returns a classifier of sequences: the last state of gated recurrent units, a dense layer.

    Args:
      num_classes: Number of classes, or of other outputs.
      input_shape: (times, features) of numbers, or (times,) of tokens.
      hidden: Size of the state of each layer.
      layers: Number of layers.
      vocab: Number of tokens; token 0 is padding, at the end of a sequence, and changes no state.
      embedding: Size of the embedding of tokens.

    Raises:
      ValueError: For tokens without `vocab`, numbers with one, or another shape.

    Example:
      >>> models.gru_classifier(6, (128, 9))(nnx.Rngs(0))(jnp.zeros((2, 128, 9))).shape
      (2, 6)
    """
    shape = counts("input_shape", input_shape)
    vocab = checked("vocab", vocab, Field(None, int, COUNT, optional=True))
    if len(shape) != (2 if vocab is None else 1):
        wanted = "numbers [times, features]" if vocab is None else "tokens [times]"
        raise ValueError(
            f"gru_classifier(vocab={vocab}) reads {wanted}, and an example x has the shape "
            f"{list(shape)}: give vocab for tokens and leave it out for numbers"
        )
    sizes = {"num_classes": num_classes, "hidden": hidden, "layers": layers}
    sizes = {name: count(name, size) for name, size in sizes.items()}
    inputs = count("embedding", embedding) if vocab else shape[1]
    return partial(GRUClassifier, inputs=inputs, vocab=vocab, **sizes)


class CharGRU(nnx.Module):
    """Predicts the next token at every position: int[B, T] -> float[B, T, vocab]."""

    def __init__(self, rngs: nnx.Rngs, *, vocab: int, embedding: int, hidden: int, layers: int):
        self.embed = _embedding(vocab, embedding, rngs)
        self.layers = _layers(embedding, hidden, layers, rngs)
        self.dense = nnx.Linear(hidden, vocab, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return next_tokens(self.embed, self.layers, self.dense, tokens)


class GRUClassifier(nnx.Module):
    """Classifies [B, T, F] numbers or [B, T] tokens by the last state: float[B, classes]."""

    def __init__(
        self,
        rngs: nnx.Rngs,
        *,
        num_classes: int,
        inputs: int,
        hidden: int,
        layers: int,
        vocab: int | None,
    ):
        self.embed = _embedding(vocab, inputs, rngs) if vocab else None
        self.layers = _layers(inputs, hidden, layers, rngs)
        self.dense = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        real = None if self.embed is None else x.T != 0
        if self.embed is not None:
            x = jnp.take(self.embed.embedding[...], x, axis=0)
        x = x.swapaxes(0, 1)
        for layer in self.layers:
            x = layer(x, real)
        return self.dense(x[-1])


class GRU(nnx.Module):
    """One layer, time first: [T, B, inputs] -> [T, B, hidden], from a state of zeros."""

    def __init__(self, inputs: int, hidden: int, rngs: nnx.Rngs):
        normal = nnx.initializers.truncated_normal((inputs + hidden) ** -0.5)
        self.hidden = hidden
        self.input_kernel = nnx.Param(normal(rngs.params(), (inputs, 3 * hidden)))
        self.hidden_kernel = nnx.Param(normal(rngs.params(), (hidden, 3 * hidden)))
        self.bias = nnx.Param(jnp.zeros(3 * hidden))
        self.hidden_bias = nnx.Param(jnp.zeros(hidden))

    def __call__(self, x: jax.Array, real: jax.Array | None = None) -> jax.Array:
        """Returns the states; where `real` [T, B] is false, a state stays as it was."""
        # one product for all times; only the product with the state must wait for the time before
        inputs = x @ self.input_kernel[...] + self.bias[...]
        kernel, bias = self.hidden_kernel[...], self.hidden_bias[...]

        def step(state, at):
            gates, is_real = at
            recurrent = state @ kernel
            reset, update = jnp.split(
                nnx.sigmoid(gates[:, : 2 * self.hidden] + recurrent[:, : 2 * self.hidden]), 2, -1
            )
            new = gates[:, 2 * self.hidden :] + reset * (recurrent[:, 2 * self.hidden :] + bias)
            after = (1 - update) * jnp.tanh(new) + update * state
            after = after if is_real is None else jnp.where(is_real[:, None], after, state)
            return after, after

        start = jnp.zeros((x.shape[1], self.hidden), inputs.dtype)
        return jax.lax.scan(step, start, (inputs, real))[1]


def _embedding(vocab: int, size: int, rngs: nnx.Rngs) -> nnx.Embed:
    normal = nnx.initializers.truncated_normal(1.0)
    return nnx.Embed(vocab, size, embedding_init=normal, rngs=rngs)


def _layers(inputs: int, hidden: int, layers: int, rngs: nnx.Rngs) -> nnx.List:
    sizes = [inputs] + [hidden] * (layers - 1)
    return nnx.List([GRU(size, hidden, rngs) for size in sizes])

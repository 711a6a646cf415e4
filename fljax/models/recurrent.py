"""A character-level language model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from fljax.models.inputs import count


def char_lstm(
    vocab: int = 90, *, embedding: int = 8, hidden: int = 256, layers: int = 2
) -> Callable[[nnx.Rngs], nnx.Module]:
    """Returns the LSTM that Reddi et al. (arXiv:2003.00295) train on Shakespeare.

    820,522 parameters with the default sizes. Gates have one bias each, and 1 is added to the
    forget gate's (Jozefowicz et al., 2015).

    Args:
      vocab: Number of tokens.
      embedding: Size of the token embedding.
      hidden: Size of the state of each layer.
      layers: Number of LSTM layers.

    Raises:
      ValueError: For sizes that are not whole numbers of at least 1.

    Example:
      >>> model = nnx.eval_shape(lambda: models.char_lstm(90)(nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      820522
    """
    sizes = {"vocab": vocab, "embedding": embedding, "hidden": hidden, "layers": layers}
    return partial(CharLSTM, *(count(name, size) for name, size in sizes.items()))


class CharLSTM(nnx.Module):
    """Predicts the next token at every position: int[B, T] -> float[B, T, vocab]."""

    def __init__(self, vocab: int, embedding: int, hidden: int, layers: int, rngs: nnx.Rngs):
        normal = nnx.initializers.truncated_normal(1.0)
        self.embed = nnx.Embed(vocab, embedding, embedding_init=normal, rngs=rngs)
        sizes = [embedding] + [hidden] * (layers - 1)
        self.layers = nnx.List([LSTM(size, hidden, rngs) for size in sizes])
        self.dense = nnx.Linear(hidden, vocab, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        # nnx.Embed returns the dtype it was made with, even where its parameter is cast
        x = jnp.take(self.embed.embedding[...], tokens.T, axis=0)
        for layer in self.layers:
            x = layer(x)
        return self.dense(x.swapaxes(0, 1))


class LSTM(nnx.Module):
    """One layer, time first: [T, B, inputs] -> [T, B, hidden], from a state of zeros."""

    def __init__(self, inputs: int, hidden: int, rngs: nnx.Rngs):
        normal = nnx.initializers.truncated_normal((inputs + hidden) ** -0.5)
        self.hidden = hidden
        self.input_kernel = nnx.Param(normal(rngs.params(), (inputs, 4 * hidden)))
        self.hidden_kernel = nnx.Param(normal(rngs.params(), (hidden, 4 * hidden)))
        self.bias = nnx.Param(jnp.zeros(4 * hidden))

    def __call__(self, x: jax.Array) -> jax.Array:
        # one product for all times; only the product with the state must wait for the time before
        gates = x @ self.input_kernel[...] + self.bias[...]
        return _recur(gates, self.hidden_kernel[...])


@jax.custom_vjp
def _recur(gates: jax.Array, kernel: jax.Array) -> jax.Array:
    """Runs through the times, from a state of zeros: [T, B, 4 * hidden] -> [T, B, hidden].

    JAX's own gradient adds to the kernel's at every time, and multiplies with the transposed kernel
    there. This one takes a single product over all times, and transposes the kernel once. In return
    there is no forward mode (`jax.jvp`).
    """
    return _recur_forward(gates, kernel)[0]


def _recur_forward(gates, kernel):
    def advance(state, gates):
        output, cell = state
        gates = gates + output @ kernel
        state = _advance_cell(gates, cell)
        return state, (*state, gates)

    zeros = jnp.zeros((gates.shape[1], kernel.shape[0]), gates.dtype)
    outputs, cells, gates = jax.lax.scan(advance, (zeros, zeros), gates)[1]
    return outputs, (outputs, cells, gates, kernel)


def _recur_backward(residuals, doutputs):
    outputs, cells, gates, kernel = residuals
    transposed = kernel.T

    def retreat(dstate, at):
        doutput, dcell = dstate
        doutput_here, cell_before, gates = at
        pull_back = jax.vjp(_advance_cell, gates, cell_before)[1]
        dgates, dcell = pull_back((doutput + doutput_here, dcell))
        return (dgates @ transposed, dcell), dgates

    zeros = jnp.zeros_like(outputs[:1])
    before = [jnp.concatenate([zeros, states[:-1]]) for states in (outputs, cells)]
    start = (zeros[0], zeros[0])
    dgates = jax.lax.scan(retreat, start, (doutputs, before[1], gates), reverse=True)[1]
    return dgates, jnp.einsum("tbh,tbg->hg", before[0], dgates)


_recur.defvjp(_recur_forward, _recur_backward)


def _advance_cell(gates, cell):
    """Returns output and cell of one time."""
    write, new, forget, read = jnp.split(gates, 4, axis=-1)
    cell = nnx.sigmoid(forget + 1) * cell + nnx.sigmoid(write) * jnp.tanh(new)
    return nnx.sigmoid(read) * jnp.tanh(cell), cell

"""Transformers over tokens: one that predicts a token at every place, one that classifies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from fljax.core.values import FINITE, Field, checked
from fljax.models.attention import DEVIATION, EPSILON, Block, block_sizes, dense, dropped
from fljax.models.dropout import Dropout
from fljax.models.inputs import count, counts

Factory = Callable[[nnx.Rngs], nnx.Module]

_POSITIONS = Field("learned", str, ("learned", "rotary"))
_FLAG = Field(True, bool)
_PAD = Field(None, int, FINITE, optional=True)


def gpt(
    num_classes: int,
    input_shape: Sequence[int] = (1024,),
    *,
    layers: int = 4,
    heads: int = 4,
    width: int = 128,
    hidden: int | None = None,
    length: int | None = None,
    positions: str = "learned",
    tied: bool = True,
    causal: bool = True,
    dropout: float = 0.0,
    pad_id: int | None = None,
) -> Factory:
    """Returns a transformer that predicts a token at every place, as GPT-2 does.

    Normalization stands before attention and perceptron, and behind the last block. The sizes of
    GPT-2's smallest: `gpt(50257, layers=12, heads=12, width=768)`, of 124,439,808 parameters, which
    `fljax.models.with_weights` reads from Hugging Face's files.

    Args:
      num_classes: Size of the vocabulary.
      input_shape: (T,), the length of an example.
      layers: Number of blocks.
      heads: Attention heads of each; they divide the width.
      width: Size of a token's vector.
      hidden: Hidden units of the perceptron; unset: four times the width.
      length: Places that there are positions for; unset: T.
      positions: "learned", or "rotary" (Su et al., arXiv:2104.09864).
      tied: Whether the last layer is the embedding, transposed.
      causal: Whether a place reads none behind it. False for masked tokens.
      dropout: Share of entries that training drops, of embeddings and of what blocks add.
      pad_id: A token that no place reads. Needed where causal is False and examples are padded;
        else padding stands behind what is judged.

    Raises:
      ValueError: For sizes that do not fit together.

    Example:
      >>> gpt = models.gpt(90, (80,), layers=1, heads=2, width=16)
      >>> model = nnx.eval_shape(lambda: gpt(nnx.Rngs(0)))
      >>> model.trunk.blocks[0].attention.qkv.kernel.shape
      (16, 48)
    """
    vocab = count("num_classes", num_classes)
    trunk = _trunk(
        "gpt", vocab, input_shape, length, positions, pad_id, causal,
        layers=layers, heads=heads, width=width, hidden=hidden, dropout=dropout,
    )  # fmt: skip
    return partial(GPT, vocab, checked("tied", tied, _FLAG), trunk)


def transformer_encoder(
    num_classes: int,
    input_shape: Sequence[int],
    *,
    vocab: int,
    layers: int = 4,
    heads: int = 4,
    width: int = 128,
    hidden: int | None = None,
    length: int | None = None,
    positions: str = "learned",
    dropout: float = 0.0,
    pad_id: int | None = 0,
) -> Factory:
    """Returns a transformer that classifies a sequence of tokens.

    Every place reads every other one; the mean over places that are no padding goes to a dense
    layer.

    Args:
      num_classes: Number of classes.
      input_shape: (T,), the length of an example.
      vocab: Number of tokens.
      pad_id: A token that no place reads, and that no mean counts; None if there is none.
      layers, heads, width, hidden, length, positions, dropout: As for `gpt`.

    Raises:
      ValueError: For sizes that do not fit together.

    Example:
      >>> encoder = models.transformer_encoder(3, (20,), vocab=90, layers=1, width=16)
      >>> nnx.eval_shape(lambda: encoder(nnx.Rngs(0))).head.kernel.shape
      (16, 3)
    """
    trunk = _trunk(
        "transformer_encoder", count("vocab", vocab), input_shape, length, positions, pad_id, False,
        layers=layers, heads=heads, width=width, hidden=hidden, dropout=dropout,
    )  # fmt: skip
    return partial(Classifier, count("num_classes", num_classes), trunk)


class GPT(nnx.Module):
    """Predicts a token at every place: int[B, T] -> float[B, T, vocab]."""

    def __init__(self, vocab: int, tied: bool, trunk: Callable, rngs: nnx.Rngs):
        self.trunk = trunk(rngs=rngs)
        width = self.trunk.width
        self.head = None if tied else dense(width, vocab, DEVIATION, rngs, use_bias=False)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.trunk(tokens)
        if self.head is not None:
            return self.head(x)
        return x @ self.trunk.embed.embedding[...].T


class Classifier(nnx.Module):
    """Classifies a sequence by the mean over its places: int[B, T] -> float[B, classes]."""

    def __init__(self, num_classes: int, trunk: Callable, rngs: nnx.Rngs):
        self.trunk = trunk(rngs=rngs)
        self.head = dense(self.trunk.width, num_classes, DEVIATION, rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.trunk(tokens)
        if self.trunk.pad_id is None:
            return self.head(x.mean(1))
        real = (tokens != self.trunk.pad_id).astype(x.dtype)[..., None]
        return self.head((x * real).sum(1) / jnp.maximum(real.sum(1), 1))


class Trunk(nnx.Module):
    """Embedding, blocks and a normalization: int[B, T] -> float[B, T, width]."""

    def __init__(
        self,
        rngs: nnx.Rngs,
        *,
        vocab: int,
        length: int,
        positions: str,
        pad_id: int | None,
        causal: bool,
        layers: int,
        heads: int,
        width: int,
        hidden: int,
        dropout: float,
    ):
        self.length, self.pad_id, self.causal, self.width = length, pad_id, causal, width
        normal = nnx.initializers.normal(DEVIATION)
        self.embed = nnx.Embed(vocab, width, embedding_init=normal, rngs=rngs)
        self.rotary = positions == "rotary"
        if not self.rotary:
            self.positions = nnx.Embed(length, width, embedding_init=normal, rngs=rngs)
        sizes = width, heads, hidden, layers
        self.blocks = nnx.List([Block(*sizes, rngs, dropout=dropout) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(self, tokens: jax.Array) -> jax.Array:
        length = tokens.shape[1]
        if length > self.length:
            raise ValueError(
                f"examples have {length} tokens, and the model has positions for {self.length}. "
                f"Give it length={length}, or shorter examples."
            )
        # nnx.Embed returns the dtype it was made with, even where its parameter is cast
        x = jnp.take(self.embed.embedding[...], tokens, axis=0)
        if not self.rotary:
            x = x + self.positions.embedding[...][:length]
        x = dropped(self.dropout, x)
        allowed = self._allowed(tokens)
        for block in self.blocks:
            x = block(x, allowed, self.rotary)
        return self.norm(x)

    def _allowed(self, tokens: jax.Array) -> jax.Array | None:
        """Returns bool[B or 1, 1, T, T], which places (third) read which (fourth)."""
        length = tokens.shape[1]
        itself = jnp.eye(length, dtype=bool)  # else a place would read nothing at all
        allowed = jnp.tril(jnp.ones((length, length), bool)) if self.causal else None
        if self.pad_id is not None:
            real = (tokens != self.pad_id)[:, None, None, :]
            allowed = itself | (real if allowed is None else real & allowed)
        return allowed


def _trunk(
    name: str,
    vocab: int,
    input_shape: Sequence[int],
    length: int | None,
    positions: str,
    pad_id: int | None,
    causal: bool,
    **sizes,
) -> Callable:
    """Returns a function of rngs that makes the trunk of a model, whose arguments are checked."""
    shape = counts("input_shape", input_shape)
    if len(shape) != 1:
        raise ValueError(
            f"{name} reads sequences of tokens, int[rows, T], and input_shape, the shape of an "
            f"example x, is {shape}. Images are for vit, other features for mlp."
        )
    length = shape[0] if length is None else count("length", length)
    if length < shape[0]:
        raise ValueError(
            f"{name}: length = {length} is below the {shape[0]} tokens of an example. Leave it "
            "out, or give positions for all of them."
        )
    blocks = block_sizes(name, **sizes)
    positions = checked("positions", positions, _POSITIONS)
    if positions == "rotary" and blocks["width"] // blocks["heads"] % 2:
        raise ValueError(
            f"{name}: rotary positions turn pairs of entries, and each of {blocks['heads']} heads "
            f"has {blocks['width'] // blocks['heads']} of width = {blocks['width']}. Give heads an "
            "even number of entries."
        )
    return partial(
        Trunk, vocab=vocab, length=length, positions=positions,
        pad_id=checked("pad_id", pad_id, _PAD), causal=checked("causal", causal, _FLAG), **blocks,
    )  # fmt: skip

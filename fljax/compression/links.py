"""Makes links of a pipeline out of compressors.

The floating-point leaves of an update (or of a message) become one vector, or one vector each; the
leaves of other types travel as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.compression.compressor import Compressor
from fljax.compression.vectors import joined
from fljax.core.precision import widened
from fljax.core.transforms import DownlinkLink, UplinkLink, dense_bits
from fljax.core.values import Field, checked, wrong
from fljax.core.wire_bytes import dense_from_bytes, dense_to_bytes
from fljax_kernels.stored import stored

PyTree = Any
# A compressor, or a function of a leaf's shape that returns the leaf's own.
Choice = Compressor | Callable[[tuple[int, ...]], Compressor]


class Form(NamedTuple):
    """The structure, shapes and types of a value, which both sides know beforehand."""

    tree: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]

    @classmethod
    def of(cls, value: PyTree) -> Form:
        """Returns the form of a value."""
        leaves, tree = jax.tree.flatten(value)
        return cls(tree, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves))

    @property
    def compressed(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """The leaves that are compressed."""
        return tuple(leaf for leaf in self.leaves if _is_compressed(leaf))

    @property
    def length(self) -> int:
        """The length of all that is compressed, as one vector."""
        return sum(math.prod(leaf.shape) for leaf in self.compressed)

    def tree_of(self, vectors: Sequence[jax.Array], rest: Sequence[jax.Array]) -> PyTree:
        """Returns a value of this form.

        Args:
          vectors: Of all the leaves that are compressed, or one of each.
          rest: The other leaves.
        """
        if len(vectors) == 1 < len(self.compressed):
            sizes = [math.prod(leaf.shape) for leaf in self.compressed]
            vectors = jnp.split(vectors[0], list(itertools.accumulate(sizes[:-1])))
        compressed, others = iter(vectors), iter(rest)
        leaves = [
            next(compressed).astype(leaf.dtype).reshape(leaf.shape)
            if _is_compressed(leaf)
            else next(others)
            for leaf in self.leaves
        ]
        return jax.tree.unflatten(self.tree, leaves)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("payloads", "rest"), meta_fields=("form",)
)
@dataclasses.dataclass(frozen=True)
class Sent:
    """A compressed value.

    Attributes:
      payloads: One payload for all floating-point leaves, or one for each.
      rest: The leaves of other types, as they are.
      form: What the value looks like.
    """

    payloads: tuple[PyTree, ...]
    rest: tuple[jax.Array, ...]
    form: Form


def uplink(compressor: Choice, *, per_leaf: bool = False) -> UplinkLink:
    """Returns the link that compresses each job's update.

    Args:
      compressor: Of the update as one vector, in the order of `jax.tree.leaves`; or a function of a
        leaf's shape that returns that leaf's compressor.
      per_leaf: Whether leaves are compressed one by one, each with its own scale, say. A function
        of shapes does so in any case.

    A link behind it receives the payload as a pytree, whose floating-point leaves it may compress
    further; what it leaves is counted at the width of its arrays. `chain` composes compressors more
    tightly.

    Raises:
      ValueError: If `compressor` is something else.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> link = compression.uplink(compression.top_k(0.01))
      >>> pipeline = Pipeline(uplink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    check_choice(compressor, per_leaf)
    return UplinkLink(
        encode=lambda value, state, job, key: (_compress(compressor, per_leaf, value, key), state),
        decode=lambda sent, state: _decompress(compressor, per_leaf, sent),
        bits=functools.partial(_bits, compressor, per_leaf),
        to_wire=functools.partial(_to_wire, compressor, per_leaf),
        from_wire=functools.partial(_from_wire, compressor, per_leaf),
    )


def downlink(compressor: Choice, *, per_leaf: bool = False) -> DownlinkLink:
    """Returns the link that compresses each message as clients receive it, without a memory.

    For quantizers: a model of which most coordinates are missing is of no use. With few bits, or a
    sparse code, `fljax.compression.feedback.downlink_difference` sends what has changed.

    Args:
      compressor, per_leaf: As for `uplink`; the vector is made of everything in the message that is
        floating-point.

    Raises:
      ValueError: If the size of a message depends on the values.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> link = compression.downlink(compression.bf16())
      >>> pipeline = Pipeline(downlink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    roundtrip, bits = simulated(compressor, per_leaf)
    return DownlinkLink(
        apply=lambda message, state, key: (roundtrip(message, key), state),
        bits=bits,
    )


def check_choice(compressor: Choice, per_leaf: bool) -> None:
    """Raises ValueError for what is neither a compressor nor a function of a leaf's shape."""
    if not (isinstance(compressor, Compressor) or callable(compressor)):
        raise wrong("compressor", compressor, "a compressor, such as fljax.compression.top_k(0.01)")
    checked("per_leaf", per_leaf, Field(False, bool))


def simulated(compressor: Choice, per_leaf: bool):
    """Returns functions (value, key) -> value as it arrives, and (value) -> bits.

    Raises:
      ValueError: If the size of a message depends on the values.
    """
    check_choice(compressor, per_leaf)
    if isinstance(compressor, Compressor) and compressor.layout is None:
        raise ValueError(
            f"The size of what {compressor.name} sends depends on the values, but a downlink link "
            "counts its bits from the message as clients receive it, which does not show what was "
            "sent. Use a compressor of fixed size: top_k keeps the same coordinates as prune, "
            "except that of equal magnitudes it may drop some."
        )
    compress = functools.partial(_compress, compressor, per_leaf)

    def roundtrip(value, key):
        return _decompress(compressor, per_leaf, compress(value, key))

    def bits(value):
        return _bits(compressor, per_leaf, jax.eval_shape(compress, value, jax.random.key(0)))

    return roundtrip, bits


def _is_compressed(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating) and math.prod(leaf.shape) > 0


def leaves_of(value: PyTree) -> tuple[list[jax.Array], tuple[jax.Array, ...]]:
    """Returns (the leaves that are compressed, as vectors; the others, as they are).

    Vectors are float32 at least, as are the norms and bounds that compressors take of them.
    """
    leaves = jax.tree.leaves(value)
    return (
        [widened(leaf.reshape(-1)) for leaf in leaves if _is_compressed(leaf)],
        tuple(leaf for leaf in leaves if not _is_compressed(leaf)),
    )


def vector_of(value: PyTree) -> jax.Array:
    """Returns the leaves that are compressed as one vector, of the widest of their types."""
    return joined(leaves_of(value)[0])


def compressors_of(compressor: Choice, per_leaf: bool, form: Form) -> list[tuple[Compressor, int]]:
    """Returns (compressor, length of its vector) for each payload."""
    if not isinstance(compressor, Compressor):
        return [(compressor(leaf.shape), math.prod(leaf.shape)) for leaf in form.compressed]
    if per_leaf:
        return [(compressor, math.prod(leaf.shape)) for leaf in form.compressed]
    return [(compressor, form.length)] if form.length else []


def _compress(compressor: Choice, per_leaf: bool, value: PyTree, key: jax.Array) -> Sent:
    form, (vectors, rest) = Form.of(value), leaves_of(value)
    parts = compressors_of(compressor, per_leaf, form)
    if len(parts) == 1:
        vectors = [joined(vectors)]
    payloads = tuple(
        code.encode(jax.random.fold_in(key, number), vector)
        for number, ((code, _), vector) in enumerate(zip(parts, vectors, strict=True))
    )
    return Sent(jax.tree.map(_written, payloads), rest, form)


def _written(leaf: jax.Array) -> jax.Array:
    """Returns an array of a payload, integers by a loop of their own.

    XLA's CPU backend would else compute codes again where they are decoded, entry by entry, inside
    the loops that cut leaves out of the vector.
    """
    return stored(leaf) if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf


def _decompress(compressor: Choice, per_leaf: bool, sent: Sent) -> PyTree:
    parts = compressors_of(compressor, per_leaf, sent.form)
    vectors = [
        code.decode(payload, d) for (code, d), payload in zip(parts, sent.payloads, strict=True)
    ]
    return sent.form.tree_of(vectors, sent.rest)


def _bits(compressor: Choice, per_leaf: bool, sent: Sent) -> jax.Array:
    parts = compressors_of(compressor, per_leaf, sent.form)
    total = dense_bits(sent.rest)
    for (code, d), payload in zip(parts, sent.payloads, strict=True):
        total += code.bits(payload, d)
    return total


def _to_wire(compressor: Choice, per_leaf: bool, sent: Sent) -> tuple[bytes, ...]:
    """Returns a message for each payload, and behind them the leaves that travel as they are."""
    parts = compressors_of(compressor, per_leaf, sent.form)
    coded = [
        code.serialize(payload, d) for (code, d), payload in zip(parts, sent.payloads, strict=True)
    ]
    return *coded, *dense_to_bytes(sent.rest)


def _from_wire(compressor: Choice, per_leaf: bool, messages: Sequence[bytes], like: Sent) -> Sent:
    """Returns what `_to_wire` has written, of the form of `like`."""
    parts = compressors_of(compressor, per_leaf, like.form)
    payloads = tuple(
        code.deserialize(message, d)
        for (code, d), message in zip(parts, messages[: len(parts)], strict=True)
    )
    rest = dense_from_bytes(messages[len(parts) :], like.rest)
    return Sent(payloads, rest, like.form)

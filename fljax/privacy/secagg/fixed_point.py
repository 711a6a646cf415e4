"""Sends messages as integers of a ring, whose sum is exact, together with the clients' weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.algorithm import Aggregate, Job
from fljax.core.transforms import UPDATE, Participants, UplinkLink
from fljax.core.trees import beside
from fljax.core.values import POSITIVE, Field, Interval, checked
from fljax_kernels import random_words

PyTree = Any
ROUNDINGS = ("stochastic", "conditional")
# Conditional rounding draws again so often; a draw is refused with probability exp(-1/2) at most.
_TRIES = 32


class FixedPoint(NamedTuple):
    """The coding of numbers as integers.

    Attributes:
      bits: Of a client's integer, its sign included.
      clip: Bound of each number of the update, or of each of a name's, or with `by_norm` of the
        norm of the message.
      by_norm: Whether messages are scaled to the bound, instead of cut off at it.
      rounding: "stochastic" or "conditional".
      max_weight: Bound of a client's weight.
      ring_bits: Of the ring in which integers are summed.
    """

    bits: int
    clip: float | Mapping[str, float]
    by_norm: bool
    rounding: str
    max_weight: float
    ring_bits: int

    @property
    def largest(self) -> int:
        """The largest integer that a client sends."""
        return 2 ** (self.bits - 1) - 1

    def bound(self, name: str) -> float:
        """Returns the bound of the numbers of a name.

        Raises:
          ValueError: If there is none for it.
        """
        if isinstance(self.clip, Mapping):
            if name not in self.clip:
                raise ValueError(
                    f"clip has bounds for {', '.join(map(repr, sorted(self.clip)))}, but clients "
                    f"send {name!r} too. Give a bound for it as well."
                )
            return self.clip[name]
        if name != UPDATE and not self.by_norm:
            raise ValueError(
                f"clip = {self.clip:g} is the bound of the update, but clients send {name!r} too, "
                "on a scale of its own, and what is larger is cut off. Give a bound for each name, "
                f"as in clip={{'{UPDATE}': {self.clip:g}, '{name}': 10.0}}; train/clipped_share "
                "shows whether it is wide enough."
            )
        return self.clip

    def step(self, name: str) -> float:
        """Returns the distance between two numbers of a name that can be told apart."""
        return self.bound(name) / self.largest


def fixed_point(
    bits: int = 16,
    clip: float | Mapping[str, float] = 1.0,
    *,
    by_norm: bool = False,
    rounding: str = "stochastic",
    max_weight: float = 1.0,
    ring_bits: int = 32,
) -> UplinkLink:
    """Returns the link that sends the whole message as integers, and sums them without error.

        q = round(w / max_weight * clipped(x) * (2^(bits - 1) - 1) / clip)

    A client sends q and its weight w, since what is multiplied by its weight cannot be told apart
    from it. Rounding is stochastic, so that sums are unbiased. Sums are taken modulo 2^ring_bits,
    which no sum of a cohort can reach. The record has the share of numbers that were cut off
    (`train/clipped_share`), of clients whose weight was (`train/capped_share`), and the squared
    error of the messages over their squared norm (`train/quantization_error`).

    Args:
      bits: Of a client's integers, the sign included, 2 to 31.
      clip: Bound of the numbers of the update; {name: bound} where clients send anything else,
        which has a scale of its own (control variates, statistics of a model, a sum of rates).
      by_norm: Whether `clip` is instead a bound of the norm of the whole message as it is sent.
        Messages are scaled to a slightly smaller norm, since rounding may make them longer: so the
        sensitivity of the sum is `clip`, as noise for differential privacy needs.
      rounding: "stochastic"; or "conditional", which draws again until rounding has made a message
        hardly longer (Kairouz et al. 2021, arXiv:2102.06387), so that less is lost by scaling where
        steps are coarse; it takes `by_norm`.
      max_weight: Largest weight of a client: 1 where all count alike, else the largest number of
        examples, say. Larger ones are cut off; `simulate` refuses what it knows to be larger.
      ring_bits: Of the ring, at most 32: the size of a number on the wire.

    Wire format: ring_bits for each number, and for each weight.

    Raises:
      ValueError: For settings out of range, in a run whose cohort could leave the ring, and for
        norms that steps are too coarse for.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> link = privacy.fixed_point(bits=20, clip=0.5, max_weight=100)
      >>> pipeline = Pipeline(uplink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    code = _checked(bits, clip, by_norm, rounding, max_weight, ring_bits)

    def agree(people: Participants) -> tuple:
        _check_no_wrap(code, people.present.shape[0])
        return ()

    def encode(message: dict[str, PyTree], state, job: Job, key: jax.Array, agreed: tuple):
        payload, report = _encoded(code, message, job.weights, key)
        return payload, state, report

    def decode_sum(message, state, agreed, arrived):
        return {name: _decoded(code, name, total) for name, total in message.items()}

    return UplinkLink(
        encode,
        decode=lambda payload, state: payload,
        bits=lambda payload: ring_size(payload, code.ring_bits),
        linear=True,
        covers=None,
        refuses_rest=True,
        weighs=True,
        reports=True,
        agree=agree,
        decode_sum=decode_sum,
        sent_norm=code.bound("") * code.max_weight if code.by_norm else math.inf,
        max_weight=code.max_weight,
    )


def ring_size(payload: PyTree, ring_bits: int) -> jax.Array:
    """Returns the bits on the wire of words of a ring, as a uint32 scalar."""
    return jnp.uint32(ring_bits * sum(leaf.size for leaf in jax.tree.leaves(payload)))


def rounded_norm(norm: float, step: float, size: int, rounding: str = "stochastic") -> float:
    """Returns the largest norm of a vector once its entries are rounded to multiples of a step.

    That of stochastic rounding holds always; that of "conditional" rounding because others are
    drawn again (arXiv:2102.06387, Proposition 22, beta = exp(-1/2)).

    Args:
      norm: Of the vector before, at most.
      step: Between two multiples.
      size: Entries of the vector.
      rounding: "stochastic" or "conditional".

    Example:
      >>> privacy.rounded_norm(1.0, 0.01, 10_000)
      2.0
      >>> round(privacy.rounded_norm(1.0, 0.01, 10_000, "conditional"), 3)
      1.125
    """
    length, root = norm / step, math.sqrt(size)
    always = length + root
    if rounding == "stochastic":
        return step * always
    likely = math.sqrt(length**2 + size / 4 + length + root / 2)
    return step * min(always, likely)


def _checked(bits, clip, by_norm, rounding, max_weight, ring_bits) -> FixedPoint:
    bound = Field(1.0, float, POSITIVE)
    if isinstance(clip, Mapping):
        clip = {name: checked(f"clip[{name!r}]", value, bound) for name, value in clip.items()}
    else:
        clip = checked("clip", clip, bound)
    code = FixedPoint(
        checked("bits", bits, Field(16, int, Interval(2, 31))),
        clip,
        checked("by_norm", by_norm, Field(False, bool)),
        checked("rounding", rounding, Field("stochastic", str, ROUNDINGS)),
        checked("max_weight", max_weight, bound),
        checked("ring_bits", ring_bits, Field(32, int, Interval(2, 32))),
    )
    if by_norm and isinstance(clip, Mapping):
        raise ValueError(
            f"by_norm=True bounds the norm of the whole message, but clip = {clip} has a bound for "
            "each name. Give one number, or leave by_norm out."
        )
    if rounding == "conditional" and not by_norm:
        raise ValueError(
            "rounding='conditional' keeps the norm of what is sent below a bound, which follows "
            "from the norm of the message. Set by_norm=True, or rounding='stochastic'."
        )
    return code


def _check_no_wrap(code: FixedPoint, clients: int) -> None:
    """Raises ValueError if the sum of so many clients could leave the ring."""
    if clients * code.largest >= 2 ** (code.ring_bits - 1):
        fitting = (2 ** (code.ring_bits - 1) - 1) // clients + 1
        raise ValueError(
            f"The sum of {clients} integers of {code.bits} bits can reach "
            f"{clients * code.largest:,}, beyond what a ring of {code.ring_bits} bits holds. Use "
            f"bits = {max(fitting, 1).bit_length()} at most"
            + (", or more ring_bits." if code.ring_bits < 32 else ", or smaller cohorts.")
        )


def _encoded(code: FixedPoint, message: dict[str, PyTree], weights: dict[str, PyTree], key):
    """Returns (the message in words of the ring, what is reported of it)."""
    values = jax.tree.map(_as_float, message)
    scale, clipped = _clipped(code, values)
    most, steps = code.largest, {name: code.step(name) for name in values}
    shares = jax.tree.map(lambda w: jnp.minimum(_as_float(w) / code.max_weight, 1), weights)
    scaled = {
        name: _times(
            shares[name],
            jax.tree.map(lambda x, s=steps[name]: jnp.clip(x * scale / s, -most, most), value),
        )
        for name, value in values.items()
    }
    codes = _rounded(code, scaled, key)
    exact = {name: _times(shares[name], value) for name, value in values.items()}
    gaps = {
        name: jax.tree.map(lambda q, x, s=steps[name]: q * s - x, codes[name], exact[name])
        for name in exact
    }
    capped = jnp.stack([jnp.max(w) > code.max_weight for w in jax.tree.leaves(weights)]).any()
    report = {
        "clipped_share": clipped,
        "capped_share": (capped.astype(jnp.float32), jnp.float32(1)),
        "quantization_error": (_squares(gaps), _squares(exact)),
    }
    own = _weight_codes(code, weights, jax.random.fold_in(key, 0))
    payload = {name: {"value": codes[name], "weight": own[name]} for name in message}
    return jax.tree.map(lambda leaf: leaf.astype(jnp.int32).astype(jnp.uint32), payload), report


def _clipped(code: FixedPoint, values: dict[str, PyTree]) -> tuple[jax.Array | int, tuple]:
    """Returns (factor of the message, (how many numbers or norms were too large, of how many))."""
    if code.by_norm:
        norm = jnp.sqrt(_squares(values))
        clip = code.bound(next(iter(values)))
        bound = _norm_before(code, clip, sum(leaf.size for leaf in jax.tree.leaves(values)))
        over = norm > bound
        # a sum of squares in float32 is exact to some 1e-6
        least = bound / norm * (1 - 1e-5)
        return jnp.where(over, least, 1), (over.astype(jnp.float32), jnp.float32(1))
    over, size = jnp.float32(0), 0
    for name, value in values.items():
        for leaf in jax.tree.leaves(value):
            over += (jnp.abs(leaf) > code.bound(name)).sum(dtype=jnp.float32)
            size += leaf.size
    return 1, (over, jnp.float32(size))


def _norm_before(code: FixedPoint, clip: float, size: int) -> float:
    """Returns the norm below which rounding keeps messages of so many numbers within the bound."""
    largest, root = code.largest, math.sqrt(size)
    norm = largest - root
    if code.rounding == "conditional":
        # norm^2 + norm + size / 4 + root / 2 = largest^2
        square = 1 + 4 * largest**2 - size - 2 * root
        norm = max(norm, (math.sqrt(max(square, 0)) - 1) / 2)
    if norm <= largest / 2:
        raise ValueError(
            f"Rounding {size:,} numbers to {code.bits} bits can double the norm of a message, so "
            f"that too little of clip = {clip:g} is left for it. Use more bits"
            + (", or rounding='conditional'." if code.rounding == "stochastic" else ".")
        )
    return norm / largest * clip


def _rounded(code: FixedPoint, scaled: PyTree, key: jax.Array) -> PyTree:
    """Returns whole numbers, still floating-point."""
    if code.rounding == "conditional":
        return rounded_within(scaled, code.largest, key)
    floors = jax.tree.map(jnp.floor, scaled)
    shares = jax.tree.map(jnp.subtract, scaled, floors)
    return _stochastic(floors, shares, jax.random.fold_in(key, 1))


def rounded_within(scaled: PyTree, norm: jax.Array | float, key: jax.Array) -> PyTree:
    """Returns whole numbers, still floating-point, of a norm: others are drawn again.

    Args:
      scaled: Numbers whose norm all together is below `norm`.
      norm: Of the whole numbers.
      key: Of this tree.
    """
    floors = jax.tree.map(jnp.floor, scaled)
    shares = jax.tree.map(jnp.subtract, scaled, floors)

    def draw(number):
        return _stochastic(floors, shares, jax.random.fold_in(key, number))

    most = norm**2 * (1 - 1e-5)

    def refused(number):
        return (number <= _TRIES) & (_squares(draw(number)) > most)

    number = jax.lax.while_loop(refused, lambda number: number + 1, jnp.int32(1))
    # rounded towards zero, no vector gets longer
    return jax.tree.map(
        lambda q, x: jnp.where(number <= _TRIES, q, jnp.trunc(x)), draw(number), scaled
    )


def _stochastic(floors: PyTree, shares: PyTree, key: jax.Array) -> PyTree:
    """Returns the next whole number with the probability that a share says, else the floor."""
    leaves, tree = jax.tree.flatten(floors)
    rounded = []
    for number, (floor, share) in enumerate(zip(leaves, jax.tree.leaves(shares), strict=True)):
        words = random_words(jax.random.fold_in(key, number), floor.size).reshape(floor.shape)
        uniform = words.astype(floor.dtype) * floor.dtype.type(2.0**-32)
        rounded.append(floor + (uniform < share))
    return jax.tree.unflatten(tree, rounded)


def _weight_codes(code: FixedPoint, weights: PyTree, key: jax.Array) -> PyTree:
    """Returns weights as whole numbers."""
    scaled = jax.tree.map(
        lambda w: jnp.minimum(_as_float(w), code.max_weight) * _unit(code), weights
    )
    floors = jax.tree.map(jnp.floor, scaled)
    return _stochastic(floors, jax.tree.map(jnp.subtract, scaled, floors), key)


def _unit(code: FixedPoint) -> float:
    """Returns the integer of a weight of 1, a whole number so that whole weights are exact."""
    unit = code.largest / code.max_weight
    return float(math.floor(unit)) if unit >= 1 else unit


def _decoded(code: FixedPoint, name: str, total: Aggregate) -> Aggregate:
    """Returns the weighted sums that integers of a name stand for."""
    wide, shift = jax.dtypes.canonicalize_dtype(float), 32 - code.ring_bits

    def number(word):
        return ((word << shift).astype(jnp.int32) >> shift).astype(wide)

    step = code.step(name) * code.max_weight
    value = jax.tree.map(lambda word: number(word) * step, total.sum["value"])
    weight = jax.tree.map(lambda word: number(word) / _unit(code), total.sum["weight"])
    arrived = jnp.stack([(leaf != 0).any() for leaf in jax.tree.leaves(weight)]).any()
    return Aggregate(value, weight, jnp.where(arrived, total.count, 0))


def _as_float(leaf: jax.Array) -> jax.Array:
    leaf = jnp.asarray(leaf)
    wide = jax.dtypes.canonicalize_dtype(float)
    return leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(wide)


def _times(weight: PyTree, value: PyTree) -> PyTree:
    """Returns a value times its weight, a prefix of it."""
    return jax.tree.map(
        lambda w, v: jax.tree.map(lambda x: x * beside(w, x).astype(x.dtype), v), weight, value
    )


def _squares(tree: PyTree) -> jax.Array:
    return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree))

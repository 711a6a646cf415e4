"""Compression by name: from the texts of a configuration to a pipeline."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.compression import (
    casts,
    lowrank,
    quantized,
    rotated,
    signs,
    sketched,
    sparse,
    wire,
)
from fljax.compression.calls import Call, read
from fljax.compression.checks import is_traced
from fljax.compression.compressor import Compressor, chain
from fljax.compression.feedback import downlink_difference, downlink_error_feedback
from fljax.compression.links import Choice, Form, compressors_of, downlink, uplink
from fljax.compression.memories import MEMORIES, Facts, Memory
from fljax.compression.sizes import Size, uplink_size
from fljax.core.settings import COMPRESSION, checked_all
from fljax.core.transforms import DownlinkLink, Pipeline, PipelineSpec, UplinkLink
from fljax.core.values import shown

PyTree = Any


def _int8(*, stochastic: bool = False, bits: int = 8) -> Compressor:
    """One scale for a vector; `int8_channels` knows how many channels a tensor has."""
    return quantized.int8(stochastic=stochastic, bits=bits)


# What `uplink` and `downlink` may name. A function of a leaf's shape and a link stand alone.
CODES: dict[str, Callable] = {
    "identity": casts.identity,
    "bf16": casts.bf16,
    "fp16": casts.fp16,
    "top_k": sparse.top_k,
    "rand_k": sparse.rand_k,
    "prune": sparse.prune,
    "qsgd": quantized.qsgd,
    "int8": _int8,
    "int8_channels": lambda: quantized.int8_channels,
    "uniform": quantized.uniform,
    "rotation": rotated.rotation,
    "rotated_uniform": rotated.rotated_uniform,
    "drive": rotated.drive,
    "eden": rotated.eden,
    "sign": signs.sign,
    "terngrad": signs.terngrad,
    "natural": signs.natural,
    "powersgd": lowrank.powersgd,
    "fetch_sgd": sketched.fetch_sgd,
}
_SPARSE = ("top_k", "rand_k", "prune")
# Parameters that `level` may stand for: those that no shape depends on.
LEVELS = {
    "top_k": "fraction",
    "prune": "fraction",
    "qsgd": "bits",
    "int8": "bits",
    "uniform": "bits",
}


class Names(NamedTuple):
    """The keys of a configuration that say what is compressed, and how.

    Attributes:
      uplink: "none", or calls of `CODES`; several are a `chain`. An argument `level` stands for
        `uplink_level`.
      uplink_level: A number that the round program takes as a hyperparameter, for one of `LEVELS`;
        a traced scalar inside it.
      uplink_memory: "none", or a call of `MEMORIES`.
      uplink_per_leaf: Whether each tensor is a vector of its own.
      downlink, downlink_level, downlink_per_leaf: As for the uplink.
      downlink_memory: "none", or a name in `DOWNLINK_MEMORIES`.
    """

    uplink: str = "none"
    uplink_level: float | jax.Array | None = None
    uplink_memory: str = "none"
    uplink_per_leaf: bool = False
    downlink: str = "none"
    downlink_level: float | jax.Array | None = None
    downlink_memory: str = "none"
    downlink_per_leaf: bool = False


class Code(NamedTuple):
    """What a text names.

    Attributes:
      calls: The calls in it.
      choice: The compressor of a vector, or the function of a leaf's shape that returns its own;
        None for a link.
      link: The link that the text names or that is made of the compressor.
      per_leaf: Whether each tensor is a vector of its own.
    """

    calls: list[Call]
    choice: Choice | None
    link: UplinkLink
    per_leaf: bool

    def parts(self, params: PyTree) -> list[tuple[Compressor, int]]:
        """Returns (compressor, length of its vector) for each message; none of a link."""
        if self.choice is None:
            return []
        return compressors_of(self.choice, self.per_leaf, Form.of(params))

    def steps(self, params: PyTree) -> list[tuple[Call, int]]:
        """Returns (call, length of what it compresses) for each message and each of a chain."""
        if not isinstance(self.choice, Compressor):
            return []
        found = []
        for _, d in self.parts(params):
            for call in self.calls:
                found.append((call, d))
                values = call.value.layout and call.value.layout(d).get("values")
                if isinstance(values, wire.Field):
                    d = values.count
        return found


DOWNLINK_MEMORIES = {"error_feedback": downlink_error_feedback, "difference": downlink_difference}


def check(names: Names) -> None:
    """Raises ValueError for names, arguments and combinations that no model could be run with."""
    pipeline(names, {"any": jax.ShapeDtypeStruct((8, 8), jnp.float32)}, 1, 0)


def pipeline(names: Names, params: PyTree, num_clients: int, seed: int) -> Pipeline | PipelineSpec:
    """Returns what the names stand for; a `PipelineSpec` where they have levels.

    Args:
      names: As they were written.
      params: Of the model; shapes will do.
      num_clients: Clients that ever take part.
      seed: Of the run.

    Raises:
      ValueError: For unknown names, arguments that are refused, or what does not go together; the
        message begins with the key.
    """
    names = Names(**checked_all(names._asdict(), COMPRESSION))
    levels = {
        key: value
        for key, value in names._asdict().items()
        if key.endswith("_level") and value is not None
    }

    facts = _facts(names, params, num_clients, seed)

    def build(hparams):
        at = names._replace(**{key: hparams[key] for key in levels})
        return Pipeline(uplink=_uplink(at, facts), downlink=_downlink(at))

    configured = build(levels)
    if not levels:
        return configured
    # what shapes depend on cannot be traced
    jax.eval_shape(lambda traced: build(traced) and (), levels)
    return PipelineSpec(build, levels)


def uplink_code(names: Names) -> Code | None:
    """Returns what `uplink` names, or None."""
    return _code("uplink", names.uplink, names.uplink_level, names.uplink_per_leaf)


def downlink_code(names: Names) -> Code | None:
    """Returns what `downlink` names, or None."""
    return _code("downlink", names.downlink, names.downlink_level, names.downlink_per_leaf)


def uplink_memory(names: Names) -> tuple[str, Memory] | None:
    """Returns (name, memory) of `uplink_memory`, or None."""
    if names.uplink_memory == "none":
        return None
    calls = _read("uplink_memory", names.uplink_memory, MEMORIES)
    if len(calls) > 1:
        raise ValueError(
            f"uplink_memory = {names.uplink_memory!r}: an update has one memory. Choose one of "
            f"{', '.join(MEMORIES)}."
        )
    return calls[0].name, calls[0].value


def update_size(names: Names, params: PyTree, num_clients: int) -> Size | None:
    """Returns what a client's update takes, in the mean over rounds; None without compression."""
    code, found = uplink_code(names), uplink_memory(names)
    if code is None:
        return None
    size = uplink_size(code, params)
    whole = found[1].whole(facts_of(code, params, num_clients, 0)) if found else 0
    return size._replace(bits=whole * size.dense_bits + (1 - whole) * size.bits)


def facts_of(code: Code, params: PyTree, num_clients: int, seed: int) -> Facts:
    """Returns what memories take their settings from."""
    vectors = code.parts(params)
    unbiased = bool(vectors) and all(one.omega is not None for one, _ in vectors)
    omega = max(one.omega(d) for one, d in vectors) if unbiased else None
    size = uplink_size(code, params)
    return Facts(num_clients, seed, omega, min(1.0, size.bits / size.dense_bits))


def _facts(names: Names, params: PyTree, num_clients: int, seed: int) -> Facts | None:
    """Returns what the memory of the uplink takes its settings from; None without one."""
    code, found = uplink_code(names), uplink_memory(names)
    if code is None or found is None:
        return None
    name, memory = found
    facts = facts_of(code, params, num_clients, seed)
    if memory.unbiased and facts.omega is None:
        raise ValueError(
            f"uplink_memory = {name!r} needs an unbiased compressor with a known constant omega, "
            f"and uplink = {names.uplink!r} has none. Use rand_k, qsgd, uniform, rotated_uniform, "
            "terngrad or natural, or uplink_memory = 'error_feedback' or 'ef21'."
        )
    if memory.derived and names.uplink_level is not None:
        raise ValueError(
            f"uplink_memory = {names.uplink_memory!r} takes its {memory.derived} from the "
            f"compressor, whose level is traced. Give it one: '{name}(0.1)'."
        )
    return facts


def _uplink(names: Names, facts: Facts | None) -> tuple[UplinkLink, ...]:
    code, found = uplink_code(names), uplink_memory(names)
    if code is None:
        _check_unused(names, "uplink")
        return ()
    if found is None:
        return (code.link,)
    try:
        return (found[1].wrap(code.link, facts),)
    except ValueError as error:
        raise ValueError(
            f"uplink_memory = {names.uplink_memory!r} with uplink = {names.uplink!r}: {error}"
        ) from None


def _downlink(names: Names) -> tuple[DownlinkLink, ...]:
    code, memory = downlink_code(names), names.downlink_memory
    if code is None:
        _check_unused(names, "downlink")
        return ()
    first = code.calls[0].name
    if code.choice is None:
        raise ValueError(
            f"downlink = {names.downlink!r}: {first} is for updates; use it as uplink."
        )
    sparse_calls = [one for one in code.calls if one.name in _SPARSE]
    if memory != "difference" and sparse_calls:
        unscaled = any(one.arguments.get("unbiased") for one in sparse_calls)
        raise ValueError(
            f"downlink = {names.downlink!r} sends a few coordinates of the model and zeros for the "
            "others. Set downlink_memory = 'difference', which sends a few of its changes"
            f"{', and use rand_k(..., unbiased=False)' * unscaled}."
        )
    make = downlink if memory == "none" else DOWNLINK_MEMORIES[memory]
    try:
        return (make(code.choice, per_leaf=code.per_leaf),)
    except ValueError as error:
        raise ValueError(f"downlink = {names.downlink!r}: {error}") from None


def _check_unused(names: Names, side: str) -> None:
    """Raises ValueError for settings of a side that is not compressed."""
    for setting, nothing in (("level", None), ("memory", "none"), ("per_leaf", False)):
        value = getattr(names, f"{side}_{setting}")
        if value != nothing:
            raise ValueError(
                f"{side}_{setting} = {value!r} has no effect with {side} = 'none'. Name a "
                f"compressor, or leave it at {nothing!r}."
            )


def _read(key: str, text: str, table, values: Mapping[str, Any] | None = None) -> list[Call]:
    try:
        return read(text, table, values)
    except ValueError as error:
        raise ValueError(f"{key} = {shown(text)}: {error}") from None


def _code(key: str, text: str, level: float | jax.Array | None, per_leaf: bool) -> Code | None:
    if text == "none":
        return None
    calls = _leveled(key, text, level)
    alone = [one.name for one in calls if not isinstance(one.value, Compressor)]
    if alone and len(calls) > 1:
        raise ValueError(
            f"{key} = {text!r}: {alone[0]} is no code of a single vector, so that nothing can be "
            "chained with it. Use it alone."
        )
    if alone and per_leaf:
        raise ValueError(
            f"{key}_per_leaf = True has no effect with {key} = {text!r}, which sees tensor by "
            "tensor what it needs. Leave it at False."
        )
    if isinstance(calls[0].value, UplinkLink):
        return Code(calls, None, calls[0].value, per_leaf)
    try:
        choice = calls[0].value if alone else chain(*(one.value for one in calls))
    except ValueError as error:
        raise ValueError(f"{key} = {text!r}: {error}") from None
    return Code(calls, choice, uplink(choice, per_leaf=per_leaf), per_leaf)


def _leveled(key: str, text: str, level: float | jax.Array | None) -> list[Call]:
    """Returns the calls in a text; refuses a level without a place, and places without a level."""
    if level is None:
        if re.search(r"\blevel\b", text):
            raise ValueError(f"{key} = {shown(text)} needs a number as {key}_level, which is None.")
        return _read(key, text, CODES)
    # of 4.0 bits, 4; a traced one was such a number
    number = level if is_traced(level) or level % 1 else int(level)
    try:
        calls = read(text, CODES, {"level": number})
    except ValueError as error:
        raise ValueError(f"{key} = {shown(text)} with {key}_level = {level}: {error}") from None
    places = [(call.name, parameter) for call in calls for parameter in call.named]
    allowed = ", ".join(f"{name}({parameter})" for name, parameter in LEVELS.items())
    for name, parameter in places:
        if LEVELS.get(name) != parameter:
            raise ValueError(
                f"{key} = {text!r}: {parameter} of {name} shapes the program, so that it cannot be "
                f"a level. Those that can are {allowed}."
            )
    if len(places) != 1:
        raise ValueError(
            f"{key}_level = {level} needs one place in {key} = {text!r}, which has {len(places)}: "
            f"write 'level' for the argument, as in 'qsgd(level)'. It can be one of {allowed}."
        )
    return calls

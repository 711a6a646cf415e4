"""Makes a pipeline of the texts in a configuration that name compressors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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
from fljax.compression.compressor import Compressor, chain
from fljax.compression.feedback import downlink_difference, downlink_error_feedback
from fljax.compression.links import Choice, Form, compressors_of, downlink, uplink
from fljax.compression.memories import MEMORIES, Facts, Memory
from fljax.compression.sizes import Size, uplink_size
from fljax.core import call_numbers, parts
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
# Numbers that no shape depends on, which a program can take as arguments.
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
      uplink: "none", or calls of `CODES` or of functions of the user's; several are a `chain`.
      uplink_memory: "none", or a call of `MEMORIES`.
      uplink_per_leaf: Whether each tensor is a vector of its own.
      downlink, downlink_per_leaf: As for the uplink.
      downlink_memory: "none", or a call of `DOWNLINK_MEMORIES`.
    """

    uplink: str = "none"
    uplink_memory: str = "none"
    uplink_per_leaf: bool = False
    downlink: str = "none"
    downlink_memory: str = "none"
    downlink_per_leaf: bool = False


class Step(NamedTuple):
    """One call of a text, and what it made.

    Attributes:
      name: Of the function.
      arguments: {parameter: value}, defaults included.
      value: What the function returned.
    """

    name: str
    arguments: Mapping[str, Any]
    value: Any


class Code(NamedTuple):
    """The compressor that a text names.

    Attributes:
      calls: The calls in it.
      choice: The compressor of a vector, or the function of a leaf's shape that returns its own;
        None for a link.
      link: The link that the text names or that is made of the compressor.
      per_leaf: Whether each tensor is a vector of its own.
    """

    calls: list[Step]
    choice: Choice | None
    link: UplinkLink
    per_leaf: bool

    def parts(self, params: PyTree) -> list[tuple[Compressor, int]]:
        """Returns (compressor, length of its vector) for each message; none of a link."""
        if self.choice is None:
            return []
        return compressors_of(self.choice, self.per_leaf, Form.of(params))

    def steps(self, params: PyTree) -> list[tuple[Step, int]]:
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


def pipeline(
    names: Names, params: PyTree, num_clients: int, seed: int, traced: Collection[str] = ()
) -> Pipeline | PipelineSpec:
    """Returns what the names stand for.

    Args:
      names: As they were written.
      params: Of the model; shapes will do.
      num_clients: Clients that ever take part.
      seed: Of the run.
      traced: Those of "uplink" and "downlink" whose numbers the program takes as arguments, as far
        as no shape depends on them. With such numbers the result is a `PipelineSpec`.

    Raises:
      ValueError: For unknown names, arguments that are refused, or what does not go together; the
        message begins with the key.
    """
    names = Names(**checked_all(names._asdict(), COMPRESSION))
    facts = _facts(names, params, num_clients, seed)

    def build(numbers):
        return Pipeline(uplink=_uplink(names, facts, numbers), downlink=_downlink(names, numbers))

    configured = build({})
    levels = {name: level for key in traced for name, level in _numbers(names, key).items()}
    levels = {name: level for name, level in levels.items() if _traceable(build, name, level)}
    return PipelineSpec(build, levels) if levels else configured


def without_numbers(names: Names, traced: Collection[str]) -> dict[str, str]:
    """Returns {key: text} of both sides as calls in which traced numbers are left out.

    Args:
      names: As they were written.
      traced: Names of the numbers, as in the `PipelineSpec`.
    """
    table = {"none": lambda: None} | CODES
    return {
        key: call_numbers.without_numbers(key, parts.read(key, getattr(names, key), table), traced)
        for key in ("uplink", "downlink")
    }


def _numbers(names: Names, key: str) -> dict[str, float]:
    """Returns {name: number} of a text's numbers that a program may take as arguments."""
    text = getattr(names, key)
    if text == "none" or (key == "uplink" and _is_derived(names)):
        return {}
    traceable = {name: (level,) for name, level in LEVELS.items()}
    return call_numbers.numbers_in(key, parts.read(key, text, CODES), traceable)


def _is_derived(names: Names) -> bool:
    """Returns whether the uplink's memory takes a setting from the compressor's numbers."""
    found = uplink_memory(names)
    return found is not None and found[1].derived is not None


def _traceable(build: Callable, name: str, number: float) -> bool:
    """Returns whether a program can take a number as an argument: no shape follows from it."""
    try:
        jax.eval_shape(lambda traced: build({name: traced}) and (), jnp.float32(number))
    except (TypeError, ValueError):
        return False
    return True


def uplink_code(names: Names, numbers: Mapping[str, jax.Array] | None = None) -> Code | None:
    """Returns what `uplink` names, or None; `numbers` stand in place of those in the text."""
    return _code("uplink", names.uplink, names.uplink_per_leaf, numbers or {})


def downlink_code(names: Names, numbers: Mapping[str, jax.Array] | None = None) -> Code | None:
    """Returns what `downlink` names, or None; `numbers` as for `uplink_code`."""
    return _code("downlink", names.downlink, names.downlink_per_leaf, numbers or {})


def uplink_memory(names: Names) -> tuple[str, Memory] | None:
    """Returns (name, memory) of `uplink_memory`, or None."""
    if names.uplink_memory == "none":
        return None
    call = parts.read_one("uplink_memory", names.uplink_memory, MEMORIES)
    memory = parts.make(call)
    if not isinstance(memory, Memory):
        raise _no_part(call, memory, "a memory is a fljax.compression.memories.Memory")
    return call.name, memory


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
    unbiased = bool(vectors) and all(vector.omega is not None for vector, _ in vectors)
    omega = max(vector.omega(d) for vector, d in vectors) if unbiased else None
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
    return facts


def _uplink(names: Names, facts: Facts | None, numbers: Mapping) -> tuple[UplinkLink, ...]:
    code, found = uplink_code(names, numbers), uplink_memory(names)
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


def _downlink(names: Names, numbers: Mapping) -> tuple[DownlinkLink, ...]:
    code, memory = downlink_code(names, numbers), names.downlink_memory
    if code is None:
        _check_unused(names, "downlink")
        return ()
    first = code.calls[0].name
    if code.choice is None:
        raise ValueError(
            f"downlink = {names.downlink!r}: {first} is for updates; use it as uplink."
        )
    sparse_calls = [step for step in code.calls if step.name in sparse.SPARSE]
    if memory != "difference" and sparse_calls:
        unscaled = any(sparse_call.arguments.get("unbiased") for sparse_call in sparse_calls)
        raise ValueError(
            f"downlink = {names.downlink!r} sends a few coordinates of the model and zeros for the "
            "others. Set downlink_memory = 'difference', which sends a few of its changes"
            f"{', and use rand_k(..., unbiased=False)' * unscaled}."
        )
    call = parts.read_one("downlink_memory", memory, {"none": downlink} | DOWNLINK_MEMORIES)
    try:
        link = parts.make(call, offered={"compressor": code.choice, "per_leaf": code.per_leaf})
    except ValueError as error:
        raise ValueError(f"downlink = {names.downlink!r}, {error}") from None
    if not isinstance(link, DownlinkLink):
        raise _no_part(call, link, "a memory of the downlink is a DownlinkLink")
    return (link,)


def _check_unused(names: Names, side: str) -> None:
    """Raises ValueError for settings of a side that is not compressed."""
    for setting, nothing in (("memory", "none"), ("per_leaf", False)):
        value = getattr(names, f"{side}_{setting}")
        if value != nothing:
            raise ValueError(
                f"{side}_{setting} = {value!r} has no effect with {side} = 'none'. Name a "
                f"compressor, or leave it at {nothing!r}."
            )


def _no_part(call: parts.Call, value: Any, must: str) -> ValueError:
    return ValueError(
        f"{call.where}: {call.name} returned {shown(value)} ({type(value).__name__}), and {must}."
    )


def _code(key: str, text: str, per_leaf: bool, numbers: Mapping[str, Any]) -> Code | None:
    if text == "none":
        return None
    calls = _steps(key, text, numbers)
    alone = [step.name for step in calls if not isinstance(step.value, Compressor)]
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
        choice = calls[0].value if alone else chain(*(step.value for step in calls))
    except ValueError as error:
        raise ValueError(f"{key} = {text!r}: {error}") from None
    return Code(calls, choice, uplink(choice, per_leaf=per_leaf), per_leaf)


def _steps(key: str, text: str, numbers: Mapping[str, Any]) -> list[Step]:
    """Returns the calls in a text, with `numbers` in place of those of the same name."""
    steps = []
    for place, call in enumerate(parts.read(key, text, CODES)):
        call = call_numbers.with_numbers(key, place, call, numbers)
        value = parts.make(call)
        if not (isinstance(value, Compressor | UplinkLink) or callable(value)):
            raise _no_part(call, value, "a compressor is a fljax.compression.Compressor")
        steps.append(Step(call.name, call.named, value))
    return steps

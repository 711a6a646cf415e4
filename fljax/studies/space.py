"""Search spaces: which configurations a sweep tries.

An axis has the name of a hyperparameter. For a grid it is the sequence of its values; for random
search it is what a value is drawn from: `choice`, `uniform`, `log_uniform`.

    grid({"client_lr": (0.01, 0.1), "batch_size": (10, 20)})
    sample({"client_lr": log_uniform(1e-3, 1.0), "batch_size": choice(10, 20)}, num=32, seed=0)

Random search covers the axes that matter better than a grid of the same size does (Bergstra and
Bengio, 2012, https://jmlr.org/papers/v13/bergstra12a.html).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core import random
from fljax.core.values import COUNT, Field, Interval, checked, shown, wrong

# Seeds of draws on the host are hashed, so that any whole number will do.
ANY_SEED = Field(0, int, Interval(-(2.0**256), 2.0**256))
# The other columns of a sweep's table.
RESERVED = ("trial", "seed", "round")


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values, all equally likely."""

    values: tuple[Any, ...]

    def at(self, position: float) -> Any:
        """Returns the value at a position in (0, 1)."""
        return self.values[int(position * len(self.values))]


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A real number, equally likely anywhere between two bounds."""

    low: float
    high: float

    def at(self, position: float) -> float:
        """Returns the value at a position in (0, 1)."""
        return self.low + position * (self.high - self.low)


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """A positive number whose logarithm is equally likely anywhere between those of two bounds."""

    low: float
    high: float

    def at(self, position: float) -> float:
        """Returns the value at a position in (0, 1)."""
        low, high = math.log(self.low), math.log(self.high)
        # the exponential of a logarithm may round to beyond a bound
        return min(max(math.exp(low + position * (high - low)), self.low), self.high)


Distribution = Choice | Uniform | LogUniform
_DISTRIBUTIONS = (Choice, Uniform, LogUniform)


def choice(*values: Any) -> Choice:
    """Returns the axis that draws one of several values; whole numbers are `choice(*range(...))`.

    Raises:
      ValueError: If there are no values, or one of them twice.
    """
    return Choice(_checked_values("choice", values))


def uniform(low: float, high: float) -> Uniform:
    """Returns the axis that draws real numbers between two bounds, all equally likely.

    Raises:
      ValueError: If a bound is no finite number, or low is not below high.
    """
    return Uniform(*_checked_bounds("uniform", low, high))


def log_uniform(low: float, high: float) -> LogUniform:
    """Returns the axis that draws numbers between two bounds, all magnitudes equally likely.

    Raises:
      ValueError: If a bound is no finite number, low is not positive, or not below high.
    """
    low, high = _checked_bounds("log_uniform", low, high)
    if low <= 0:
        raise ValueError(
            f"log_uniform({low:g}, {high:g}): a number has a logarithm only if it is positive. "
            "Raise low, such as to 1e-4, or use uniform."
        )
    return LogUniform(low, high)


def grid(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns every combination of the axes' values; the last axis varies fastest.

    Args:
      axes: {hyperparameter: its values}, each a sequence or a one-dimensional array.

    Raises:
      ValueError: If there is no axis, or one is empty, has a value twice, or is not a sequence.
    """
    _check_names(axes)
    for name, axis in axes.items():
        if isinstance(axis, _DISTRIBUTIONS):
            raise ValueError(
                f"{name} = {axis} is drawn from, so it cannot be an axis of a grid. List values, "
                f"such as {name}=(0.01, 0.1), or draw all axes with sample."
            )
    columns = [_checked_values(name, axis) for name, axis in axes.items()]
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*columns)]


def sample(axes: Mapping[str, Distribution], num: int, seed: int) -> list[dict[str, Any]]:
    """Returns configurations at random.

    A value depends on (seed, place in the list, name) alone: drawing more configurations leaves
    the first ones as they are, and so does another axis.

    Args:
      axes: {hyperparameter: `choice`, `uniform` or `log_uniform`}.
      num: How many.
      seed: Any integer.

    Raises:
      ValueError: If there is no axis, one is not drawn from, or `num` is below 1.
    """
    _check_names(axes)
    for name, axis in axes.items():
        if not isinstance(axis, _DISTRIBUTIONS):
            raise ValueError(
                f"{name} = {axis!r} is no axis to draw from. Use choice(...), uniform(low, high) "
                "or log_uniform(low, high); or try all combinations of listed values with grid."
            )
    num = checked("num", num, Field(None, int, COUNT))
    seed = checked("seed", seed, ANY_SEED)
    index = np.arange(num)
    positions = {name: random.uniform(seed, f"sweep/{name}", index) for name in axes}
    return [
        {name: axis.at(float(positions[name][i])) for name, axis in axes.items()}
        for i in range(num)
    ]


def _check_names(axes: Mapping[str, Any]) -> None:
    if not isinstance(axes, Mapping):
        raise wrong("axes", axes, "{name of a hyperparameter: its values}")
    if not axes:
        raise ValueError("axes is empty: a search needs an axis, such as client_lr=(0.01, 0.1).")
    for name in axes:
        if not isinstance(name, str):
            raise wrong("the name of an axis", name, "a text")
        if name == "seed":
            raise ValueError("seed is no axis: give the seeds to repeat(configurations, seeds).")
        if name in RESERVED:
            raise ValueError(f"{name!r} names a column of the results and cannot be an axis.")


def _checked_values(name: str, values: Any) -> tuple[Any, ...]:
    """Returns the values of an axis as plain Python values."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(
            f"{name} = {values!r} is no list of values. A single one is written ({values!r},)."
        )
    values = tuple(value.item() if isinstance(value, np.generic) else value for value in values)
    if not values:
        raise ValueError(f"{name} has no values. Give at least one, or leave the axis out.")
    for place, value in enumerate(values):
        if isinstance(value, _DISTRIBUTIONS):
            raise ValueError(
                f"{name} both lists values and draws from {value}. It can do one of the two."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} has the value {value}; a hyperparameter must be finite.")
        if value in values[:place]:
            raise ValueError(
                f"{name} has the value {value!r} twice. To repeat a configuration, give more seeds "
                "to repeat(configurations, seeds)."
            )
    return values


def _not_a_switch(value: Any) -> Any:
    if isinstance(value, bool | np.bool_ | str):
        raise TypeError(f"{value!r} is no number.")
    return value


def _checked_bounds(name: str, low: float, high: float) -> tuple[float, float]:
    try:
        low, high = (float(_not_a_switch(one)) for one in (low, high))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{name}(low={shown(low)}, high={shown(high)}) needs two numbers."
        ) from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}(low={low}, high={high}) needs two finite numbers.")
    if low >= high:
        raise ValueError(f"{name}({low:g}, {high:g}): low must be below high.")
    return low, high

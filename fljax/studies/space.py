"""Search spaces and the trials they list: which configurations a study tries, with which seeds.

An axis has the name of a hyperparameter. For a grid it is the sequence of its values; for random
search it is what a value is drawn from: `choice`, `uniform`, `log_uniform`.

    grid({"client_lr": (0.01, 0.1), "batch_size": (10, 20)})
    sample({"client_lr": log_uniform(1e-3, 1.0), "batch_size": choice(10, 20)}, num=32, seed=0)

`repeat` runs every configuration with every seed: each is a trial, and a `Trial` says which.

Random search covers the axes that matter better than a grid of the same size does (Bergstra and
Bengio, 2012, https://jmlr.org/papers/v13/bergstra12a.html).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.digits import apart
from fljax.core.settings import OPTIONS
from fljax.core.values import COUNT, Field, Interval, checked, sequence, shown, wrong

# Seeds of draws on the host are hashed, so that any whole number will do.
ANY_SEED = Field(0, int, Interval(-(2.0**256), 2.0**256))
# The other columns of a study's table.
RESERVED = ("trial", "variant", "seed", "round")
_LONGEST_NAME = 100


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

    Example:
      >>> studies.choice("mlp", "lenet").at(0.7)
      'lenet'

    Raises:
      ValueError: If there are no values, or one of them twice.
    """
    return Choice(_checked_values("choice", values))


def uniform(low: float, high: float) -> Uniform:
    """Returns the axis that draws real numbers between two bounds, all equally likely.

    Example:
      >>> studies.uniform(0.0, 2.0).at(0.25)
      0.5

    Raises:
      ValueError: If a bound is no finite number, or low is not below high.
    """
    return Uniform(*_checked_bounds("uniform", low, high))


def log_uniform(low: float, high: float) -> LogUniform:
    """Returns the axis that draws numbers between two bounds, all magnitudes equally likely.

    Example:
      >>> round(studies.log_uniform(0.01, 1.0).at(0.5), 6)
      0.1

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

    Example:
      >>> studies.grid({"client_lr": (0.1, 1.0), "batch_size": (10,)})
      [{'client_lr': 0.1, 'batch_size': 10}, {'client_lr': 1.0, 'batch_size': 10}]

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

    Example:
      >>> len(studies.sample({"mu": studies.log_uniform(1e-3, 1.0)}, num=4, seed=0))
      4

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
        low, high = (float(_not_a_switch(bound)) for bound in (low, high))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{name}(low={shown(low)}, high={shown(high)}) needs two numbers."
        ) from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}(low={low}, high={high}) needs two finite numbers.")
    if low >= high:
        raise ValueError(f"{name}({low:g}, {high:g}): low must be below high.")
    return low, high


class Trial(NamedTuple):
    """Says what one trial of a study is.

    Attributes:
      number: Its place in the study, from 0.
      values: {hyperparameter: value} of the axes.
      seed: The run's seed.
      variant: Name of the variant whose overrides it has; "" without variants.

    Example:
      >>> studies.Trial(3, {"client_lr": 0.1}, seed=1).name
      '0003-client_lr=0.1-seed=1'
    """

    number: int
    values: Mapping[str, Any]
    seed: int = 0
    variant: str = ""

    @property
    def name(self) -> str:
        """A name for files and legends, such as "0007-client_lr=0.1-seed=1".

        The number alone makes it unique. Values are rounded to four digits, characters that are
        not safe in file names are replaced, and what is too long is cut.
        """
        number, seed = f"{self.number:04d}", f"seed={self.seed}"
        text = re.sub(r"[^\w.=+-]+", "_", self.label("-"), flags=re.ASCII)
        text = text[: _LONGEST_NAME - len(number) - len(seed) - 2].rstrip("-_.")
        return "-".join(part for part in (number, text, seed) if part)

    @property
    def point(self) -> dict[str, Any]:
        """The place among the axes, of which the variants are one."""
        return {**({"variant": self.variant} if self.variant else {}), **self.values}

    def label(self, separator: str = ", ", digits: int = 4) -> str:
        """Returns variant and values in words: "int8, client_lr=0.1"."""
        words = describe(self.values, separator, digits)
        return separator.join(filter(None, (self.variant, words)))

    def overrides(self, variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Returns {key: value} of all that the trial changes in the base configuration."""
        return {**variants.get(self.variant, {}), **self.values}


def repeat(
    configurations: Sequence[Mapping[str, Any]],
    seeds: Sequence[int] = (0,),
    variants: Sequence[str] = ("",),
) -> list[Trial]:
    """Returns the trials that run every configuration of every variant with every seed.

    Trials of one configuration follow one another. A configuration that was drawn twice would give
    the same runs again, and is taken once.

    Args:
      configurations: From `grid` or `sample`, or a list of one's own.
      seeds: Seeds of the runs.
      variants: Names of the variants.

    Example:
      >>> [trial.seed for trial in studies.repeat([{"client_lr": 0.1}], seeds=(0, 1))]
      [0, 1]

    Raises:
      ValueError: If there is no configuration or no seed, or a seed is there twice.
    """
    configurations = sequence("configurations", configurations, "a list of dicts")
    if not len(configurations):
        raise ValueError("configurations is empty: there is no configuration to run.")
    for place, values in enumerate(configurations):
        if not isinstance(values, Mapping):
            raise wrong(f"configurations[{place}]", values, "a dict")
    seeds = checked_seeds(seeds)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds = {tuple(seeds)} lists a seed twice, which gives the same run.")
    different = {identity(values): dict(values) for values in configurations}
    listed = itertools.product(variants, different.values(), seeds)
    return [
        Trial(number, values, seed, variant)
        for number, (variant, values, seed) in enumerate(listed)
    ]


def checked_seeds(seeds: Sequence[int]) -> list[int]:
    """Returns the seeds of runs as integers; raises ValueError for what is no list of seeds."""
    seeds = sequence("seeds", seeds, "a list of whole numbers, such as (0, 1, 2)")
    if not len(seeds):
        raise wrong("seeds", seeds, "a list of whole numbers, such as (0, 1, 2)")
    return [checked(f"seeds[{place}]", seed, OPTIONS["seed"]) for place, seed in enumerate(seeds)]


def identity(values: Mapping[str, Any]) -> str:
    """Returns a text that is the same for equal configurations, in whatever order of keys."""
    return json.dumps(values, sort_keys=True, default=str)


def with_tuples(value: Any) -> Any:
    """Returns what JSON holds of a trial's values as they were: lists are tuples again."""
    if isinstance(value, Mapping):
        return {name: with_tuples(entry) for name, entry in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value


def describe(values: Mapping[str, Any], separator: str = ", ", digits: int = 4) -> str:
    """Returns a configuration in words: "client_lr=0.1, batch_size=20"."""
    return separator.join(f"{name}={short(value, digits)}" for name, value in values.items())


def described_apart(configurations: Iterable[Mapping[str, Any]]) -> Callable[..., str]:
    """Returns what describes configurations in as many digits as tell them apart."""
    return apart(configurations, 4, 17, lambda values, digits: describe(values, digits=digits))


def short(value: Any, digits: int = 4) -> str:
    """Returns a value as a text, numbers rounded to so many digits."""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

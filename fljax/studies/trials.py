"""Trials: one configuration and one seed each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fljax.core.settings import OPTIONS
from fljax.core.values import checked, sequence, wrong

_LONGEST_NAME = 100


class Trial(NamedTuple):
    """One run of a sweep.

    Attributes:
      number: Its place in the sweep, from 0.
      values: {hyperparameter: value} of what the sweep varies.
      seed: The run's seed.
    """

    number: int
    values: Mapping[str, Any]
    seed: int = 0

    @property
    def name(self) -> str:
        """A name for files and legends, such as "0007-client_lr=0.1-seed=1".

        The number alone makes it unique. Values are rounded to four digits, characters that are
        not safe in file names are replaced, and what is too long is cut.
        """
        number, seed = f"{self.number:04d}", f"seed={self.seed}"
        text = re.sub(r"[^\w.=+-]+", "_", describe(self.values, "-"), flags=re.ASCII)
        text = text[: _LONGEST_NAME - len(number) - len(seed) - 2].rstrip("-_.")
        return "-".join(part for part in (number, text, seed) if part)


def repeat(configurations: Sequence[Mapping[str, Any]], seeds: Sequence[int] = (0,)) -> list[Trial]:
    """Returns the trials that run every configuration with every seed.

    Trials of one configuration follow one another. A configuration that was drawn twice would give
    the same runs again, and is taken once.

    Args:
      configurations: From `grid` or `sample`, or a list of one's own.
      seeds: Seeds of the runs.

    Raises:
      ValueError: If there is no configuration or no seed, or a seed is there twice.
    """
    configurations = sequence("configurations", configurations, "a list of dicts")
    if not len(configurations):
        raise ValueError("configurations is empty: there is no configuration to run.")
    for place, one in enumerate(configurations):
        if not isinstance(one, Mapping):
            raise wrong(f"configurations[{place}]", one, "a dict")
    seeds = checked_seeds(seeds)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds = {tuple(seeds)} lists a seed twice, which gives the same run.")
    different = {identity(values): dict(values) for values in configurations}
    pairs = [(values, seed) for values in different.values() for seed in seeds]
    return [Trial(number, values, seed) for number, (values, seed) in enumerate(pairs)]


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
        return {name: with_tuples(one) for name, one in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value


def describe(values: Mapping[str, Any], separator: str = ", ") -> str:
    """Returns a configuration in words: "client_lr=0.1, batch_size=20"."""
    return separator.join(f"{name}={short(value)}" for name, value in values.items())


def short(value: Any) -> str:
    """Returns a value as a text, numbers rounded to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

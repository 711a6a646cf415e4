"""Which runs a ladder is made of: one configuration, a compressor a rung, some seeds.

A rung is the text of `uplink` in a configuration; " per leaf" behind it sets `uplink_per_leaf`, and
what follows a plus is `uplink_memory`. A config file names its ladder:

    def get_ladder():
        return ("none", "int8", "top_k(0.01) + error_feedback", "sign per leaf + error_feedback")
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from fljax.config import ConfigError, call_in_file, resolve, to_plain
from fljax.config.experiment import check_cohort

# What all other rungs are measured against.
UNCOMPRESSED = "none"


class Rung(NamedTuple):
    """One compressor of a ladder.

    Attributes:
      uplink: As `config.uplink`.
      memory: As `config.uplink_memory`.
      per_leaf: As `config.uplink_per_leaf`.
    """

    uplink: str
    memory: str = "none"
    per_leaf: bool = False

    @property
    def code(self) -> str:
        """The compressor alone, as a ladder writes it."""
        return self.uplink + " per leaf" * self.per_leaf

    @property
    def text(self) -> str:
        """How a ladder writes it."""
        return self.code if self.memory == "none" else f"{self.code} + {self.memory}"

    @property
    def folder(self) -> str:
        """Its text as part of a file's name."""
        return re.sub(r"[^\w.]+", "-", self.text).strip("-")


class PlannedRun(NamedTuple):
    """One run of a study.

    Attributes:
      rung: Its compressor.
      seed: Of the partition, the initial model, the cohorts and all that is drawn later.
      name: Its directory's.
      config: Resolved.
    """

    rung: Rung
    seed: int
    name: str
    config: Any


def parse_rung(text: str) -> Rung:
    """Returns the rung that a text such as "sign per leaf + error_feedback" names."""
    code, plus, memory = (part.strip() for part in text.partition("+"))
    uplink, per_leaf, rest = (part.strip() for part in code.partition("per leaf"))
    if not uplink or rest or (plus and not memory):
        raise ValueError(
            f"{text!r} is no rung. Write a compressor, or a compressor and its memory: "
            "'top_k(0.01) + error_feedback', 'sign per leaf + error_feedback'."
        )
    return Rung(uplink, memory or "none", bool(per_leaf))


def load_ladder(path: str | os.PathLike) -> tuple[str, ...]:
    """Returns the rungs that a config file names.

    Args:
      path: Python file that defines `get_ladder()`; "file.py:text" calls `get_ladder("text")`.

    Raises:
      FileNotFoundError: If there is no such file.
      ConfigError: If the file has no `get_ladder()`.
    """
    rungs = call_in_file(path, "get_ladder")
    if rungs is None:
        raise ConfigError(
            f"{path} defines no function get_ladder(). Add one that returns the rungs, or name "
            "them: --rung=none --rung=int8."
        )
    return tuple(rungs)


def plan(config: Any, rungs: Sequence[str], seeds: Sequence[int]) -> list[PlannedRun]:
    """Returns the runs of a ladder, all rungs of a seed before the next seed.

    Args:
      config: What all runs share; its own uplink, seeds and baselines are replaced.
      rungs: Texts; "none" has to be among them.
      seeds: At least one.

    Raises:
      ValueError: If a rung or seed is missing or there twice, or a configuration cannot be run.
    """
    ladder = [parse_rung(text) for text in rungs]
    for what, values in (("rung", [rung.folder for rung in ladder]), ("seed", list(seeds))):
        repeated = [str(value) for value, count in Counter(values).items() if count > 1]
        if repeated:
            raise ValueError(f"The {what} {repeated[0]} is there twice. Leave one of them out.")
    if Rung(UNCOMPRESSED) not in ladder:
        raise ValueError(
            "The ladder has no rung 'none', against which the others are measured. Add it."
        )
    if not seeds:
        raise ValueError("A study needs at least one seed.")
    shared = to_plain(config)
    planned = [
        PlannedRun(rung, seed, f"{rung.folder}-seed{seed}", resolve(shared | _own(rung, seed)))
        for seed in seeds
        for rung in ladder
    ]
    for one in planned[: len(ladder)]:
        # a natural partition may turn out to have more clients, and is checked again then
        check_cohort(one.config, one.config.num_clients or one.config.clients_per_round)
    return planned


def _own(rung: Rung, seed: int) -> dict[str, Any]:
    return {
        "uplink": rung.uplink,
        "uplink_memory": rung.memory,
        "uplink_per_leaf": rung.per_leaf,
        "seed": seed,
        "data_seed": seed,
        "baselines": (),
    }

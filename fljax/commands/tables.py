"""Reads the names of our tables without importing what they hold, which would take seconds."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

# key of a configuration -> file below fljax, and the dict in it whose names it may be
TABLES = {
    "dataset": ("data/sources/__init__.py", "SOURCES"),
    "partition": ("data/partitions/partition_names.py", "PARTITIONERS"),
    "model": ("models/__init__.py", "MODELS"),
    "task": ("tasks/__init__.py", "TASKS"),
    "algorithm": ("algorithms/__init__.py", "ALGORITHMS"),
    "sampler": ("selection/names.py", "SAMPLERS"),
    "uplink": ("compression/names.py", "CODES"),
    "downlink": ("compression/names.py", "CODES"),
    "uplink_memory": ("compression/memories.py", "MEMORIES"),
    "downlink_memory": ("compression/names.py", "DOWNLINK_MEMORIES"),
    "aggregator": ("robustness/names.py", "AGGREGATORS"),
    "attack": ("robustness/names.py", "ATTACKS"),
    "privacy": ("privacy/names.py", "MECHANISMS"),
    "secure_aggregation": ("privacy/names.py", "SECURE_AGGREGATION"),
    "schedule": ("systems/names.py", "SCHEDULES"),
    "profiles": ("systems/names.py", "PROFILES"),
    "availability": ("systems/names.py", "AVAILABILITIES"),
}


def names_for(key: str) -> tuple[str, ...]:
    """Returns the names that a key of a configuration may begin with; none for keys without names.

    Args:
      key: Such as "dataset".

    Example:
      >>> "mnist" in names_for("dataset"), names_for("client_lr")
      (True, ())
    """
    return names_in(*TABLES[key]) if key in TABLES else ()


@functools.cache
def names_in(file: str, table: str) -> tuple[str, ...]:
    """Returns the keys of a dict literal of ours.

    Args:
      file: Below the folder of fljax.
      table: Name of the dict, at the top of the file.

    Raises:
      LookupError: If there is none.

    Example:
      >>> names_in("systems/names.py", "SCHEDULES")[:2]
      ('wait_for_all', 'deadline')
    """
    tree = ast.parse((Path(__file__).parents[1] / file).read_text("utf-8"))
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == table:
            return tuple(key.value for key in node.value.keys if isinstance(key, ast.Constant))
    raise LookupError(f"fljax/{file} has no dict {table!r}: say in {__name__} where it is.")

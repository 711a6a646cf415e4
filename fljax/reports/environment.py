"""Says what runs were computed by and how long it took: devices, versions, seconds, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fljax.core.durations import duration
from fljax.recording.page import Block, Heading, Table
from fljax.reports.headline import in_bytes
from fljax.reports.layout import Charts
from fljax.reports.subjects import Subject


def environment_blocks(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns the part of a page about the environment: a column a subject, of its first run."""
    columns = [_facts(s.run.config, s.run.summary or {}) for s in subjects]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    if not rows:
        return []
    return [Heading("Environment"), Table([["", *(s.label for s in subjects)], *rows], facts=True)]


def _facts(config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, str]:
    """Returns {name: text} of all that is known of how a run was computed."""
    found: dict[str, str] = {}

    def note(name: str, value: Any, write=str) -> None:
        if value is not None:
            found[name] = write(value)

    execution = config.get("execution") or {}
    note("devices", summary.get("device") or execution.get("devices"))
    note("processes", config.get("processes"))
    for name, value in execution.items():
        if name != "devices":
            note(name.replace("_", " "), value)
    for name, value in (config.get("numerics") or {}).items():
        note(name.replace("_", " "), value if value != "" else None)
    note("compiling", summary.get("compile_seconds"), duration)
    note("rounds and evaluations", summary.get("seconds"), duration)
    note("a round, median", summary.get("seconds_per_round_median"), duration)
    note("clients a second, median", summary.get("clients_per_second"), lambda v: f"{v:,.0f}")
    note("examples a second, median", summary.get("examples_per_second"), lambda v: f"{v:,.0f}")
    note("utilization", summary.get("utilization"), lambda value: f"{value:.1%}")
    note("most memory", summary.get("peak_memory_bytes"), in_bytes)
    versions = summary.get("versions") or config.get("versions") or {}
    note("versions", ", ".join(f"{name} {number}" for name, number in versions.items()) or None)
    return found

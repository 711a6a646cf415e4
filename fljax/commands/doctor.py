"""Looks at this installation: versions, devices, caches, data, what is absent, and known traps.

    fljax doctor
    fljax doctor --json

It trains a tiny model for three rounds, in a process of its own, and says if that works and how
long it takes. The exit code is 1 if something is broken, 0 if what is found only surprises. With
`--json` it prints the same for programs, and for whoever tells us of a fault.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from fljax import commands
from fljax.commands import examination, traps

_WIDTH = 100
_MOST_SHOWN = 30


def define() -> None:
    """Defines the flags of an examination."""
    flags.DEFINE_bool("json", False, "Print all that is found as JSON.")


def main(argv: list[str]) -> int:
    """Examines, and prints what is found."""
    facts = examination.examine()
    found = traps.found(facts)
    if flags.FLAGS.json:
        facts["traps"] = [trap._asdict() for trap in found]
        commands.show(json.dumps(facts, indent=2))
    else:
        commands.show(page(facts, found))
    return int(any(trap.broken for trap in found))


def page(facts: Mapping[str, Any], found: Sequence[traps.Trap]) -> str:
    """Returns what is found, for people.

    Args:
      facts: From `fljax.commands.examination.examine`.
      found: From `fljax.commands.traps.found`.
    """
    rows = [
        ("fljax", f"{facts['fljax']}, Python {facts['python']} ({facts['executable']})"),
        ("system", facts["system"]),
        ("versions", _listed(facts["versions"])),
        *_of_computing(facts["computing"]),
        ("data", _data(facts["data"])),
        ("there", _listed({n: part["version"] for n, part in facts["parts"].items()}, there=True)),
        *(
            ("absent", f"{name}: {part['serves']}: {part['remedy']}")
            for name, part in facts["parts"].items()
            if part["version"] is None
        ),
        *(("variable", f"{name}={value}") for name, value in facts["environment"].items()),
        *(
            (
                "broken" if trap.broken else "mind",
                f"{trap.said}. {trap.remedy}".rstrip(". ") + ".",
            )
            for trap in found
        ),
    ]
    if not any(trap.broken for trap in found):
        rows.append(("all right", "nothing is broken"))
    return "\n".join(line for row in rows for line in _wrapped(*row))


def _of_computing(computing: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "error" in computing:
        return
    for device in computing["devices"]:
        memory = (
            _bytes(device["memory_bytes"]) if device["memory_bytes"] else "the machine's memory"
        )
        yield "devices", f"{device['count']} x {device['kind']}, {memory}"
    granted = computing["granted_cores"] or computing["cores"]
    cores = f"{granted} of {computing['cores']} cores"
    yield "machine", f"{cores}, {_bytes(computing['memory_bytes'])}"
    cache = computing["cache"]
    if cache["folder"] is not None:
        kept = f"{cache['files']} files, {_bytes(cache['bytes'])}"
        yield "cache", f"{cache['folder']}: {kept}"
    run = computing["run"]
    yield (
        "a round",
        f"works: loss {run['first_loss']:.3f} to {run['last_loss']:.3f} in three rounds of "
        f"{1e3 * run['round_seconds']:.1f} ms, after {run['compile_seconds']:.1f} s of compiling",
    )


def _data(data: Mapping[str, Any]) -> str:
    if data["holds"] is None:
        return f"{data['folder']} ({data['said_by']}), which does not exist yet"
    shown = ", ".join(data["holds"][:_MOST_SHOWN])
    more = len(data["holds"]) - _MOST_SHOWN
    return f"{data['folder']} ({data['said_by']}): {shown or 'empty'}" + (
        f" and {more} more" if more > 0 else ""
    )


def _listed(versions: Mapping[str, str | None], there: bool = False) -> str:
    listed = versions.items() if not there else ((n, v) for n, v in versions.items() if v)
    return ", ".join(f"{name} {version or 'absent'}" for name, version in listed)


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{name:<11}", subsequent_indent=" " * 11,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip

"""Lists the settings of runs: those that differ from the defaults, and between runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fljax.config import ConfigError, resolve, to_plain
from fljax.core.settings import GROUPS
from fljax.core.values import FILES, Field
from fljax.recording.page import Block, Fold, Heading, Table, Text
from fljax.reports.layout import Charts
from fljax.reports.subjects import Subject, settings_of

_LONGEST = 80
_ABSENT = "–"
# What a run adds to its configuration; other parts of the page have it.
_NO_KEYS = ("hparams", "metrics", "numerics", "class_names", "own")


def difference_blocks(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns the part of a page with the settings in which runs differ; nothing of one run."""
    if len(subjects) < 2:
        return []
    found = differences([subject.run.config for subject in subjects])
    if not found:
        return [Heading("Differences"), Text("The settings that results depend on are the same.")]
    rows = [[f"`{key}`", *map(_shown, values)] for key, values in found.items()]
    head = ["key", *(subject.label for subject in subjects)]
    return [Heading("Differences"), Table([head, *rows], facts=True)]


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns {key: the value of each configuration} of the settings that are not all the same.

    Seeds, and what changes speed or files alone, are no differences. Metrics go by their names. A
    run that was given in Python records fewer keys than one of a configuration: "–" stands there.

    Example:
      >>> differences([{"mu": 0.1, "seed": 0, "tau": 1}, {"mu": 1.0, "seed": 1}])
      {'mu': [0.1, 1.0], 'tau': [1, '–']}
    """
    flat = [dict(_flat(settings_of(config) | _metrics(config))) for config in configs]
    keys = sorted({key for each in flat for key in each})
    # numbers that a program takes as arguments stand in both places
    keys = [key for key in keys if key.removeprefix("hparams.") not in keys or "." not in key]
    # what is unset and what is not recorded are no difference
    unlike = [key for key in keys if any(each.get(key) != flat[0].get(key) for each in flat)]
    return {key: [each.get(key, _ABSENT) for each in flat] for key in unlike}


def _metrics(config: Mapping[str, Any]) -> dict[str, str]:
    named = [metric["name"] for metric in config.get("metrics") or ()]
    return {"metrics": ", ".join(named)} if named else {}


def setting_blocks(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns the part of a page with the settings that are no defaults, the others folded.

    Of several subjects, those of the first one: where they differ is another part.
    """
    config = subjects[0].run.config
    if not config:
        return [Heading("Settings"), Text("This run has no config.json.")]
    chosen, default, usual = [], [], _defaults(config)
    for group, key, value, field in _settings(config):
        row = [f"`{key}`", _shown(value), group, field.meaning]
        is_usual = _same(value, usual.get(key, field.default)) or field.affects == FILES
        (default if is_usual else chosen).append(row)
    head = ["key", "value", "part", "meaning"]
    whose = "" if len(subjects) == 1 else f" of {subjects[0].label}"
    said = f"What{whose} is no default." if chosen else f"All{whose} is as by default."
    blocks: list[Block | Charts] = [Heading("Settings"), Text(said)]
    blocks += [Table([head, *chosen], facts=True)] if chosen else []
    if default:
        title = f"{len(default)} settings at their defaults, or about files alone"
        blocks.append(Fold(title, [Table([head, *default], facts=True)]))
    known = {key.partition(".")[0] for _, key, _, _ in _settings(config)}
    own = [
        [f"`{key}`", _shown(value)]
        for key, value in sorted(config.items())
        if key not in known and key not in _NO_KEYS and not isinstance(value, Mapping)
    ]
    if own:
        title = f"{len(own)} further entries of config.json"
        blocks.append(Fold(title, [Table([["key", "value"], *own], facts=True)]))
    return blocks


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Field]]:
    """Yields (group, key, value, field) of what is a setting by the table of options."""
    for group, fields in GROUPS.items():
        for name, field in fields.items():
            if name not in config:
                continue
            if isinstance(field, Field):
                yield group, name, config[name], field
                continue
            for inner, option in field.items():
                if inner in (config[name] or {}):
                    yield group, f"{name}.{inner}", config[name][inner], option


def _defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what the configuration would have if it named nothing but its algorithm."""
    names = ("algorithm", "server_optimizer")
    try:
        return to_plain(resolve({name: config[name] for name in names if config.get(name)}))
    except ConfigError:  # an algorithm of the user's own
        return {}


def _same(value: Any, default: Any) -> bool:
    plain = list(default) if isinstance(default, tuple) else default
    return value == plain


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in value.items():
        if isinstance(entry, Mapping) and entry:
            yield from _flat(entry, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", entry


def _shown(value: Any) -> str:
    if value is None or value is _ABSENT:
        return "unset" if value is None else _ABSENT
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return f"`{text}`" if "`" not in text else text

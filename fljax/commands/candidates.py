"""Completes a command line: finds what its last word may become."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import NamedTuple

from fljax.commands import arguments, tables
from fljax.commands.console import COMMANDS


class Candidate(NamedTuple):
    """A completion of a word, and a few words on it."""

    word: str
    meaning: str = ""


def lines(words: Sequence[str]) -> list[str]:
    """Returns what the last word may become, each as a line: the word, a tab, its meaning.

    Args:
      words: Those behind `fljax`; the last one is not finished, and may be empty.
    """
    return [f"{word}\t{meaning}" for word, meaning in candidates(words)]


def candidates(words: Sequence[str]) -> list[Candidate]:
    """Returns what the last word may become. A word that ends in one of `=./` is not the whole.

    Args:
      words: Those behind `fljax`; the last one is not finished, and may be empty.

    Example:
      >>> [found.word for found in candidates(["stu"])]
      ['study']
      >>> [found.word for found in candidates(["run", "--config.weighting="])]
      ['--config.weighting=examples', '--config.weighting=uniform', '--config.weighting=None']
    """
    *before, word = words or [""]
    if not before:
        found = [Candidate(name, command.help) for name, command in COMMANDS.items()]
        found += [Candidate("help", "Tells more of a command."), Candidate("--version", "")]
    elif before[0] == "help":
        found = [Candidate(name, command.help) for name, command in COMMANDS.items()]
    elif before[0] in COMMANDS:
        found = list(_behind(before[0], before[1:], word))
    else:
        found = []
    return [candidate for candidate in found if candidate.word.startswith(word)]


def _behind(name: str, before: Sequence[str], word: str) -> Iterable[Candidate]:
    """Yields what may stand behind a command."""
    flags = _flags(name)
    last = before[-1].lstrip("-") if before and before[-1].startswith("-") else ""
    if word.startswith("-"):
        flag, equals, _ = word.partition("=")
        if equals:
            yield from _prefixed(
                f"{flag}=", _values(flag.lstrip("-"), flags, word[len(flag) + 1 :])
            )
        elif word.startswith("--config."):
            yield from _keys()
        else:
            yield from _flag_names(flags)
    elif last and "=" not in last and arguments.takes_value(last):
        yield from _values(last, flags, word)
    else:
        yield from _positional(name, before, word)


def _flags(name: str) -> dict:
    """Returns {name: flag} of a command."""
    from fljax import commands

    import_module(COMMANDS[name].module).define()
    return {flag.name: flag for flag in commands.own_flags()}


def _flag_names(flags: dict) -> Iterable[Candidate]:
    for name, flag in flags.items():
        yield Candidate(f"--{name}" if flag.boolean else f"--{name}=", _short(flag.help))
    if "config" in flags:
        yield Candidate("--config.", "a key of the configuration")
    yield Candidate("--help", "tells more")


def _keys() -> Iterable[Candidate]:
    from fljax.config.schema import FIELDS

    for key, field in FIELDS.items():
        if isinstance(field, dict):
            yield from (
                Candidate(f"--config.{key}.{name}=", _short(own.meaning))
                for name, own in field.items()
            )
        else:
            yield Candidate(f"--config.{key}=", _short(field.meaning))


def _values(name: str, flags: dict, begun: str) -> Iterable[Candidate]:
    """Yields the values of a flag, or of a key of the configuration."""
    if name == "config":
        yield from _configs(begun)
    elif name.startswith("config."):
        yield from map(Candidate, _values_of_key(name.removeprefix("config.")))
    elif name in flags:
        yield from map(Candidate, getattr(flags[name].parser, "enum_values", None) or ())
        yield from map(Candidate, tables.names_for(name))


def _values_of_key(key: str) -> Iterable[str]:
    from fljax.config.schema import FIELDS

    group, _, inner = key.partition(".")
    field = FIELDS.get(group)
    field = field.get(inner) if isinstance(field, dict) else field
    if field is None:
        return
    if field.kind is bool:
        yield from ("True", "False")
    yield from field.allowed if isinstance(field.allowed, tuple) else tables.names_for(key)
    if field.optional:
        yield "None"


def _positional(name: str, before: Sequence[str], word: str) -> Iterable[Candidate]:
    """Yields what the next argument that is no flag may be, by the table of commands."""
    places = [place.strip("[]") for place in COMMANDS[name].arguments.split()]
    given, skip = 0, False
    for argument in before:
        if skip or argument.startswith("-"):
            bare = argument.lstrip("-")
            skip = not skip and "=" not in bare and arguments.takes_value(bare)
        else:
            given += 1
    place = places[given] if given < len(places) else ""
    if place in ("CONFIG", "NAME"):
        yield from _configs(word)
    elif "|" in place:
        yield from map(Candidate, place.split("|"))


def _configs(begun: str) -> Iterable[Candidate]:
    """Yields configurations of ours, the texts that they take, and Python files and folders."""
    from fljax.config import shipped

    name, colon, _ = begun.partition(":")
    if colon:
        if name in shipped.names():
            yield from (Candidate(f"{name}:{text}") for text in shipped.settings(name))
        return
    for ours in shipped.names():
        yield Candidate(ours, _short(shipped.summary(ours)))
    for path in sorted(glob.glob(f"{glob.escape(begun)}*")):
        if os.path.isdir(path):
            yield Candidate(f"{path}/")
        elif path.endswith(".py"):
            yield Candidate(path)


def _prefixed(prefix: str, found: Iterable[Candidate]) -> Iterable[Candidate]:
    return (Candidate(prefix + word, meaning) for word, meaning in found)


def _short(text: str) -> str:
    """Returns the first sentence, in one line of at most 60 characters."""
    first = " ".join(text.split()).partition(". ")[0].rstrip(".")
    return first if len(first) <= 60 else f"{first[:57]}..."

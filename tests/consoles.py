"""Calls the console command in this process, which a process of its own would take a second for."""

from __future__ import annotations

import contextlib
import sys
from typing import NamedTuple

import pytest
from absl import flags, logging

from fljax import commands
from fljax.commands import console


class Ended(NamedTuple):
    """End of a command: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def call(monkeypatch, capsys, *words: str, script: str = "") -> Ended:
    """Calls `fljax` with some words; this process keeps its signals, logging and flags.

    Args:
      words: Behind the program's name.
      script: A command that is called as its script calls it, which has the words for itself.
    """
    monkeypatch.setattr(sys, "argv", ["scripts/some.py" if script else "fljax", *map(str, words)])
    monkeypatch.setattr(commands, "begin", lambda: None)
    monkeypatch.setattr(logging, "use_absl_handler", lambda: None)
    with flags_as_they_were(), pytest.raises(SystemExit) as ended:
        console.call(script) if script else console.main()
    printed = capsys.readouterr()
    return Ended(ended.value.code, printed.out, printed.err)


@contextlib.contextmanager
def flags_as_they_were():
    """Takes away the flags that fljax defines inside: two commands may both have one."""
    before = {*flags.FLAGS}
    try:
        yield
    finally:
        for name in {flag.name for flag in commands.own_flags()} - before:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()

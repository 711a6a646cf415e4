"""A generator of bad inputs: seeded, through configurations and through Python.

A case is one call with one or two arguments replaced by values of wrong kinds, or with a name that
does not exist. `fault(case)` runs it and says what is wrong with how it was answered; nothing is
wrong where

- it is refused by a `raise` of fljax's own, of a documented class, in a message that names an
  argument that was changed;
- or it is accepted, and what would run is what was given.

More cases than the suite's, with other seeds:

    python tests/bad_inputs.py 5000 7
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import linecache
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fljax
from fljax.core.names import FOREIGN_NAMES
from fljax.core.values import shown

SOURCE = str(Path(fljax.__file__).parent)
# What users are told that calls may raise; subclasses of these are fine.
DOCUMENTED = (ValueError, TypeError, FileNotFoundError, NotADirectoryError, FileExistsError)


def negative_schedule(round):
    return -1.0


# One of them takes the place of an argument; those that are fine in some place are as telling.
WRONG: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, -1, -7, 2**31, 2**33, 2**40, 2**63, 2**70, 10**400, -(2**63),
    0.0, -0.0, 0.5, 1.0, 1.5, -0.1, 2.0, 1e-60, 1e39, 1e308, math.nan, math.inf, -math.inf,
    1 - 1e-12, "", " ", "abc", "0.1", "none", "adam", "iid", "ünïcode", "x" * 5000, b"bytes",
    [], [0], [[]], [[1.5]], [[0, 1]], [None], ["abc"], ["centralized", "centralized"], (), (1, 2),
    (-1,), (0.5, 0.5), {}, {"a": 1}, {1: 2}, {"seed": 1}, set(), {1}, range(3), slice(1),
    np.float32(0.5), np.int64(2), np.bool_(True), np.float64("nan"), np.array(1.5), np.array([]),
    np.zeros(3), np.ones((2, 2)), np.array(["a"]), np.array([None]), np.datetime64("2020-01-01"),
    1j, object(), object, int, len, callable, math, Ellipsis, NotImplemented, ValueError("x"),
    lambda: 1, lambda x: x, negative_schedule, Path("nowhere"), os.devnull,
)  # fmt: skip
TEXTS = (
    "top_k", "top_k()", "top_k(0)", "top_k(0.1", "top_k(0.1))", "top_k(2)", "top_k('a')",
    "topk(0.1)", "qsgd(8), ", "qsgd(8) qsgd(8)", "qsgd(8.5)", "qsgd(10**9)", "qsgd(1e400)",
    "qsgd(8, 8, 8, 8)", "qsgd(bits=8, bits=8)", "qsgd(*[8])", "qsgd(**{'bits': 8})", "(" * 300,
    "-" * 5000 + "1", "top_k(" + "(" * 90 + "0.1" + ")" * 90 + ")", "top_k(" + "-" * 3000 + "1)",
    "top_k(0.1)," * 400, "a.b(1)", "top_k(0.1)(0.1)", "lambda: 1", "__import__('os')", "top_k(x)",
    "[top_k(0.1)]", "{}", "1", "'top_k'", "top_k(level)", "none, none", "top_k(0.1), none", "\0",
    "top_k(0.1) # ok", "diana", "ef21, ef21", "difference", "marina(2)", "powersgd(rank=0)",
    "powersgd(10**30)", "rotation(1)", "uniform(True)", "prune(None)", "fetch_sgd(10**12, 10**12)",
    "rand_k(nan)", "rand_k(0.1, unbiased=1)", "identity(1)", "drive()", "int8(stochastic='yes')",
)  # fmt: skip


class Case(NamedTuple):
    """One call.

    Attributes:
      target: What is called.
      changed: {argument: value} of what is not as it should be.
      call: () -> what the call returned.
      differs: (result) -> {argument: (given, resolved)} of what would run on other values.
      also: Further names that a message may say instead, such as those of what is too large
        together with the argument.
    """

    target: str
    changed: dict[str, Any]
    call: Callable[[], Any]
    differs: Callable[[Any], Mapping[str, Any]] = lambda result: {}
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        values = ", ".join(f"{name}={shown(value)}" for name, value in self.changed.items())
        return f"{self.target}({values})"


def fault(case: Case, seconds: float = 60.0) -> str:
    """Runs a case; returns what is wrong with the answer, or "" where it is as it should be.

    A call that takes longer than some seconds ends the process with the place where it stood.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            result = case.call()
    except Exception as error:
        return _fault_of(error, case)
    finally:
        faulthandler.cancel_dump_traceback_later()
    return "".join(
        f"{name} = {shown(given)} was accepted and became {shown(resolved)}"
        for name, (given, resolved) in case.differs(result).items()
    )


def _fault_of(error: Exception, case: Case) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    told = f"{type(error).__name__}: {str(error)[:200]}"
    if Path(frame.filename).parent == Path(__file__).parent:
        # Python's own answer to arguments that a function does not have, or lacks
        own = isinstance(error, TypeError) and "argument" in str(error)
        return "" if own else f"an error of the test itself: {told}"
    place = f"{frame.filename.removeprefix(SOURCE)}:{frame.lineno}"
    if isinstance(error, OSError) and error.filename:
        return ""  # the system's own words, which name the file
    if not frame.filename.startswith(SOURCE):
        return f"a traceback from inside, {place}: {told}"
    if not linecache.getline(frame.filename, frame.lineno).lstrip().startswith("raise"):
        return f"a traceback from inside, {place} ({frame.line}): {told}"
    if not isinstance(error, DOCUMENTED):
        return f"a class that nobody documents, {place}: {told}"
    if not any(text in str(error) for text in _texts_of(case)):
        return f"a message that names none of the arguments, {place}: {told}"
    if len(str(error)) > 4000:
        return f"a message of {len(str(error))} characters, {place}"
    return ""


def _texts_of(case: Case) -> Iterator[str]:
    """Yields what shows that a message is about a case: names and values of its arguments."""
    yield from case.also
    for name, value in case.changed.items():
        yield name
        yield shown(value)
        if isinstance(value, str) and value.strip():
            yield value
        if isinstance(value, dict):
            yield from map(str, value)


def changes(
    generator: random.Random, names: list[str], pool: Mapping[str, tuple] | None = None
) -> dict[str, Any]:
    """Draws one or two arguments and what takes their place, or a name that does not exist."""
    if generator.random() < 0.12:
        return {misspelt(generator, names): generator.choice((0.1, 1, "abc"))}
    chosen = generator.sample(names, min(len(names), 1 + (generator.random() < 0.3)))
    pool = pool or {}
    return {
        name: generator.choice(pool[name] if name in pool and generator.random() < 0.7 else WRONG)
        for name in chosen
    }


def misspelt(generator: random.Random, names: list[str]) -> str:
    """Draws a name that does not exist: another framework's, or one of ours with an error."""
    if generator.random() < 0.4:
        return generator.choice(sorted(set(FOREIGN_NAMES) - set(names)))
    name = generator.choice(names)
    place = generator.randrange(len(name))
    typo = generator.choice(
        (name[:place] + name[place + 1 :], name[:place] + "x" + name[place:], name + "s")
    )
    return typo if typo and typo not in names else name + "_"


def same(given: Any, resolved: Any) -> bool:
    """Returns whether what is to run is what was given, in whatever type."""
    given = os.fspath(given) if isinstance(given, os.PathLike) else given
    if isinstance(given, float | np.floating) and isinstance(resolved, float):
        return bool(np.isclose(given, resolved, rtol=1e-6)) or given == resolved
    try:
        return bool(np.all(np.asarray(given) == np.asarray(resolved)))
    except (TypeError, ValueError):
        return False


def main(count: int, seed: int) -> None:
    """Runs many cases in a process and a folder of their own, which do not outlive this one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as folder:
        # however the process ends: a case that takes too long ends it at once
        command = [sys.executable, __file__, str(count), str(seed), folder]
        sys.exit(subprocess.run(command).returncode)


def run(count: int, seed: int, folder: str) -> None:
    """Runs many cases in a folder and prints the faults by kind."""
    import jax

    os.chdir(folder)  # some values are names of directories
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_disable_most_optimizations", True)
    jax.devices()
    import bad_calls
    import bad_configs

    found: dict[str, list[str]] = {}
    cases: list[Iterator[Case]] = [
        bad_calls.cases(seed, count // 2),
        bad_configs.cases(seed, count // 2),
    ]
    for each in cases:
        for case in each:
            told = fault(case)
            if told:
                found.setdefault(told[:90], []).append(f"{case}\n      {told}")
    for told in sorted(found, key=lambda text: len(found[text])):
        print(f"{len(found[told]):4d} x {found[told][0]}")
    print(
        f"{count} cases, seed {seed}: {sum(map(len, found.values()))} faults of {len(found)} kinds"
    )


if __name__ == "__main__":
    count, seed, *folder = sys.argv[1:]
    (run if folder else main)(int(count), int(seed), *folder)

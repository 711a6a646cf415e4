"""Flips random bits in what a run left behind: each must be detected, or change nothing."""

from __future__ import annotations

import collections
import contextlib
import io
import random
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from fljax.benchmarks.kills import CASES
from fljax.benchmarks.same_files import differences
from fljax.recording import Checkpoints, load_run, say
from fljax.recording.recorder import CHECKPOINTS
from fljax.recording.runs import METRICS
from fljax.studies import results

# What may become of a flip; the last one must not.
FATES = ("found when read", "refused", "an older checkpoint", "no effect", "not noticed")
_OF_CHECKPOINTS = "the newest of"


def flips(name: str, count: int, directory: Path, seed: int = 0) -> dict[str, int]:
    """Flips bits in the files of a case, one at a time, reads them, and goes on with the run.

    Every file is as likely as any other, and every bit of it.

    Args:
      name: Of the case, from `fljax.benchmarks.kills.CASES`.
      count: How many bits.
      directory: Receives the files.
      seed: Of the bits.

    Returns:
      {one of `FATES`: how many}.
    """
    whole, copy = directory / f"{name}-whole", directory / f"{name}-flipped"
    if not whole.exists():
        _quietly(name, whole)
    draw = random.Random(f"{name}/{seed}")
    files = sorted(
        path.relative_to(whole)
        for path in whole.rglob("*")
        if path.is_file() and path.stat().st_size
    )
    fates: collections.Counter = collections.Counter()
    for number in range(count):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        path = copy / draw.choice(files)
        data = bytearray(path.read_bytes())
        bit = draw.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        fate = _fate(name, whole, copy)
        fates[fate] += 1
        place = path.relative_to(copy)
        say(f"{name} {number + 1}/{count}: bit {bit} of {place}: {fate}")
    return dict(fates)


def _fate(name: str, whole: Path, copy: Path) -> str:
    read = None
    try:
        _read(copy)
    except ValueError:
        read = "found when read"
    except Exception as error:
        say(f"  {type(error).__name__}: {error}")
        return "not noticed"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _quietly(name, copy)
        except (OSError, ValueError):
            return read or "refused"
        except Exception as error:
            say(f"  {type(error).__name__}: {error}")
            return "not noticed"
    if found := differences(whole, copy):
        # a study asks no finished run for its checkpoints
        if all(_OF_CHECKPOINTS in message for message in found) and _has_damaged_checkpoint(copy):
            return read or "found when read"
        say(f"  {'; '.join(found)}")
        return read or "not noticed"
    said = any("Going on from that of round" in str(warning.message) for warning in caught)
    return read or ("an older checkpoint" if said else "no effect")


def _read(directory: Path) -> None:
    """Reads all that can be read back."""
    if (directory / results.TRIALS).exists():
        results.load(directory)
    for path in sorted(directory.rglob(METRICS)):
        load_run(path.parent)


def _has_damaged_checkpoint(directory: Path) -> bool:
    """Returns whether whoever goes on with one of the runs below a directory is told of damage."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in directory.rglob(CHECKPOINTS):
            try:
                with Checkpoints(path) as checkpoints:
                    checkpoints.newest_whole()
            except (UserWarning, ValueError):
                return True
    return False


def _quietly(name: str, workdir: Path) -> None:
    """Runs a case, or goes on with it, in this process."""
    with contextlib.redirect_stderr(io.StringIO()):
        CASES[name].run(workdir)


def table(found: Sequence[tuple[str, Mapping[str, int]]]) -> str:
    """Returns the fates of all flips as Markdown."""
    lines = [f"| files of | bits | {' | '.join(FATES)} |", "|---|" + "---:|" * (len(FATES) + 1)]
    for name, fates in found:
        counts = " | ".join(str(fates.get(fate, 0)) for fate in FATES)
        lines.append(f"| {CASES[name].title} | {sum(fates.values())} | {counts} |")
    return "\n".join(lines)

"""Kills runs at random moments and flips bits in their files, and shows what that has changed.

    python scripts/kill_runs.py --workdir=runs/kills
    python scripts/kill_runs.py --workdir=runs/kills --cases=fedavg,sweep --kills=20 --flips=0

A killed run goes on until it is over, and every file is compared with those of a run that nobody
killed: bit for bit, but for seconds and rates. Exit status 1 if anything was lost, differs, or was
not noticed.
"""

from fljax import commands

commands.begin()  # it answers for what the imports below do

from pathlib import Path

from absl import app, flags

import fljax
from fljax.recording import versions

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for the runs.")
_CASES = flags.DEFINE_list(
    "cases", ["fedavg", "scaffold", "feedback", "sweep", "study"], "What is run."
)
_KILLS = flags.DEFINE_integer("kills", 200, "Kills, of all cases together.", lower_bound=0)
_FLIPS = flags.DEFINE_integer("flips", 100, "Bits, of all cases together.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Of moments and bits.")


def main(argv):
    from fljax.benchmarks import bit_flips, kills

    workdir, names = Path(_WORKDIR.value), _CASES.value
    if unknown := [name for name in names if name not in kills.CASES]:
        raise app.UsageError(f"Unknown {unknown[0]!r}; there are {', '.join(kills.CASES)}.")
    fljax.use_all_cores()
    fljax.use_compilation_cache()
    outcomes, fates = [], []
    for name, count in zip(names, _shares(_KILLS.value, len(names)), strict=True):
        if count:
            outcomes.append((name, kills.endure(name, count, workdir / "kills", _SEED.value)))
    for name, count in zip(names, _shares(_FLIPS.value, len(names)), strict=True):
        if count:
            fates.append((name, bit_flips.flips(name, count, workdir / "flips", _SEED.value)))
    found = versions()
    commands.show(", ".join(f"{name} {found[name]}" for name in ("python", "jax", "numpy")))
    if outcomes:
        commands.show(f"\n{kills.table(outcomes)}")
    if fates:
        commands.show(f"\n{bit_flips.table(fates)}")
    problems = [line for _, outcome in outcomes for line in outcome.problems]
    commands.show("\n".join(problems))
    return int(bool(problems) or any(counts.get(bit_flips.FATES[-1]) for _, counts in fates))


def _shares(total, parts):
    """Divides a number into parts that differ by one at most."""
    return [(total + part) // parts for part in range(parts)]


if __name__ == "__main__":
    commands.execute(main, required=["workdir"], starts_processes=True)

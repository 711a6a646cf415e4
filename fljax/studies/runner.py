"""Runs a ladder, and goes on with one that was stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fljax.config import experiment, to_plain
from fljax.core.settings import affecting
from fljax.core.values import FILES, SPEED
from fljax.recording import Run, load_run, say
from fljax.recording.recorder import holds_run
from fljax.studies.ladder import PlannedRun, Rung, plan
from fljax.studies.outcomes import diverged_in

RUNS = "runs"


def run_ladder(
    config: Any, rungs: Sequence[str], seeds: Sequence[int], workdir: str | Path
) -> dict[Rung, list[Run]]:
    """Runs every rung with every seed, each in `workdir/runs/NAME-seedK`.

    A finished run is not repeated, nor is one that diverged, without which the study goes on; one
    that was killed goes on from its newest checkpoint.

    Args:
      config: What all runs share.
      rungs: Texts, see `fljax.studies.ladder`.
      seeds: Each draws partition, initial model and cohorts anew, the same for all rungs.
      workdir: Directory of the study.

    Returns:
      {rung: [run of each seed]}; one that diverged has no `summary`.

    Raises:
      KeyboardInterrupt: If a run was stopped; the same call goes on with it.
      ValueError: If the ladder or a configuration is wrong, or a finished run had another one.
    """
    planned = plan(config, rungs, seeds)
    directories = [Path(workdir) / RUNS / one.name for one in planned]
    found = [_finished(one, where) for one, where in zip(planned, directories, strict=True)]
    runs: dict[Rung, list[Run]] = {one.rung: [] for one in planned}
    for number, (one, where) in enumerate(zip(planned, directories, strict=True)):
        run = found[number]
        if run is None:
            say(f"{number + 1}/{len(planned)}: {one.rung.text}, seed {one.seed}")
            run = _run(one, where)
            if run.interrupted:
                raise KeyboardInterrupt
        # the final model, which nobody asks for, would keep its memory until the end
        runs[one.rung].append(run._replace(variables=None))
    return runs


def _run(one: PlannedRun, directory: Path) -> Run:
    try:
        return experiment.simulate_config(one.config, directory, resume=holds_run(directory))
    except FloatingPointError as error:
        say(f"{one.name} diverged. {error}")
        return load_run(directory)


def _finished(one: PlannedRun, directory: Path) -> Run | None:
    """Returns the run that the directory holds, or None if it has not come to its end."""
    if not (directory / "config.json").exists():
        return None
    run = load_run(directory)
    ended = diverged_in(run) if run.summary is None else not run.summary["interrupted"]
    if not ended:
        return None
    check_same(to_plain(one.config), run.config, directory)
    return run


def check_same(now: Mapping[str, Any], then: Mapping[str, Any], directory: Path) -> None:
    """Raises ValueError if a run was of another configuration than that of now."""
    # a natural partition says itself how many clients there are, and runs keep their number
    free = affecting(SPEED, FILES) | ({"num_clients"} if now["num_clients"] is None else set())
    changed = [
        f"{name} was {then.get(name)!r} and is {now[name]!r}"
        for name in now
        if name not in free and now[name] != then.get(name)
    ]
    if changed:
        raise ValueError(
            f"{directory} holds a run of another configuration: {'; '.join(changed)}. Give another "
            "--workdir, or the settings of before."
        )

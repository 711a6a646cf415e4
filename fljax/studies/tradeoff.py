"""The trade-off of a ladder: runs it, and leaves table, picture and report."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.config import experiment
from fljax.core.files import atomic_file
from fljax.recording.lock import locked
from fljax.studies import pareto, table
from fljax.studies import tradeoff_report as report
from fljax.studies.outcomes import Row, rows
from fljax.studies.runner import run_ladder
from fljax.training.options import check_workdir


class Tradeoff(NamedTuple):
    """What a study came to, and where it lies.

    Attributes:
      rows: One a rung.
      csv: The table for programs.
      picture: The Pareto plot.
      report: The page.
    """

    rows: list[Row]
    csv: Path
    picture: Path
    report: Path


def tradeoff(
    config: Any,
    rungs: Sequence[str],
    seeds: Sequence[int],
    workdir: str | Path,
    *,
    command: Sequence[str] = (),
) -> Tradeoff:
    """Runs a ladder of compressors and sets accuracy against bytes.

    Args:
      config: The uncompressed run; see `fljax.config`.
      rungs: Texts such as "top_k(0.01) + error_feedback"; "none" has to be among them.
      seeds: Of the runs.
      workdir: Receives runs/, tradeoff.csv, tradeoff.png and report.md. A second call repeats no
        finished run.
      command: What the report tells to repeat.

    Raises:
      KeyboardInterrupt: If a run was stopped; the same call goes on with it.
      BlockingIOError: If another process runs a study there.
      ValueError: If a rung or the configuration is wrong, or all runs without compression diverged.
    """
    check_workdir(workdir)
    workdir = Path(workdir)
    with locked(workdir):
        return _tradeoff(config, rungs, seeds, workdir, command)


def _tradeoff(
    config: Any, rungs: Sequence[str], seeds: Sequence[int], workdir: Path, command: Sequence[str]
) -> Tradeoff:
    runs = run_ladder(config, rungs, seeds, workdir)
    result = rows(runs)
    one = next(run for ones in runs.values() for run in ones if run.summary is not None)
    found = Tradeoff(
        result, workdir / "tradeoff.csv", workdir / "tradeoff.png", workdir / "report.md"
    )
    table.write_csv(result, found.csv)
    pareto.draw(
        result,
        found.picture,
        title=_title(one.config, len(seeds)),
        target=one.config["target_accuracy"],
    )
    page = report.page(
        result,
        one,
        experiment.parameter_shapes(config),
        picture=found.picture.name,
        command=command,
        date=datetime.date.today().isoformat(),
    )
    with atomic_file(found.report) as file:
        file.write(page.encode())
    return found


def _title(config: dict[str, Any], seeds: int) -> str:
    return (
        f"{config['dataset']}, {config['num_clients']} clients, {config['clients_per_round']} a "
        f"round, {config['num_rounds']} rounds, {seeds} seed{'s' * (seeds > 1)}"
    )

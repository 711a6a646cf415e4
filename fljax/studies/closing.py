"""The closing lines of a sweep, for people."""

from __future__ import annotations

from collections import Counter

from fljax.studies.sweep import Sweep
from fljax.studies.trials import describe


def report(sweep: Sweep) -> str:
    """Returns what a sweep found, what it cost, and where that lies; draws the plots."""
    results, costs = sweep.results, sweep.summary
    states = Counter(results.status(trial).state for trial in results.trials)
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    lines = [f"{len(results.trials)} trials: {counted}"]
    if sweep.best is not None and sweep.best["values"] is None:
        lines.append(sweep.best["note"])
    elif sweep.best is not None:
        best, criterion = sweep.best, sweep.settings.criterion
        lines.append(f"best by {best['metric']}: {describe(best['values'])}")
        for key in dict.fromkeys((best["metric"], criterion.report)):
            if key in best:
                found = best[key]
                spread = "" if found["sd"] is None else f" ± {found['sd']:.4f}"
                over = f" over {len(best['seeds'])} seeds" if len(best["seeds"]) > 1 else ""
                lines.append(f"  {key.removeprefix('eval/')}: {found['mean']:.4f}{spread}{over}")
        if "note" in best:
            lines.append(f"  note: {best['note']}")
    if costs["rounds"]:
        each = costs["training"] / costs["rounds"]
        lines.append(
            f"{costs['groups']} group(s), up to {costs['slots']} trials together: building and "
            f"compiling {costs['building'] + costs['compiling']:.1f} s, training "
            f"{costs['training']:.1f} s ({1e3 * each:.2f} ms a round of a trial), evaluating "
            f"{costs['evaluating']:.1f} s"
        )
    lines.append(f"sweep directory: {sweep.directory}")
    if not sweep.complete and not costs["complete"]:
        lines.append("Some trials are not over; the same command with --resume goes on.")
        return "\n".join(lines)
    if not sweep.complete:
        ranks = ", ".join(map(str, sweep.missing))
        lines.append(
            f"The trials of this process are over, those of process {ranks} are missing: the last "
            "one to end writes the tables. One that failed goes on by --share=RANK/COUNT --resume."
        )
        return "\n".join(lines)
    return "\n".join([*lines, *(f"plot: {path}" for path in sweep.plot())])

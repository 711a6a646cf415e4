"""The one-page report of a ladder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from fljax.recording import Run
from fljax.studies import formats, table
from fljax.studies.outcomes import Row

PyTree = Any


def page(
    rows: Sequence[Row],
    run: Run,
    params: PyTree,
    *,
    picture: str,
    command: Sequence[str],
    date: str,
) -> str:
    """Returns the report as Markdown.

    Args:
      rows: Of the ladder.
      run: One of its finished runs, for what all of them share.
      params: Of the model; shapes will do.
      picture: Path of the plot, seen from the page.
      command: What was called, for the line that repeats it.
      date: Of the report.
    """
    target = run.config["target_accuracy"]
    sparse = formats.markdown([row.rung for row in rows], params)
    parts = [
        f"# Compression on {run.config['dataset']}",
        _task(run.config, len(rows[0].outcomes)),
        f"![Accuracy against uplink bytes]({picture})",
        table.markdown(rows),
        _reading(target, any(row.diverged for row in rows)),
        *([_sparse(sparse)] if sparse else []),
        "## How to repeat it",
        f"    {shlex.join(command)}",
        _conditions(run, date),
    ]
    return "\n\n".join(parts) + "\n"


def _task(config: Mapping[str, Any], seeds: int) -> str:
    partition = config["partition"]
    if partition.startswith("dirichlet"):
        partition = f"{partition}({config['alpha']:g})"
    work = (
        f"{config['local_epochs']} local epochs"
        if config["local_epochs"]
        else f"{config['local_steps']} local steps"
    )
    schedule = config["client_lr_schedule"]
    decay = "" if schedule == "constant" else f" with {schedule} decay"
    options = "".join(f", {name} {value}" for name, value in config["model_options"].items())
    partition += "".join(f", {name} {value}" for name, value in config["dataset_options"].items())
    return (
        f"{config['num_clients']} clients by partition {partition}; {config['clients_per_round']} "
        f"a round, {config['num_rounds']} rounds of {work} with batches of "
        f"{config['batch_size']}; model {config['model']}{options}; {config['algorithm']}, client "
        f"learning rate {config['client_lr']:g}{decay}; {_seeds(seeds)}, which all compressors "
        "share."
    )


def _seeds(count: int) -> str:
    if count == 1:
        return "1 seed of split, initial model and cohorts"
    return f"{count} seeds, each with a split, an initial model and cohorts of its own"


def _reading(target: float | None, diverged: bool) -> str:
    goal = (
        "No target accuracy was set."
        if target is None
        else f"The target is a test accuracy of {100 * target:g} %; where only some seeds reached "
        "it, their number stands behind the rounds, and figures are theirs."
    )
    return (
        "Mean ± standard deviation over seeds. *Test accuracy* is that of the round chosen on "
        "validation data; the *gap* to the uncompressed run is taken seed by seed. Bytes are those "
        f"of the messages from clients to the server, whose bits are counted exactly. {goal}"
        + " Where runs *diverged*, as all clients of that round ended with a NaN or an infinity, "
        "accuracies are those of the other seeds." * diverged
    )


def _sparse(listing: str) -> str:
    return (
        "## What positions cost\n\nBytes of a compressed update by index format, and how many "
        "times fewer than an update as it is; what an algorithm sends besides is not compressed. "
        "The last column is what runs send: `smallest` is raw or bitmap, whichever is smaller."
        f"\n\n{listing}"
    )


def _conditions(run: Run, date: str) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in run.summary["versions"].items())
    return f"{run.summary['device']}; {versions}; {date}."

"""Sends records to Weights & Biases, as a sink of the recorder."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fljax.core import optional
from fljax.core.files import atomic_file
from fljax.core.values import Field, checked
from fljax.recording import jsonio
from fljax.recording.recorder import Sink

MODES = ("disabled", "offline", "online")
_RUN_ID = "wandb_run_id.txt"


def wandb_sink(
    mode: str,
    *,
    project: str = "fljax",
    name: str | None = None,
    group: str | None = None,
    config: Mapping[str, Any] | None = None,
    workdir: str | Path | None = None,
    tags: Sequence[str] = (),
) -> Sink:
    """Opens a W&B run and returns the sink that feeds it.

    Every record is logged with `step=round`. The run's id is kept in the workdir, and a later call
    with the same workdir goes on with that run; rounds that the server already has are not sent
    again (a resumed run repeats them exactly). Offline runs never touch the network and lie in
    `workdir/wandb` for `wandb sync`; the parts of a resumed one join with `wandb sync --append`.

    Args:
      mode: "disabled", "offline" or "online".
      project: W&B project.
      name: Display name, W&B's choice if None.
      group: Groups the runs of a study.
      config: The run's configuration.
      workdir: The run's directory; None for the current one, and no resuming.
      tags: W&B tags.

    Raises:
      ValueError: an unknown mode.
      ImportError: wandb is not installed.

    Example:
      >>> sink = recording.wandb_sink("disabled")  # or "offline", "online"
      >>> sink.write({"round": 1, "train/loss": 0.5})
      >>> sink.close(True)
    """
    checked("mode", mode, Field("disabled", str, MODES))
    if mode == "disabled":
        return Sink(lambda record: None, lambda summary: None, lambda succeeded: None)
    with optional.needed("wandb"):
        import wandb

    run = wandb.init(
        mode=mode,
        project=project,
        name=name,
        group=group,
        tags=list(tags),
        config=jsonio.plain(config or {}),
        dir=None if workdir is None else str(workdir),
        id=_run_id(workdir),
        resume="allow" if mode == "online" else None,
        # The console stays the program's own: captured, a progress bar fills the log.
        settings=wandb.Settings(silent=mode == "offline", console="off", save_code=False),
    )

    def write(record: Mapping[str, Any]) -> None:
        if record["round"] >= run.step:
            run.log(dict(record), step=record["round"])

    def close(succeeded: bool) -> None:
        run.finish(exit_code=0 if succeeded else 1)

    return Sink(write, lambda summary: run.summary.update(jsonio.plain(summary)), close)


def _run_id(workdir: str | Path | None) -> str | None:
    """Returns the id kept in the workdir, a fresh one the first time."""
    if workdir is None:
        return None
    path = Path(workdir) / _RUN_ID
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(secrets.token_hex(4).encode())
    return path.read_text().strip()

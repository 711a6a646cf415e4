"""Tries layouts until one fits, on half as many lanes each time."""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fljax.core.files import atomic_file
from fljax.engine.devices.distributed import allgather, is_main, num_processes
from fljax.engine.devices.memory import DoesNotFit
from fljax.training.execution import JobLayout

T = TypeVar("T")
# In a workdir: on how many lanes processes that start together again go on.
NARROWER = "narrower.json"


def narrowing(use: Callable[[JobLayout | None], T], wave: int = 0) -> T:
    """Returns what is made of the first layout that fits.

    Args:
      use: (layout) -> what is made of it; None is the layout by rule. It raises DoesNotFit.
      wave: The slots of a wave that somebody asked for; 0 leaves them to the rule.

    Raises:
      DoesNotFit: If not even one lane fits.
    """
    layout = None
    while True:
        try:
            return use(layout)
        except DoesNotFit as error:
            layout = narrower(error, wave)
            warnings.warn(
                f"{error.execution.lanes} lanes do not fit into the memory of a device: "
                f"{error.reason} Going on with {layout.lanes}.",
                stacklevel=2,
            )
        # what has run stands in cycles, and holds arrays on the devices until they are found
        gc.collect()


def narrower(error: DoesNotFit, wave: int = 0) -> JobLayout:
    """Returns a layout of half the lanes of one that does not fit; raises the error at one lane."""
    execution = error.execution
    if execution.lanes == 1:
        raise error
    placement, forms = execution.placement, execution.forms
    return JobLayout(execution.devices, execution.lanes // 2, wave, placement, forms=forms)


def narrowing_at_restart(
    use: Callable[[JobLayout | None], T], workdir: Path | None, wave: int = 0
) -> T:
    """Returns what several processes make of the layout that they have, or had to start again for.

    Where one of them runs out of memory in a computation of all, the others wait for its part and
    cannot be told. So it notes in the workdir on how many lanes to go on, says so, and ends; all of
    them read that when they start again.

    Args:
      use, wave: As for `narrowing`.
      workdir: Of the run, which all processes share; None remembers nothing.

    Raises:
      DoesNotFit: If the devices of this process run out of memory.
    """
    path = None if workdir is None else workdir / NARROWER
    noted = json.loads(path.read_text()) if path and is_main() and path.exists() else None
    noted = allgather(noted)[0]
    try:
        made = use(noted and JobLayout(noted["devices"], noted["lanes"], wave))
    except DoesNotFit as error:
        devices, lanes, *_ = narrower(error)
        remedy = f"The other processes wait in vain for this one. Start all {num_processes()} again"
        if path is None:
            remedy += f", with lanes = {lanes}."
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            # the checksums beside it are process 0's
            with atomic_file(path) as file:
                file.write(json.dumps({"devices": devices, "lanes": lanes}).encode())
            remedy += (
                f": they go on with {lanes} lanes, from the last checkpoint if there is one, as "
                f"{path} tells them."
            )
        raise DoesNotFit(error.execution, error.reason, remedy) from error
    if path and is_main():
        path.unlink(missing_ok=True)
    return made

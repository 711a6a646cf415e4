"""The key of a run's fastest layout, and the file that remembers the layout."""

from __future__ import annotations

import collections
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fljax.core.per_client import described
from fljax.engine.devices.execution import Forms
from fljax.recording import versions
from fljax.training.blueprint import Blueprint
from fljax.training.execution import JobLayout
from fljax.training.flops import jaxprs
from fljax.training.rehearsal import rehearse
from fljax_kernels.forms import left_open

PyTree = Any


def layout_facts(blueprint: Blueprint) -> dict[str, Any]:
    """Returns what the fastest layout depends on besides the machine, as JSON values."""
    options, model, steps = blueprint.options, blueprint.model, blueprint.steps
    pipeline = blueprint.pipeline
    chains = (pipeline.downlink, pipeline.uplink, pipeline.cohort, pipeline.server)
    key = jax.random.key(0)

    def loss(variables, batch, key):
        # the backward pass follows from it, and takes twice as long to trace
        return blueprint.local_task.loss(*variables, batch, key, True)

    # what a job costs beside its steps: the way from the server, through all passes, and back
    way = partial(rehearse, blueprint.algorithm, pipeline=pipeline)
    with left_open() as open_forms:
        of_loss = operations(loss, model, blueprint.batch, key)
    return {
        "model": _shapes(blueprint.initial.variables),
        "example": _shapes(blueprint.split.examples.spec),
        "algorithm": blueprint.spec.name,
        "operations": [of_loss, operations(way, model, key)],
        "left_open": sorted(open_forms),
        "work": [described(value) for value in blueprint.work],
        "steps": [float(steps.mean()), float(steps.std()), int(steps.max())],
        "clients_per_round": options.clients_per_round,
        "trials": len(blueprint.trials),
        "links": [*map(len, chains), pipeline.aggregator.needs],
        "options": [
            options.compute_dtype,
            options.devices,
            options.placement,
            options.fused_updates,
        ],
        "precision": str(jax.config.jax_default_matmul_precision),
        "versions": versions(),
    }


def _shapes(tree: PyTree) -> list[list]:
    return [
        [jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def operations(function: Callable, *args: PyTree) -> str:
    """Returns a checksum of the operations that a function consists of, and of their shapes.

    It is the same in every process; order and constants do not enter.

    Args:
      function: What is traced; nothing of it is compiled or run.
      *args: Its arguments; shapes will do.
    """
    found: collections.Counter[str] = collections.Counter()
    unread = [jax.make_jaxpr(function)(*args).jaxpr]
    while unread:
        for equation in unread.pop().eqns:
            values = [*equation.invars, *equation.outvars]
            shapes = ", ".join(value.aval.str_short() for value in values)
            found[f"{equation.primitive.name} {shapes}"] += 1
            unread += [inner for value in equation.params.values() for inner in jaxprs(value)]
    text = "\n".join(f"{count} {line}" for line, count in sorted(found.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Remembered(NamedTuple):
    """A layout as the file holds it, a list of numbers and names.

    Attributes:
      devices, lanes, wave: The layout.
      round_us: Microseconds of a round under it.
      allowed_ms: Milliseconds that the search was allowed and that ended it early; a run that
        allows more searches again. 0 where it came to its end.
      conv, lstm, fused_updates: The forms of operations; files of before have none.
    """

    devices: int
    lanes: int
    wave: int
    round_us: int
    allowed_ms: int
    conv: str = "auto"
    lstm: str = "auto"
    fused_updates: bool = False

    @property
    def layout(self) -> JobLayout:
        """The layout, forms included."""
        forms = Forms(self.conv, self.lstm, self.fused_updates)
        return JobLayout(self.devices, self.lanes, self.wave, forms=forms)

    def serves(self, allowed: Callable[[float], float]) -> bool:
        """Returns whether a run would have searched no further.

        Args:
          allowed: (seconds of a round) -> seconds that its search may take.
        """
        wanted = round(1e3 * allowed(1e-6 * self.round_us))
        return not self.allowed_ms or wanted <= self.allowed_ms


_KINDS = [int] * 5 + [str, str, bool]


def key_of(facts: Mapping[str, Any]) -> str:
    """Returns under what a layout is remembered: facts and machine."""
    device = jax.devices()[0]
    facts = {
        **facts,
        "device": [device.platform, device.device_kind, jax.device_count()],
        "cores": os.cpu_count(),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recall(memory: Path | None, key: str) -> Remembered | None:
    """Returns the layout that a file remembers, or None."""
    found = _read(memory).get(key)
    if not isinstance(found, list) or [*map(type, found)] not in (_KINDS, _KINDS[:5]):
        return None
    known = Remembered(*found)
    return known if min(known[:4]) >= 1 and known.allowed_ms >= 0 else None


def remember(memory: Path | None, key: str, layout: Remembered) -> None:
    """Adds a layout to a file; of several processes, the first one does."""
    if memory is None or jax.process_index():
        return
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        # replaced in one step: other runs may read it at the same time
        fresh = memory.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(_read(memory) | {key: layout}, indent=1))
        fresh.replace(memory)
    except OSError:
        return  # the next run calibrates again


def narrow(memory: Path | None, key: str, lanes: int) -> None:
    """Lets a file remember fewer lanes, where it remembers more than fit."""
    known = recall(memory, key)
    if known is not None and known.lanes > lanes:
        remember(memory, key, known._replace(lanes=lanes, wave=min(known.wave, lanes)))


def _read(memory: Path | None) -> dict[str, Any]:
    """Returns what a file of layouts holds; an unreadable one costs a calibration, not the run."""
    try:
        known = json.loads(memory.read_text()) if memory and memory.exists() else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}

"""Writes the card of a model: what it is, what it was trained on, and what nobody has said of it.

Only what the files of a run hold is written; what they do not hold is named as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fljax.core.metrics import name_of, unit_of
from fljax.recording.page import Block, Heading, Table, Text
from fljax.recording.runs import Run
from fljax.reports.headline import in_bytes, settings_line
from fljax.reports.layout import Charts
from fljax.reports.subjects import Subject
from fljax.training.privacy_records import EPSILON

_NOT_STATED = "not stated: the files of a run hold nothing of it"


def card_blocks(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns the card of the model of a single run; nothing of several, which have several."""
    if len(subjects) > 1 or len(subjects[0].runs) > 1:
        return []
    run, came_to = subjects[0].run, subjects[0].outcomes[0]
    rows = [[name, text] for name, text in _facts(run, came_to) if text]
    return [
        Heading("Model card"),
        Table([["", ""], *rows], facts=True),
        Text(
            "*Limits*: the model was trained and judged in a simulation; its figures are of the "
            "rows named above, and say nothing of other people, places or times. Before it is "
            "used, judge it on data of that use, group by group."
        ),
    ]


def _facts(run: Run, came_to: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (what, text); an empty text where that does not concern the run."""
    config = run.config
    options = config.get("model_options") or {}
    arguments = ", ".join(f"{name}={value}" for name, value in options.items())
    model = config.get("model")
    held = config.get("held_out_fraction") or config.get("held_out_folds")
    return [
        ("model", f"`{model}({arguments})`" if model else "given in Python"),
        ("parameters", _size(run)),
        ("training", settings_line(config) or _NOT_STATED),
        ("data", f"`{config['dataset']}`" if config.get("dataset") else _NOT_STATED),
        ("licence of the data", _NOT_STATED),
        ("judged on", _judged(run, came_to)),
        ("clients held out", f"{held}" if held else ""),
        ("privacy of clients", _privacy(run)),
        ("intended use", _NOT_STATED),
        ("made by", _versions(run)),
    ]


def _size(run: Run) -> str:
    if run.variables is None:
        return "not there: a run writes its model when it ends"
    leaves = jax.tree.leaves(run.variables.params)
    count = sum(int(np.size(leaf)) for leaf in leaves)
    size = sum(int(np.asarray(leaf).nbytes) for leaf in leaves)
    return f"{count:,} in {len(leaves)} arrays, {in_bytes(size)}"


def _judged(run: Run, came_to: Mapping[str, Any]) -> str:
    """Returns the metrics at the chosen round, those of test rows if there are any."""
    chosen = came_to["best"] or came_to["final"] or {}
    keys = [key for key in chosen if key.startswith("eval/test/")]
    keys = keys or [key for key in chosen if key.startswith("eval/") and key.count("/") == 2]
    first = run.metrics[0].name
    keys.sort(key=lambda key: (not key.endswith(f"/{first}"), not key.endswith("/loss"), key))
    texts = []
    for key in keys[:4]:
        (factor, unit), value = unit_of(key, run.metrics), "not finite"
        if chosen[key] is not None:
            value = f"{factor * chosen[key]:.4g} {unit[2:-1]}".rstrip()
        texts.append(f"{name_of(key, run.metrics)} {value}")
    return "; ".join(texts) + f" (round {chosen['round']})" if texts else "nothing was evaluated"


def _privacy(run: Run) -> str:
    if EPSILON not in run.curves:
        return "none is promised: the model may tell what its training rows were"
    promise = (run.summary or {}).get("privacy")
    return f"of single {promise['unit']}s, see Privacy" if promise else "see Privacy"


def _versions(run: Run) -> str:
    versions = (run.summary or run.config).get("versions") or {}
    return f"fljax {versions['fljax']}" if "fljax" in versions else _NOT_STATED

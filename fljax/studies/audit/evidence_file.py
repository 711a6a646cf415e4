"""Writes and reads what attackers of membership have in hand, so that an audit may go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fljax.recording.jsonio import plain
from fljax.recording.npz import load_arrays, write_arrays
from fljax.studies.audit.evidence import Evidence

_ABOUT, _PARTS = "about", ("signals", "population")


def save_evidence(path: Path, evidence: Evidence, question: str) -> None:
    """Writes evidence, and which question it is for.

    Args:
      path: The file; its directory is created if absent.
      evidence: What attackers have.
      question: Compared when it is read.
    """
    about = {
        "question": question,
        "skipped": evidence.skipped,
        "privacy": plain(evidence.privacy),
        "views": {part: list(getattr(evidence, part)) for part in _PARTS},
    }
    arrays = {
        f"{part}/{view}/{name}": values
        for part in _PARTS
        for view, named in getattr(evidence, part).items()
        for name, values in named.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, {_ABOUT: np.array(json.dumps(about)), **arrays})


def load_evidence(path: Path, question: str) -> Evidence | None:
    """Returns evidence; None where there is none, or it is for another question.

    Raises:
      ValueError: If the file is damaged.
    """
    arrays = load_arrays(path)
    if arrays is None:
        return None
    about = json.loads(str(arrays.pop(_ABOUT)))
    if about["question"] != question:
        return None
    parts: dict[str, dict] = {part: {view: {} for view in about["views"][part]} for part in _PARTS}
    for key, values in arrays.items():
        part, view, name = key.split("/")
        parts[part][view][name] = values
    return Evidence(**parts, skipped=about["skipped"], privacy=about["privacy"])

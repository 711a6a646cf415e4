"""Stands for the aggregator of a run whose pipeline holds it already."""

from __future__ import annotations

from typing import NamedTuple


class Drawn(NamedTuple):
    """The aggregator that a pipeline was given.

    Attributes:
      text: As it was written; None of one that is no text.
    """

    text: str | None

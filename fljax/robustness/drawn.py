"""Stands for the aggregator of a run whose pipeline holds it already."""

from __future__ import annotations

from typing import Any, NamedTuple


class Drawn(NamedTuple):
    """The aggregator that a pipeline was given.

    Attributes:
      text: As it was written; None of one that is no text.
      clean: The data set before hostile clients put rows of their own there; None where they put
        none.
    """

    text: str | None
    clean: Any = None

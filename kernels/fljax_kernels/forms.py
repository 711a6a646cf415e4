"""The forms that "auto" stands for while a program is traced.

An operation with several forms computes the same function in each of them. Where a model leaves the
choice open ("auto"), the backend's rule chooses, unless whoever traces the program knows better,
such as from timings on this card.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_chosen: ContextVar[dict[str, str]] = ContextVar("chosen", default={})  # noqa: B039, nobody writes
_left_open: ContextVar[set[str] | None] = ContextVar("left_open", default=None)


@contextlib.contextmanager
def choosing(**forms: str) -> Iterator[None]:
    """Lets "auto" stand for other forms within a block that traces.

    Args:
      **forms: {operation: form}, such as conv="pallas"; "auto" leaves it to the backend. With
        stored="plain", arrays are not written to memory: for who reads equations.

    Example:
      >>> with choosing(conv="gemm"):
      ...     form_of("conv", "auto"), form_of("conv", "grouped"), form_of("lstm", "auto")
      ('gemm', 'grouped', 'auto')
    """
    before = _chosen.set(_chosen.get() | forms)
    try:
        yield
    finally:
        _chosen.reset(before)


@contextlib.contextmanager
def left_open() -> Iterator[set[str]]:
    """Finds the operations whose form is left open by what is traced within a block.

    Example:
      >>> with left_open() as operations:
      ...     form_of("conv", "auto"), form_of("lstm", "scan")
      ('auto', 'scan')
      >>> operations
      {'conv'}
    """
    operations: set[str] = set()
    before = _left_open.set(operations)
    try:
        yield operations
    finally:
        _left_open.reset(before)


def form_of(operation: str, form: str) -> str:
    """Returns a form, or what "auto" stands for at the moment.

    Args:
      operation: "conv" or "lstm".
      form: What the model asks for.
    """
    if form != "auto":
        return form
    operations = _left_open.get()
    if operations is not None:
        operations.add(operation)
    return chosen(operation)


def chosen(operation: str) -> str:
    """Returns what a block around chooses for an operation, "auto" where none does.

    Example:
      >>> with choosing(conv="gemm"):
      ...     chosen("conv"), chosen("lstm")
      ('gemm', 'auto')
    """
    return _chosen.get().get(operation, "auto")

"""Ctrl-C, SIGTERM and SIGHUP: the first one lets a run finish its round, the second ends at once.

A signal is taken over only where it would end the process: handlers of the caller's own, and
signals that are ignored (`nohup`), stay as they are. What a signal did before, a second one does
again: KeyboardInterrupt for Ctrl-C in a program of one's own, for the others the process's end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

# A terminal's Ctrl-C, a scheduler's notice, a terminal that is gone; not every system has all.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_received: int | None = None


def exit_code() -> int:
    """Returns what a stopped command ends with: 128 and the signal's number, 130 for Ctrl-C."""
    return 128 + (_received or signal.SIGINT)


def stop_at_once(number: int, frame: Any) -> None:
    """Ends the process with a line; a handler for commands, of which nothing is to be unwound.

    An exception could come up anywhere, such as in a library's callback, and be a traceback.
    """
    line = "Stopped at once. What was saved until now stays.\n"
    with contextlib.suppress(OSError):
        os.write(2, ("\n" + line if os.isatty(2) else line).encode())
    os._exit(128 + number)


def unwind(number: int, frame: Any) -> None:
    """Raises KeyboardInterrupt; a handler for commands that end processes of theirs first."""
    global _received
    _received = number
    raise KeyboardInterrupt


_REPLACED = (signal.SIG_DFL, signal.default_int_handler, stop_at_once, unwind)


def install(handler: Any) -> None:
    """Gives the signals a handler, where nobody else has."""
    for number in _free():
        signal.signal(number, handler)


@contextlib.contextmanager
def finishing(loop: Any) -> Iterator[None]:
    """Lets the first signal set `loop.stop_requested`; a second one does what it did before.

    In other threads than the main one, which Python gives no signals, nothing happens.
    """
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received = None
    before = _free()

    def request_stop(number, frame):
        global _received
        if loop.stop_requested:
            signal.signal(number, before[number])
            if callable(before[number]):
                before[number](number, frame)
            signal.raise_signal(number)
        _received = number
        loop.stop_requested = True

    for number in before:
        signal.signal(number, request_stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def received() -> int | None:
    """Returns the signal that the last run was asked to stop by, or None."""
    return _received if threading.current_thread() is threading.main_thread() else None


def conclude(saved: str) -> None:
    """Ends the program that SIGTERM or SIGHUP was meant for, now that its run is saved.

    Commands of ours end by themselves, with the same exit code; after Ctrl-C the caller goes on.

    Args:
      saved: What the run came to, for people.

    Raises:
      SystemExit: With 143 or 129.
    """
    number = received()
    if number in (None, signal.SIGINT) or signal.getsignal(number) is not signal.SIG_DFL:
        return
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"{signal.Signals(number).name}: {saved}\n")
    raise SystemExit(exit_code())


def _free() -> dict[int, Any]:
    """Returns {signal: its handler} of those that nobody else handles or ignores."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: handler for number, handler in handlers.items() if handler in _REPLACED}

"""The frame of all commands and scripts: whatever happens ends in one line and an exit code.

They call `begin` before they import anything else. From then on Ctrl-C, SIGTERM and SIGHUP end them
with a line, also while they import, load and compile; and output that was closed (`2>&-`,
`| head -1`) ends nothing: a closed descriptor would be given to the next file that is opened, and
what libraries print would be written there.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from fljax.core import signals

_READER_IS_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
_unwritten: list[OSError] = []


def begin() -> None:
    """Begins a command: its signals, its output, and what libraries may say in it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free one, which is this
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, lives as long as the process
    signals.install(signals.stop_at_once)
    # what a library's tasks failed over is raised where it matters
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


def show(text: str) -> None:
    """Prints what a command has found; that a reader has left changes nothing."""
    try:
        print(text, flush=True)
    except OSError as error:
        _give_up(sys.stdout)
        if error.errno not in _READER_IS_GONE:
            _unwritten.append(error)


def execute(
    main: Callable[[Sequence[str]], Any],
    *,
    prepare: Callable[[], list[str]] = lambda: sys.argv,
    required: Sequence[str] = (),
    arguments: bool = False,
    starts_processes: bool = False,
) -> None:
    """Runs a main under absl, and exits.

    Args:
      main: (arguments) -> exit code or text of an error, None for success. The arguments are those
        that are no flags, behind the name of the program.
      prepare: () -> the program and its arguments. It defines the flags that are not defined yet.
      required: Names of flags that must be given.
      arguments: Whether main takes arguments that are no flags.
      starts_processes: Whether processes of its own have to be ended before it ends.

    Raises:
      SystemExit: Always. 1 after an error, 128 and the number after a signal.
    """
    from subprocess import SubprocessError

    from absl import app, flags
    from absl import logging as absl_logging

    # libraries tell of every font and device; absl's own default is to show it
    flags.FLAGS.verbosity = absl_logging.WARNING
    if starts_processes:
        signals.install(signals.unwind)
    try:
        argv = prepare()
        overrides = "config_help" in flags.FLAGS
        if overrides and "--config_help" in argv:
            from fljax.config.reference import help_text

            show(help_text())
            leave(0)
        for flag in own_flags():  # else --help lists those of the script's own file alone
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
        if required:
            flags.mark_flags_as_required(required)
        if overrides:
            from fljax.config import check_overrides

            check_overrides(argv)
        code = _code_of(lambda: app.run(_checked(main, arguments), argv, _parsed))
    except (FloatingPointError, ImportError, OSError, SubprocessError, ValueError) as error:
        names = (kind.__name__ for kind in type(error).__mro__)
        code = f"{next(name for name in names if not name.startswith('_'))}: {error}"
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        code = signals.exit_code()
    leave(code)


def leave(code: Any) -> NoReturn:
    """Ends the process with an exit code, or with 1 and the text of an error."""
    sys.exit(_settled(code))


def note(text: str) -> None:
    """Tells people something beside what a command has found."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def command_line() -> list[str]:
    """Returns what the process was started with, as a person would type it again."""
    program, *arguments = sys.argv
    ours = os.path.basename(program) in ("fljax", "__main__.py")
    return ["fljax", *arguments] if ours else ["python", program, *arguments]


def own_flags() -> list[Any]:
    """Returns the flags that modules of fljax have defined, by name."""
    from absl import flags

    defined = flags.FLAGS.flags_by_module_dict().items()
    found = {
        flag.name: flag for module, own in defined if module.startswith("fljax.") for flag in own
    }
    return [found[name] for name in sorted(found)]


def _parsed(argv: list[str]) -> list[str]:
    """Reads the flags among arguments; returns the others."""
    from absl import flags

    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        leave(f"{error}\nThe flag --help tells more.")


def _checked(main, arguments):
    """Returns main, whose errors of usage end in a line, and which gets no argument unasked."""
    from absl import app

    def checked(argv):
        if len(argv) > 1 and not arguments:
            return f"Unexpected arguments: {argv[1:]}. The flag --help tells more."
        try:
            return main(argv)
        except app.UsageError as error:
            return f"{error} The flag --help tells more."

    return checked


def _code_of(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except SystemExit as leaving:
        return leaving.code


def _settled(code: Any) -> int:
    """Returns the exit code, after what was to be printed is printed or given up."""
    if not isinstance(code, int | None):
        with contextlib.suppress(OSError):
            print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            _give_up(stream)
            if stream is sys.stdout and error.errno not in _READER_IS_GONE:
                _unwritten.append(error)
    for error in _unwritten:
        with contextlib.suppress(OSError):
            print(f"Standard output cannot be written: {error.strerror}", file=sys.stderr)
    return code or int(bool(_unwritten))


def _give_up(stream: Any) -> None:
    """Lets a stream end nowhere, so that Python does not fail over it at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()

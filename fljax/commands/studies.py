"""The command line of studies: their flags, and a study from its flags to what is printed of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from fljax import commands
from fljax.config.command_line import config_file, config_given, define_config
from fljax.core import signals

_FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags that all studies have."""
    define_config()
    flags.DEFINE_string("workdir", None, "Directory for everything the study leaves behind.")
    flags.DEFINE_multi_string("axis", [], "NAME=VALUE,VALUE,...; replaces the file's axes.")
    flags.DEFINE_integer("seeds", None, "Number of seeds, from 0.", lower_bound=1)
    flags.DEFINE_integer("parallel_trials", None, "Most trials side by side; 0: all that fit.")
    flags.DEFINE_float("memory_gb", None, "Bound of the memory, in 10^9 bytes.")
    flags.DEFINE_string("share", None, "RANK/COUNT of this process; by default as launched.")
    flags.mark_flags_as_required(["config", "workdir"])


def run(resume: bool, variants: list[str] = ()) -> int:
    """Runs the study of the config file, as flags change it, and prints what was found.

    Args:
      resume: Whether a study of the workdir is gone on with.
      variants: Texts of variants, which take the place of the file's.

    Returns:
      The exit code.
    """
    import fljax
    from fljax import studies
    from fljax.core.files import check_kind
    from fljax.reports.report import REPORT, write_report

    fljax.use_all_cores()
    settings = studies.load_study(config_file(), needed=not (variants or _FLAGS.axis))
    settings |= _given(settings, variants)
    check_kind(Path(_FLAGS.workdir, REPORT))  # a study is not to fail over its page
    share = None if _FLAGS.share is None else studies.parse_share(_FLAGS.share)
    found = fljax.sweep(config_given(), _FLAGS.workdir, resume=resume, share=share, **settings)
    commands.show(studies.report(found, commands.command_line()))
    if found.complete:
        commands.show(f"report: {write_report(found.directory)}")
    return 0 if found.summary["complete"] else signals.exit_code()


def _given(settings: dict[str, Any], variants: list[str]) -> dict[str, Any]:
    """Returns the settings that flags set."""
    from fljax import studies
    from fljax.studies.columns import columns_among

    given: dict[str, Any] = {
        "parallel_trials": _FLAGS.parallel_trials,
        "memory_gb": _FLAGS.memory_gb,
    }
    if variants:
        given["variants"] = studies.parse_variants(variants, settings.get("variants", {}))
        # the file's columns compare the file's variants, of which some may be left out
        given["columns"] = columns_among(settings.get("columns", ()), given["variants"])
    if _FLAGS.axis:
        given["axes"] = studies.parse_axes(_FLAGS.axis)
    if _FLAGS.seeds is not None:
        given["seeds"] = tuple(range(_FLAGS.seeds))
    return {name: value for name, value in given.items() if value is not None}

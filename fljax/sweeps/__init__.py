"""Hyperparameter sweeps: search spaces, searches, and trials that share one program."""

from fljax.sweeps.report import report
from fljax.sweeps.search import Report, Search, given, successive_halving
from fljax.sweeps.selection import Criterion
from fljax.sweeps.settings import Settings
from fljax.sweeps.settings_file import load_settings, parse_axes
from fljax.sweeps.share import Share, parse_share
from fljax.sweeps.space import choice, grid, log_uniform, sample, uniform
from fljax.sweeps.sweep import Sweep, sweep
from fljax.sweeps.trials import Trial, repeat

__all__ = [
    "Criterion",
    "Report",
    "Search",
    "Settings",
    "Share",
    "Sweep",
    "Trial",
    "choice",
    "given",
    "grid",
    "load_settings",
    "log_uniform",
    "parse_axes",
    "parse_share",
    "repeat",
    "report",
    "sample",
    "successive_halving",
    "sweep",
    "uniform",
]

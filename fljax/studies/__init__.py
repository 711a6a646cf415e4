"""Studies of many runs: sweeps, whose trials share one program, and ladders of compressors."""

from fljax.studies.closing import report
from fljax.studies.ladder import Rung, load_ladder, parse_rung
from fljax.studies.runner import run_ladder
from fljax.studies.search import Report, Search, given, successive_halving
from fljax.studies.selection import Criterion
from fljax.studies.settings import Settings
from fljax.studies.settings_file import load_settings, parse_axes
from fljax.studies.share import Share, parse_share
from fljax.studies.space import choice, grid, log_uniform, sample, uniform
from fljax.studies.sweep import Sweep, sweep
from fljax.studies.tradeoff import tradeoff
from fljax.studies.trials import Trial, repeat

__all__ = [
    "Criterion",
    "Report",
    "Rung",
    "Search",
    "Settings",
    "Share",
    "Sweep",
    "Trial",
    "choice",
    "given",
    "grid",
    "load_ladder",
    "load_settings",
    "log_uniform",
    "parse_axes",
    "parse_rung",
    "parse_share",
    "repeat",
    "report",
    "run_ladder",
    "sample",
    "successive_halving",
    "sweep",
    "tradeoff",
    "uniform",
]

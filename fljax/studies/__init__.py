"""Studies: many runs of one configuration, searched, compared over seeds, and reported."""

from fljax.studies.criterion import Criterion
from fljax.studies.journal import Share, parse_share
from fljax.studies.launch import StudyRun, sweep
from fljax.studies.loading import load_study_run
from fljax.studies.search import Search, TrialScore, given, successive_halving
from fljax.studies.space import Trial, choice, grid, log_uniform, repeat, sample, uniform
from fljax.studies.study import Study, load_study, parse_axes, parse_variants
from fljax.studies.study_report import report, write_report

__all__ = [
    "Criterion",
    "TrialScore",
    "Search",
    "Share",
    "Study",
    "StudyRun",
    "Trial",
    "choice",
    "given",
    "grid",
    "load_study",
    "load_study_run",
    "log_uniform",
    "parse_axes",
    "parse_share",
    "parse_variants",
    "repeat",
    "report",
    "sample",
    "successive_halving",
    "sweep",
    "uniform",
    "write_report",
]

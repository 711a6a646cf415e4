"""Studies of many runs: a ladder of compressors on one task, its table, picture and report."""

from fljax.studies.ladder import Rung, load_ladder, parse_rung
from fljax.studies.runner import run_ladder
from fljax.studies.tradeoff import tradeoff

__all__ = ["Rung", "load_ladder", "parse_rung", "run_ladder", "tradeoff"]

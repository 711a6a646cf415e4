"""Hyperparameter sweeps: search spaces, searches over trials, and what they found."""

from fljax.sweep.search import Report, Search, given, successive_halving
from fljax.sweep.space import choice, grid, log_uniform, sample, uniform
from fljax.sweep.trials import Trial, repeat

__all__ = [
    "Report",
    "Search",
    "Trial",
    "choice",
    "given",
    "grid",
    "log_uniform",
    "repeat",
    "sample",
    "successive_halving",
    "uniform",
]

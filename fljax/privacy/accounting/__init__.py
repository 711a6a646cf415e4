"""Accountants: what a run of private releases costs, by Rényi divergences and by privacy losses.

epsilon([(poisson_gaussian(noise_multiplier=1.0, sampling_rate=0.1), 200)], delta=1e-3)
"""

from fljax.privacy.accounting.calibration import calibrate, last_kept, rounds_within, smallest_noise
from fljax.privacy.accounting.checks import check_delta
from fljax.privacy.accounting.composition import ACCOUNTANTS, epsilon, epsilons, spending
from fljax.privacy.accounting.conversion import epsilon_of_gaussian, noise_of_zcdp
from fljax.privacy.accounting.discrete import discrete_gaussian, rounded_norms, skellam
from fljax.privacy.accounting.events import (
    Event,
    gaussian,
    laplace,
    poisson_gaussian,
    pure,
    sampled,
    without_replacement,
    zcdp,
)

__all__ = [
    "ACCOUNTANTS",
    "Event",
    "calibrate",
    "check_delta",
    "discrete_gaussian",
    "epsilon",
    "epsilon_of_gaussian",
    "epsilons",
    "gaussian",
    "laplace",
    "noise_of_zcdp",
    "poisson_gaussian",
    "pure",
    "rounded_norms",
    "last_kept",
    "rounds_within",
    "smallest_noise",
    "sampled",
    "skellam",
    "spending",
    "without_replacement",
    "zcdp",
]

"""Privacy: mechanisms inside the round program, their accountants, and secure aggregation.

simulate(dataset, model, "fedavg", privacy=gaussian(0.3, noise_multiplier=2.0), ...)
"""

from fljax.privacy.adaptive import adaptive_clipping
from fljax.privacy.banded import banded_matrix
from fljax.privacy.dpsgd import dpsgd
from fljax.privacy.gaussian import gaussian
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting
from fljax.privacy.trees import tree_aggregation

__all__ = [
    "Guarantee",
    "Mechanism",
    "Setting",
    "adaptive_clipping",
    "banded_matrix",
    "dpsgd",
    "gaussian",
    "tree_aggregation",
]

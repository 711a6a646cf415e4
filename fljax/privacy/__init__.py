"""Privacy: mechanisms inside the round program, their accountants, and secure aggregation.

simulate(dataset, model, "fedavg", privacy=gaussian(0.3, noise_multiplier=2.0), ...)
"""

from fljax.privacy.adaptive import adaptive_clipping
from fljax.privacy.banded import banded_matrix
from fljax.privacy.distributed import discrete_gaussian, skellam
from fljax.privacy.dpsgd import dpsgd
from fljax.privacy.gaussian import gaussian
from fljax.privacy.local import local_gaussian
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting
from fljax.privacy.privunit import privunit
from fljax.privacy.randomized_sign import randomized_sign
from fljax.privacy.secagg.degrees import MaskingGraph, masking_graph
from fljax.privacy.secagg.fixed_point import fixed_point, rounded_norm
from fljax.privacy.secagg.link import masks, secure_aggregation
from fljax.privacy.trees import tree_aggregation

__all__ = [
    "Guarantee",
    "MaskingGraph",
    "Mechanism",
    "Setting",
    "adaptive_clipping",
    "banded_matrix",
    "discrete_gaussian",
    "dpsgd",
    "fixed_point",
    "gaussian",
    "local_gaussian",
    "masking_graph",
    "masks",
    "privunit",
    "randomized_sign",
    "rounded_norm",
    "secure_aggregation",
    "skellam",
    "tree_aggregation",
]

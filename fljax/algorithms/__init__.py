"""Federated algorithms, one file each."""

from fljax.algorithms.centralized import centralized
from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.fedprox import fedprox
from fljax.algorithms.fedsgd import fedsgd
from fljax.algorithms.local_only import local_only
from fljax.algorithms.scaffold import scaffold
from fljax.algorithms.server_optimizers import SERVER_OPTIMIZERS, fedopt

__all__ = [
    "SERVER_OPTIMIZERS",
    "centralized",
    "fedavg",
    "fedopt",
    "fedprox",
    "fedsgd",
    "local_only",
    "scaffold",
]

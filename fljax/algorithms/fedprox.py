"""FedProx: FedAvg whose clients are pulled back to the broadcast model.

Li et al. 2020, "Federated optimization in heterogeneous networks" (arXiv:1812.06127).
"""

from __future__ import annotations

from fljax.algorithms.fedavg import fedavg
from fljax.core.algorithm import AlgorithmSpec


def fedprox(
    mu: float = 0.01, client_lr: float = 0.1, server_lr: float = 1.0, **options
) -> AlgorithmSpec:
    """Returns FedAvg with mu/2 |w - w_server|^2 added to the clients' loss; options as `fedavg`."""
    options.setdefault("name", "fedprox")
    return fedavg(client_lr, server_lr, mu=mu, **options)

"""FedProx: FedAvg whose clients are pulled back to the broadcast model.

Li et al. 2020, "Federated optimization in heterogeneous networks" (arXiv:1812.06127).
"""

from __future__ import annotations

from fljax.algorithms.fedavg import fedavg
from fljax.core.algorithm import AlgorithmSpec


def fedprox(
    mu: float = 0.01,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedAvg with mu/2 |w - w_server|^2 added to the clients' loss.

    Args:
      mu: Proximal coefficient. The paper tunes it among 0.001, 0.01, 0.1 and 1; 0 is FedAvg.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Example:
      >>> algorithms.fedprox(mu=0.1, client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'mu': 0.1}
    """
    options.setdefault("name", "fedprox")
    return fedavg(client_lr, server_lr, mu=mu, weighting=weighting, **options)

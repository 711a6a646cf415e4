"""FedPer: clients share the base of the model, and each keeps a head of its own.

Arivazhagan et al. 2019, "Federated learning with personalization layers" (arXiv:1912.00818).
Clients train both together; w is the base, h_i the head of client i:

    clients   (w, h_i) <- (w, h_i) - lr g(w, h_i)         server   w <- mean w_i
    judged    (w, h_i)
"""

from __future__ import annotations

from fljax.algorithms.partly_personal import Tuning, partly_personal
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.personal import Filter


def fedper(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    personal: Filter = "head",
    finetune: Filter | None = None,
    finetune_epochs: int = 0,
    finetune_lr: float | None = None,
    finetune_batch_size: int = 20,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedPer.

    Args:
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      personal: What stays with clients, as in `fljax.core.personal`.
      finetune: What is trained further where a client's model is judged; None is `personal`.
      finetune_epochs: How often it then reads each of its client's rows; 0 for not at all.
      finetune_lr: Its learning rate; None is `client_lr`.
      finetune_batch_size: Its rows of a step; 0 takes all at once.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Example:
      >>> algorithms.fedper(client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0}
    """
    options["weighting"] = weighting
    tuning = Tuning(finetune, finetune_epochs, finetune_lr, finetune_batch_size)
    return partly_personal("fedper", personal, tuning, client_lr, server_lr, options)

"""LG-FedAvg: each client keeps a representation of its own, and clients share the head.

Liang et al. 2020, "Think locally, act globally" (arXiv:2001.01523), the mirror image of FedPer:

    clients   (w_i, h) <- (w_i, h) - lr g(w_i, h)         server   h <- mean h_i
    judged    (w_i, h)

The paper's experiments start from a model that FedAvg has trained: give it as `initial_params`.
"""

from __future__ import annotations

from fljax.algorithms.partly_personal import Tuning, partly_personal
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.personal import Filter


def lg_fedavg(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    personal: Filter = "not head",
    finetune: Filter | None = None,
    finetune_epochs: int = 0,
    finetune_lr: float | None = None,
    finetune_batch_size: int = 20,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns LG-FedAvg.

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
      >>> algorithms.lg_fedavg(client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0}
    """
    options["weighting"] = weighting
    tuning = Tuning(finetune, finetune_epochs, finetune_lr, finetune_batch_size)
    return partly_personal("lg_fedavg", personal, tuning, client_lr, server_lr, options)

"""FedBN: normalization stays with clients, for features that differ from client to client.

Li et al. 2021 (arXiv:2102.07623). Scale, bias and running statistics of normalization layers are a
client's own; all else is FedAvg:

    clients   (w, n_i) <- (w, n_i) - lr g(w, n_i)         server   w <- mean w_i
    judged    (w, n_i)

The authors' code and PFLlib know such layers by the letters "bn" in a name, and share all others;
here they are known by what they hold. PFLlib never averages statistics, whatever the algorithm.
"""

from __future__ import annotations

from fljax.algorithms.partly_personal import Tuning, partly_personal
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.personal import Filter


def fedbn(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    personal: Filter = "norm",
    finetune: Filter | None = None,
    finetune_epochs: int = 0,
    finetune_lr: float | None = None,
    finetune_batch_size: int = 20,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedBN.

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
      >>> algorithms.fedbn(client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0}
    """
    options["weighting"] = weighting
    tuning = Tuning(finetune, finetune_epochs, finetune_lr, finetune_batch_size)
    return partly_personal("fedbn", personal, tuning, client_lr, server_lr, options)

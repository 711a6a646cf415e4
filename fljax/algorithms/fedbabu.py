"""FedBABU: clients train and share the body alone; the head stays as it was drawn.

Oh et al. 2022, "FedBABU: towards enhanced representation for federated image classification"
(arXiv:2106.06042). The head h is the same for all and changes only where a client's model is
judged, which is fine-tuned on the client's rows:

    clients   w <- w - lr g(w; h)                         server   w <- mean w_i
    judged    (w, h), then epochs of steps on the client's own rows

PFLlib fine-tunes once, behind the last round; here every evaluation does, on a copy.
"""

from __future__ import annotations

import jax

from fljax.algorithms.partly_personal import Tuning, partly_personal
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.personal import Filter


def fedbabu(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    personal: Filter = "head",
    finetune: Filter | None = None,
    finetune_epochs: int = 5,
    finetune_lr: float | None = None,
    finetune_batch_size: int = 20,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedBABU.

    Args:
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      personal: What is not trained before, as in `fljax.core.personal`.
      finetune: What is trained further where a client's model is judged; None is all of it.
      finetune_epochs: How often it then reads each of its client's rows.
      finetune_lr: Its learning rate; None is `client_lr`.
      finetune_batch_size: Its rows of a step; 0 takes all at once.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Example:
      >>> algorithms.fedbabu(client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0}
    """
    options["weighting"] = weighting
    tuning = Tuning(finetune, finetune_epochs, finetune_lr, finetune_batch_size, "all", 5)
    return partly_personal(
        "fedbabu",
        personal,
        tuning,
        client_lr,
        server_lr,
        options,
        trained=lambda own, hp, job: jax.tree.map(lambda is_own: not is_own, own),
        keeps_own=False,
    )

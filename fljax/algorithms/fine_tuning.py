"""FedAvg whose clients train the global model further on their own rows, where it is judged.

The plainest way to a model of one's own: Wang et al. 2019, "Federated evaluation of on-device
personalization" (arXiv:1910.10252), and what Cheng et al. 2021 (arXiv:2108.07313) find hard to
beat. Training is FedAvg's:

    clients   w <- w - lr g(w)                            server   w <- mean w_i
    judged    v_i <- w, then epochs of v_i <- v_i - lr g_i(v_i) on the client's own rows
"""

from __future__ import annotations

from fljax.algorithms.partly_personal import Tuning, partly_personal
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.personal import Filter


def fine_tuning(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    personal: Filter = "none",
    finetune: Filter | None = None,
    finetune_epochs: int = 5,
    finetune_lr: float | None = None,
    finetune_batch_size: int = 20,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedAvg with fine-tuning at evaluation.

    Args:
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      personal: What stays with clients from round to round, as in `fljax.core.personal`.
      finetune: What is trained further where a client's model is judged; None is all of it.
      finetune_epochs: How often it then reads each of its client's rows.
      finetune_lr: Its learning rate; None is `client_lr`.
      finetune_batch_size: Its rows of a step; 0 takes all at once.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Example:
      >>> algorithms.fine_tuning(client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0}
    """
    options["weighting"] = weighting
    tuning = Tuning(finetune, finetune_epochs, finetune_lr, finetune_batch_size, "all", 5)
    return partly_personal("fine_tuning", personal, tuning, client_lr, server_lr, options)

"""FedRep: each client fits a head of its own to the shared representation, then improves that.

Collins et al. 2021, "Exploiting shared representations for personalized federated learning"
(arXiv:2102.07089), Algorithm 1; w is the representation, h_i the head of client i:

    clients   h_i <- h_i - lr g_h(w, h_i)     in the first steps
              w   <- w - lr g_w(w, h_i)       in the others
    server    w <- mean w_i                   judged   (w, h_i)

How local steps are divided is a share here, which holds for clients of any size. The paper's code
takes ten epochs for the head and one for the rest (local_epochs = 11, head_share = 10/11), PFLlib
one each (local_epochs = 2). Every client trains both parts, as in the paper: a share between 0 and
1 gives each of them one step at least, and a client that takes a single step moves both in it. Only
a share of 0 never trains the head (FedBABU), only a share of 1 nothing but the head.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.algorithms.partly_personal import Tuning, partly_personal
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.personal import Filter


def fedrep(
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    head_share: float = 0.5,
    personal: Filter = "head",
    finetune: Filter | None = None,
    finetune_epochs: int = 0,
    finetune_lr: float | None = None,
    finetune_batch_size: int = 20,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedRep.

    Args:
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      head_share: Share of the local steps that train what is personal; the others train the rest.
        Each part has a step at least, but for a share of 0 or 1.
      personal: What stays with clients, as in `fljax.core.personal`.
      finetune: What is trained further where a client's model is judged; None is `personal`.
      finetune_epochs: How often it then reads each of its client's rows; 0 for not at all.
      finetune_lr: Its learning rate; None is `client_lr`.
      finetune_batch_size: Its rows of a step; 0 takes all at once.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Example:
      >>> algorithms.fedrep(client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'head_share': 0.5}
    """
    options["weighting"] = weighting
    tuning = Tuning(finetune, finetune_epochs, finetune_lr, finetune_batch_size)
    return partly_personal(
        "fedrep",
        personal,
        tuning,
        client_lr,
        server_lr,
        options,
        trained=head_first,
        head_share=head_share,
    )


def head_first(own, hp, job):
    """Returns which parameters train in a step: a client's own at first, then the others."""
    share = hp["head_share"]
    first = jnp.round(job.steps * share)
    in_both = jnp.clip(first, 1, jnp.maximum(job.steps - 1, 1))
    is_divided = (share > 0) & (share < 1)
    head_ends = jnp.where(is_divided, in_both, first)
    # a single step is the head's and the others' alike
    rest_begins = jnp.where(is_divided, jnp.minimum(in_both, job.steps - 1), first)
    of_head, of_rest = job.step < head_ends, job.step >= rest_begins
    return jax.tree.map(lambda is_own: of_head if is_own else of_rest, own)

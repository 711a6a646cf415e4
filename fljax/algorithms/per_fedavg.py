"""Per-FedAvg: a global model from which one step of a client's own makes a good one.

Fallah et al. 2020, "Personalized federated learning: a meta-learning approach" (arXiv:2002.07948),
Algorithm 1. A batch is cut into D and D', and into D'' where the Hessian counts:

    clients   v <- w - inner_lr g(w; D)
              w <- w - lr g(v; D')                           first order
              w <- w - lr (g(v; D') - inner_lr h)            Hessian-free, where with g = g(v; D')
                   h = (g(w + d g; D'') - g(w - d g; D'')) / 2 d
    server    w <- w + server_lr mean(w_i - w)
    own model w - inner_lr g(w)                              on all rows of the client

So a batch costs one gradient over its rows, or 4/3 of one. A batch with fewer rows than parts
moves nothing. PFLlib adapts own models by a whole step of the meta-learner.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import LocalState, fedavg, stepped
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Job, Variables, step_key
from fljax.core.gradients import LocalTask
from fljax.core.precision import rounded, widened
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked


def per_fedavg(
    inner_lr: float = 0.01,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    hessian: str = "first_order",
    hessian_step: float | None = None,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns Per-FedAvg; `personalize` takes a step from the global model on a client's rows.

    Args:
      inner_lr: Learning rate of a client's own step, the paper's alpha.
      client_lr: Learning rate of the clients' meta-learner, the paper's beta.
      server_lr: Learning rate of the server.
      hessian: "first_order" leaves second derivatives out, Per-FedAvg (FO); "hessian_free" has them
        from a difference of gradients, Per-FedAvg (HF).
      hessian_step: How far apart their points are, the paper's delta; for "hessian_free" alone,
        where None is 0.001.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`; its client optimizer is the meta-learner's.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.per_fedavg(inner_lr=0.01, client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'inner_lr': 0.01}
    """
    checked("hessian", hessian, ALGORITHM["hessian"]._replace(optional=False))
    options.setdefault("name", "per_fedavg")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    corrects = hessian == "hessian_free"

    build_fedavg, client_optimizer = plain.build, plain.client_optimizer

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_fedavg(task, hp)
        (average,) = algorithm.passes
        optimizer = client_optimizer(hp)

        def step(message: Variables, carry: LocalState, batch, job: Job) -> LocalState:
            keys = jax.random.split(step_key(job), 3)
            first, second, *third = parts_of(batch, 3 if corrects else 2)
            gradient, _, state = task.gradient(carry.params, carry.model_state, first, keys[0])
            adapted = moved(carry.params, gradient, -hp["inner_lr"])
            gradient, sums, state = task.gradient(adapted, state, second, keys[1])
            if corrects:
                ahead, behind = (
                    task.gradient(
                        moved(carry.params, gradient, side * hp["hessian_step"]),
                        state,
                        *third,
                        keys[2],
                    )[0]
                    for side in (1, -1)
                )
                gradient = jax.tree.map(
                    lambda g, a, b: g - hp["inner_lr"] * (a - b) / (2 * hp["hessian_step"]),
                    *map(widened, (gradient, ahead, behind)),
                )
            params, opt_state = stepped(optimizer, gradient, carry.opt_state, carry.params)
            new = LocalState(
                params, state, opt_state, carry.loss + sums.loss, carry.weight + sums.weight
            )
            # the last part has the fewest rows; of none there are neither gradients nor statistics
            is_whole = (third[0] if third else second)["mask"].any()
            return jax.tree.map(lambda new, old: jnp.where(is_whole, new, old), new, carry)

        def personalize(server, own, batch, key) -> Variables:
            params, model_state = algorithm.variables(server)
            gradient, _, _ = task.gradient(params, model_state, batch, key)
            adapted = moved(params, gradient, -hp["inner_lr"])
            has_rows = batch["mask"].any()
            params = jax.tree.map(lambda new, old: jnp.where(has_rows, new, old), adapted, params)
            return Variables(params, model_state)

        return algorithm._replace(passes=(average._replace(step=step),), personalize=personalize)

    if hessian_step is not None and not corrects:
        raise ValueError(
            f"hessian_step = {hessian_step!r} has no effect with hessian = {hessian!r}. Leave it "
            "out, or set hessian = 'hessian_free'."
        )
    values = {"inner_lr": inner_lr}
    if corrects:
        values["hessian_step"] = 1e-3 if hessian_step is None else hessian_step
    values = hyperparameters("per_fedavg", values)
    return plain._replace(build=build, hparams={**plain.hparams, **values})


def parts_of(batch, number: int) -> list:
    """Returns a batch cut into parts of nearly equally many real rows: every `number`-th row."""
    if batch["mask"].shape[0] < number:
        raise ValueError(
            f"per_fedavg cuts each batch into {number} parts, and batch_size is "
            f"{batch['mask'].shape[0]}. Set batch_size to {number} or more."
        )
    rows = {name: leaf for name, leaf in batch.items() if name != "size"}
    parts = [jax.tree.map(lambda leaf, n=n: leaf[n::number], rows) for n in range(number)]
    if "size" in batch:
        parts = [part | {"size": batch["size"] / number} for part in parts]
    return parts


def moved(params, direction, distance):
    """Returns parameters that went so far along a direction, in their own types."""
    there = jax.tree.map(lambda w, d: w + distance * d, widened(params), widened(direction))
    return rounded(there, params)

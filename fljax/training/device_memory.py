"""Leaves out clients whose devices have less memory than training takes."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.algorithm import AlgorithmSpec
from fljax.core.task import Task
from fljax.core.transforms import as_configured
from fljax.core.trees import nbytes
from fljax.data.dataset import FederatedDataset
from fljax.data.examples import batch_spec
from fljax.engine.devices.execution import ClientBytes
from fljax.systems.availability import Availability, always
from fljax.systems.fleet import Fleet
from fljax.training.binding import bound
from fljax.training.client_memory import client_bytes
from fljax.training.initialization import initial_shapes
from fljax.training.options import RoundOptions
from fljax.training.rehearsal import Rehearsal


def training_bytes(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    width: int,
    shapes: Rehearsal,
) -> int:
    """Returns about how many bytes training takes on a client's device, found from shapes alone.

    That is what the server sends, what does not train, and at the worst moment what the client
    keeps and computes: its model, optimizer, batch, activations, gradients.

    Args:
      dataset, task, spec, options: As `fljax.training.federation.build` takes them.
      width: Rows of a batch.
      shapes: Of a round of one client.
    """
    _, frozen, _ = initial_shapes(task)
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(shapes.variables.params))
    numbers: dict[str, Any] = {**spec.hparams, "num_clients": dataset.num_clients}
    hparams = {name: np.asarray(value, dtype) for name, value in numbers.items()}
    batch = batch_spec(dataset.train.examples.spec, width)
    found: list[ClientBytes] = []

    def traced(frozen):
        # what does not train may be large, and has no numbers here
        algorithm = spec.build(bound(task, frozen, dataset), hparams)
        pipeline = as_configured(options.pipeline)
        found.append(client_bytes(algorithm, pipeline, shapes.variables, batch))

    jax.eval_shape(traced, frozen)
    (client,) = found
    sent = max(map(nbytes, shapes.messages))
    return sent + nbytes(frozen) + client.carry + max(client.step, client.finish)


def with_enough_memory(fleet: Fleet, needed: int, keeps_cohorts: bool = False) -> Fleet:
    """Returns a fleet in which clients with too small devices have no work, and are never there.

    Args:
      fleet: The clients.
      needed: Bytes that training takes.
      keeps_cohorts: Whether guarantees count on it that nobody takes part in the place of others.

    Raises:
      ValueError: If nobody is left, or others would take places that guarantees count on.
    """
    small = 1e9 * fleet.devices.memory_gb < needed
    if not small.any():
        return fleet
    several, what = f"{small.sum()} of {len(small)}", f"{needed / 1e9:.3g} GB that training takes"
    if small.all():
        largest = float(fleet.devices.memory_gb.max())
        raise ValueError(
            f"memory_gb: no client's device has the {what}; the largest has {largest:.3g}. Give "
            "profiles more memory, or train a smaller model or batch."
        )
    if keeps_cohorts:
        raise ValueError(
            f"memory_gb: {several} clients' devices have less than the {what}, and others would "
            "take their places in a uniform cohort, while privacy counts on the sampler's draws "
            "for who takes part. Give profiles more memory, or choose sampler = 'poisson'."
        )
    warnings.warn(
        f"{several} clients' devices have less than the {what}: they take part in nothing.",
        stacklevel=2,
    )
    return fleet._replace(
        availability=_without(fleet.availability or always(), small),
        steps=np.where(small, 0, fleet.steps),
    )


def _without(availability: Availability, left_out: np.ndarray) -> Availability:
    """Returns an availability in which some clients, bool[N], are never online."""

    def online(clients, seconds):
        return availability.online(clients, seconds) & ~left_out[clients]

    def since(clients, seconds):
        return np.where(left_out[clients], np.inf, availability.since(clients, seconds))

    return Availability(online, availability.until, since)

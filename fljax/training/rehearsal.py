"""Rehearses a round of one client: its shapes, sizes and operations, found without computing it.

shapes = rehearsed(dataset, task, spec, options)                # nothing but shapes is needed
jax.make_jaxpr(partial(rehearse, algorithm))(variables, key)    # or the operations
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core import transforms as links
from fljax.core import transmission
from fljax.core.algorithm import (
    Aggregate,
    Algorithm,
    AlgorithmSpec,
    Contribution,
    Job,
    Variables,
    blank_job,
    check_passes,
    sent_params,
)
from fljax.core.task import Task
from fljax.core.transforms import Pipeline, PipelineSpec, as_configured
from fljax.data.dataset import FederatedDataset
from fljax.engine.program.client import with_reports
from fljax.engine.program.inputs import ClientRows, RoundState
from fljax.training.binding import bound
from fljax.training.client_state import default_row
from fljax.training.initialization import initial_shapes

PyTree = Any


class Rehearsal(NamedTuple):
    """The shapes of a round of one client; lists have one entry a pass.

    Attributes:
      variables: Of the model that the round starts from.
      state: Of the server and the pipeline.
      row: What the client keeps.
      messages: What the server broadcasts, before the downlink.
      contributions: {name: Contribution} of the client, before the uplink.
      arrived: (payloads behind the uplink, what they are decoded to), {name: tree} each.
      kept: (what the client keeps, statistics) after each pass.
      server: The server's state after the round.
    """

    variables: Variables
    state: RoundState
    row: ClientRows
    messages: list[PyTree]
    contributions: list[dict[str, Contribution]]
    arrived: list[PyTree]
    kept: list[tuple[PyTree, dict]]
    server: PyTree


def rehearse(
    algorithm: Algorithm,
    variables: Variables,
    key: jax.Array,
    *,
    pipeline: Pipeline = Pipeline(),  # noqa: B008, it is immutable
    batch: PyTree = None,
    steps: int = 1,
    job: Job | None = None,
    own: PyTree = None,
) -> Rehearsal:
    """Runs a round of one job. To be traced: `jax.eval_shape`, `jax.make_jaxpr`.

    Args:
      algorithm: The algorithm.
      variables: The initial model.
      key: Of the job and all transforms.
      pipeline: Transforms between clients and server; the cohort's and the server's take no part.
      batch: Of each local step; None leaves them out.
      steps: How many local steps the job takes, if it has a batch.
      job: The job; None for one whose numbers are all zero.
      own: The client's state of the algorithm; None for that of one that never took part.
    """
    first = variables
    if (several := algorithm.initial_models) > 1:
        first = jax.tree.map(lambda x: jnp.broadcast_to(x, (several, *jnp.shape(x))), variables)
    params = sent_params(algorithm, variables)
    state = RoundState(algorithm.init(first), links.init_server(pipeline, params))
    row = default_row(algorithm, pipeline, variables)
    job = blank_job(key) if job is None else job
    if pipeline.attackers is not None:
        job = job._replace(attacker=jnp.bool_(False))
    aggregates: dict[str, Aggregate] = {}
    messages, sent, arrived, kept = [], [], [], []
    own, chains = row.algorithm if own is None else own, state.pipeline
    check_passes(algorithm)
    for each in algorithm.passes:
        if each.broadcast is not None:
            message = each.broadcast(state.server, aggregates)
            received, _, _ = transmission.broadcast(pipeline, message, chains.downlink, key)
        messages.append(message)
        carry = each.start(received, own, job)
        for step in range(steps if batch is not None else 0):
            carry = each.step(received, carry, batch, job._replace(step=job.step + step))
        contributions, own, stats = each.finish(received, carry, job)
        sent.append(contributions)
        payloads, _, _, reported = transmission.encode(
            pipeline, contributions, row.uplink, job, key, chains.uplink
        )
        decoded = transmission.decode(pipeline, payloads, chains.uplink)
        kept.append((own, with_reports(stats, reported)))
        arrived.append((payloads, decoded))
        aggregates |= {
            name: _aggregate(part, each.num_clusters) for name, part in contributions.items()
        }
    server = algorithm.server_update(state.server, aggregates, jnp.int32(0))
    return Rehearsal(variables, state, row, messages, sent, arrived, kept, server)


def _aggregate(part: Contribution, num_clusters: int) -> Aggregate:
    """Returns the sum over one job; of one that says its cluster, with an axis over clusters."""
    total = Aggregate(part.value, part.weight, jnp.ones(()))
    if part.cluster is None:
        return total
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (num_clusters, *jnp.shape(leaf))), total
    )


def rehearsed(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    pipeline: Pipeline | PipelineSpec = Pipeline(),  # noqa: B008, it is immutable
) -> Rehearsal:
    """Returns the shapes of a round of one client, before anything is built or placed.

    Args:
      dataset: The federated data.
      task: What is trained.
      spec: The algorithm, as configured.
      pipeline: Transforms between clients and server, as configured.
    """
    params, frozen, model_state = initial_shapes(task)
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
    hparams = {
        name: np.asarray(value, dtype)
        for name, value in {**spec.hparams, "num_clients": dataset.num_clients}.items()
    }

    def one_round(variables, frozen, key):
        algorithm = spec.build(bound(task, frozen, dataset), hparams)
        return rehearse(algorithm, variables, key, pipeline=as_configured(pipeline))

    return jax.eval_shape(one_round, Variables(params, model_state), frozen, jax.random.key(0))

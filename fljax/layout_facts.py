"""What the fastest layout of a run depends on: under this, a layout is remembered."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.algorithm import Aggregate, Algorithm, Job, Variables
from fljax.data.dataset import FederatedDataset
from fljax.engine import pipeline as links
from fljax.engine.batching import LocalWork
from fljax.engine.pipeline import UPDATE, Pipeline, as_configured
from fljax.flops import jaxprs
from fljax.gradients import bind
from fljax.options import RoundOptions
from fljax.parts import default_row
from fljax.recording import versions
from fljax.sources import Beginnings
from fljax.tasks import Task

PyTree = Any


def layout_facts(
    dataset: FederatedDataset,
    task: Task,
    algorithm_name: str,
    algorithm: Algorithm,
    options: RoundOptions,
    first: Beginnings,
    steps: np.ndarray,
    work: LocalWork,
) -> dict[str, Any]:
    """Returns what the fastest layout depends on besides the machine, as JSON values.

    Args:
      dataset: The federated data.
      task: What is trained.
      algorithm_name, algorithm: How.
      options: What a round does.
      first: The initial models of all sources.
      steps: int64[N] local steps of each client.
      work: What they are made of.
    """
    pipeline = as_configured(options.pipeline)
    chains = (pipeline.downlink, pipeline.uplink, pipeline.cohort, pipeline.server)
    example = dataset.train.examples.spec
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), first.variables
    )
    batch = {
        name: jax.ShapeDtypeStruct((work.batch_size, *leaf.shape), leaf.dtype)
        for name, leaf in example.items()
    } | {"mask": jax.ShapeDtypeStruct((work.batch_size,), jnp.bool_)}
    key = jax.eval_shape(lambda: jax.random.key(0))

    def loss(variables, batch, key):
        # the backward pass follows from it, and takes twice as long to trace
        local = bind(task, first.frozen, dataset.preprocess)
        return local.loss(variables.params, variables.model_state, batch, key, True)

    def way(variables, key):
        return _way_of_a_job(algorithm, pipeline, variables, key)

    return {
        "model": _shapes(first.variables),
        "example": _shapes(example),
        "algorithm": algorithm_name,
        "operations": [operations(loss, one, batch, key), operations(way, one, key)],
        "work": list(work),
        "steps": [float(steps.mean()), float(steps.std()), int(steps.max())],
        "clients_per_round": options.clients_per_round,
        "sources": len(jax.tree.leaves(first.variables)[0]),
        "links": [*map(len, chains), pipeline.aggregator.needs],
        "options": [options.compute_dtype, options.devices, options.placement],
        "precision": str(jax.config.jax_default_matmul_precision),
        "versions": versions(),
    }


def _shapes(tree: PyTree) -> list[list]:
    return [
        [jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _way_of_a_job(
    algorithm: Algorithm, pipeline: Pipeline, variables: Variables, key: jax.Array
) -> PyTree:
    """Does what a job costs beside its steps: the way from the server, through all passes, back."""
    server = algorithm.init(variables)
    states = links.init_server(pipeline, variables.params)
    row = default_row(algorithm, pipeline, variables)
    job = Job(*[jnp.int32(0)] * (len(Job._fields) - 1), key)
    aggregates: dict[str, Aggregate] = {}
    arrived = []
    for one in algorithm.passes:
        message = one.broadcast(server, aggregates)
        message, _, _ = links.broadcast(pipeline, message, states.downlink, key)
        carry = one.start(message, row.algorithm, job)
        contributions, own, stats = one.finish(message, carry, job)
        aggregates |= {
            name: Aggregate(value, weight, jnp.float32(1))
            for name, (value, weight) in contributions.items()
        }
        if UPDATE in contributions:
            update = contributions[UPDATE].value
            payload, _, _ = links.encode(pipeline, update, row.uplink, job, key)
            arrived += [payload, links.decode(pipeline, payload, states.uplink, summed=False)]
        arrived += [own, stats]
    return aggregates, arrived


def operations(function: Callable, *args: PyTree) -> str:
    """Returns a checksum of the operations that a function consists of, and of their shapes.

    It is the same in every process; order and constants do not enter.

    Args:
      function: What is traced; nothing of it is compiled or run.
      *args: Its arguments; shapes will do.
    """
    found: collections.Counter[str] = collections.Counter()
    open_ones = [jax.make_jaxpr(function)(*args).jaxpr]
    while open_ones:
        for equation in open_ones.pop().eqns:
            values = [*equation.invars, *equation.outvars]
            shapes = ", ".join(one.aval.str_short() for one in values)
            found[f"{equation.primitive.name} {shapes}"] += 1
            open_ones += [one for value in equation.params.values() for one in jaxprs(value)]
    text = "\n".join(f"{count} {line}" for line, count in sorted(found.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

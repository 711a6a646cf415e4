"""Estimates the memory that a client takes while it trains, before anything is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core import transmission
from fljax.core.algorithm import Algorithm, ClientPass, Variables, blank_job
from fljax.core.transforms import Pipeline
from fljax.core.trees import nbytes
from fljax.engine.devices.execution import ClientBytes
from fljax.training.liveness import peak_bytes
from fljax.training.rehearsal import rehearse

PyTree = Any
# Traced side by side, as on lanes: XLA then needs other orders of axes than for one alone.
_CLIENTS = 2


def client_bytes(
    algorithm: Algorithm,
    pipeline: Pipeline,
    variables: Variables,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    num_trials: int = 1,
) -> ClientBytes:
    """Returns what a client takes in the pass that takes most; traced, neither compiled nor run.

    Args:
      algorithm: The algorithm.
      pipeline: Transforms between clients and server.
      variables: Of the initial model; shapes will do.
      batch: Shapes of a client's batch.
      num_trials: Trials side by side; clients of several keep the message that they start from.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(partial(rehearse, algorithm, pipeline=pipeline), variables, key)
    kept = [shapes.row.algorithm, *(own for own, _ in shapes.kept)]
    found = []
    for each, message, own in zip(algorithm.passes, shapes.messages, kept, strict=False):
        server = message, shapes.state.pipeline.uplink
        start, step, finish = _functions(each, pipeline)
        carry = jax.eval_shape(start, server, own, key)
        found.append(
            ClientBytes(
                carry=nbytes(carry) + (nbytes(message) if num_trials > 1 else 0),
                step=_peak(step, server, dict(batch), carry, key),
                finish=_peak(finish, server, (), carry, shapes.row._replace(algorithm=own), key),
            )
        )
    return ClientBytes(*map(max, zip(*found, strict=True)))


def _functions(each: ClientPass, pipeline: Pipeline) -> tuple[Callable, Callable, Callable]:
    """Returns how a client starts, steps and finishes, as functions of what the server has."""

    def start(server, own, key):
        return each.start(server[0], own, blank_job(key))

    def step(server, batch, carry, key):
        return each.step(server[0], carry, batch, blank_job(key))

    def finish(server, _, carry, row, key):
        message, states = server
        job = blank_job(key)
        if pipeline.attackers is not None:
            job = job._replace(attacker=jnp.bool_(False))
        sent, own, stats = each.finish(message, carry, job)
        payloads, uplink, *_ = transmission.encode(pipeline, sent, row.uplink, job, key, states)
        return transmission.decode(pipeline, payloads, states), own, uplink, stats

    return start, step, finish


def _peak(function: Callable, server: PyTree, batch: PyTree, *of_client: PyTree) -> int:
    """Returns the bytes of a client, beside what it keeps, where several compute a function.

    Args:
      function: Of these arguments.
      server: What the server has, alike for all.
      batch: What is read for the function, and counts until it is used.
      *of_client: What each client has of its own.
    """
    jaxpr = jax.make_jaxpr(jax.vmap(function, (None, *[0] * (1 + len(of_client)))))(
        server,
        *jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((_CLIENTS, *leaf.shape), leaf.dtype),
            (batch, *of_client),
        ),
    ).jaxpr
    first = len(jax.tree.leaves(server))
    given_up = range(first, first + len(jax.tree.leaves(batch)))
    return peak_bytes(jaxpr, given_up) // _CLIENTS

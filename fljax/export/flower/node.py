"""Trains the clients of a node: what a round asks of them, and what they send.

A client's work is that of the round program (`fljax/engine/program/client.py`), planned by its
planner, so that batches, their order and random keys are those of the simulation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core import transmission
from fljax.core.trees import zeros_like_shape
from fljax.core.wire_bytes import to_wire
from fljax.engine.plan.planner import Planner
from fljax.engine.plan.round_plan import PassPlan, job_table
from fljax.engine.program import keys
from fljax.engine.program.client import client_work
from fljax.engine.program.inputs import ClientRows
from fljax.engine.program.passes import Pass
from fljax.engine.program.trials import trials_of
from fljax.export.flower.deployment import Deployment, planner_of, precise

PyTree = Any


class Task(NamedTuple):
    """The server's request to one client in a pass of a round.

    Attributes:
      round, number: The round, and the pass of it, both from 0.
      client: Whose work it is.
      position: Its place in the cohort.
      occurrence: How often the client stands before it in the cohort.
    """

    round: int
    number: int
    client: int
    position: int
    occurrence: int


class Reply(NamedTuple):
    """A client's answer.

    Attributes:
      parts: {name: what it sends under that name, as bytes}.
      weights: {name: weight}, NumPy arrays.
      clusters: {name: cluster}, of what goes to the sums of clusters.
      stats: {name: scalar}, what the record of a round is made of.
      kept: Whether the server may take it in; what is not finite it may not.
    """

    parts: dict[str, tuple[bytes, ...]]
    weights: dict[str, PyTree]
    clusters: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    kept: bool


class Node(NamedTuple):
    """A machine that trains clients.

    Attributes:
      deployment: What it shares with the server.
      planner: Plans the work of one client.
      programs: Of each pass, the compiled work of a client.
    """

    deployment: Deployment
    planner: Planner
    programs: tuple[Callable[..., Any], ...]


def make_node(deployment: Deployment) -> Node:
    """Returns what trains clients on this machine.

    Example:
      >>> from fljax.export.flower.deployment import deploy
      >>> config = {"clients_per_round": 5, "num_clients": 10, "partition": "iid"}
      >>> config |= {"dataset": "digits", "model": "softmax_regression"}
      >>> len(make_node(deploy(config)).programs)
      1
    """
    programs = tuple(
        jax.jit(precise(deployment, functools.partial(_work, deployment, number)))
        for number in range(len(deployment.algorithm.passes))
    )
    return Node(deployment, planner_of(deployment, 1, "stream"), programs)


def train(node: Node, task: Task, message: PyTree, rows: ClientRows) -> tuple[Reply, ClientRows]:
    """Lets a client do its work.

    Args:
      node: The machine.
      task: What is asked.
      message: What the server has broadcast.
      rows: What the client has kept; `Deployment.client_rows` before its first work.

    Returns:
      (what the client sends, what it keeps).

    Raises:
      ValueError: If the client has no batch.
    """
    groups = node.deployment.blueprint.cohorts.groups
    jobs = job_table([task.client], groups=groups)
    jobs = jobs._replace(occurrence=np.int32([task.occurrence]))
    plan, facts = node.planner.plan(task.round, jobs)
    if not facts.num_jobs:
        raise ValueError(f"Client {task.client} has no batch to train on, and was asked to train.")
    ours = jax.tree.map(lambda leaf: leaf[0], plan.passes[task.number])
    ours = ours._replace(jobs=ours.jobs._replace(position=np.int32([task.position])))
    data = jax.tree.map(lambda leaf: leaf[0], plan.staged)
    program = node.programs[task.number]
    payloads, weights, clusters, stats, kept, after = jax.device_get(
        program(message, rows, ours, np.int32(task.round), data, node.deployment.inputs)
    )
    pipeline = node.deployment.pipeline
    parts = {name: to_wire(pipeline, name, payload) for name, payload in payloads.items()}
    return Reply(parts, weights, clusters, stats, bool(kept)), after if kept else rows


def _work(
    deployment: Deployment,
    number: int,
    message: PyTree,
    rows: ClientRows,
    plan: PassPlan,
    round: jax.Array,
    data: Mapping[str, Any],
    inputs: Any,
):
    """Runs the only job of a plan; returns what it sends, reports and keeps.

    Of what transforms keep on the server there are zeros: links whose clients read it are refused.
    """
    rounds = round[None]
    trials = trials_of(deployment.program, inputs, rounds, jnp.zeros_like(rounds))
    of_pass = keys.of_pass(keys.of_round(inputs.keys, rounds), number)
    a_pass = Pass(number, trials, plan, jnp.zeros(1, jnp.int32), of_pass, selected=None)
    pipeline = trials.first.pipeline
    states = zeros_like_shape(deployment.shapes.state.pipeline.uplink, 1)
    unread = jax.tree.map(lambda leaf: leaf[0], states)
    work, index = client_work(a_pass, data, states), jnp.int32(0)

    def step(time, carry):
        batch, count = plan.rows[time, 0], plan.counts[time, 0]
        after = work.step(message, carry, index, batch, count, time)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), after, carry)

    # strongly typed, as what a loop carries must be
    carry = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), work.start(message, index, rows)
    )
    carry = jax.lax.fori_loop(0, plan.jobs.steps[0], step, carry)
    finished = work.finish(message, carry, index, rows)
    job = a_pass.job(index)
    sent, _, _ = trials.of_job(job).algorithm.passes[number].finish(message, carry, job)
    payloads, _, _, _ = transmission.encode(
        pipeline, sent, rows.uplink, job, jax.random.fold_in(job.key, keys.UPLINK), unread
    )
    weights = {name: part.weight for name, part in sent.items()}
    clusters = {name: part.cluster for name, part in sent.items() if part.cluster is not None}
    return payloads, weights, clusters, finished.stats, finished.kept, finished.client_rows

"""Reads what a client has sent: bytes of another machine, which may be anything.

What no client of the app sends is refused before a round computes with it, so that its client is
lost for the round and nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.core.transforms import UPDATE
from fljax.core.values import shown
from fljax.core.wire_bytes import from_wire
from fljax.engine.plan.round_plan import PassPlan
from fljax.engine.program.drift import of_update
from fljax.export.flower.deployment import Deployment
from fljax.export.flower.node import Reply, Task

PyTree = Any


class Received(NamedTuple):
    """A reply as arrays; of the plan's J jobs together, leaves [J, ...], zeros where none came.

    Attributes:
      payloads: {name: what was sent under that name}.
      weights: {name: weight}.
      clusters: {name: cluster}, of what goes to the sums of clusters.
      stats: {name: scalar}.
      kept: Whether the client says that all of it is finite.
    """

    payloads: dict[str, PyTree]
    weights: dict[str, PyTree]
    clusters: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    kept: np.ndarray


def read_reply(deployment: Deployment, number: int, reply: Reply) -> Received:
    """Reads a reply.

    Args:
      deployment: The deployment.
      number: The pass.
      reply: What came back.

    Raises:
      KeyError: If a part is missing.
      ValueError: If parts or statistics are not those of the deployment's clients.

    Example:
      >>> from fljax.export.flower.deployment import deploy
      >>> config = {"clients_per_round": 5, "num_clients": 10, "partition": "iid"}
      >>> config |= {"dataset": "digits", "model": "softmax_regression"}
      >>> reply = Reply({"update": (b"half a model",)}, {}, {}, {}, True)
      >>> read_reply(deploy(config), 0, reply)
      Traceback (most recent call last):
      ...
      ValueError: A message has parts of [12] bytes, and the model here makes parts of [40, 2560]. \
Run the same app on all machines.
    """
    like = deployment.shapes.arrived[number][0]
    payloads = {
        name: from_wire(deployment.pipeline, name, reply.parts[name], shape)
        for name, shape in like.items()
    }
    expected = told(deployment, number)
    if reply.stats.keys() != expected.keys():
        raise ValueError(
            f"The statistics are {', '.join(sorted(reply.stats))}, and those of a client here "
            f"{', '.join(sorted(expected))}. Run the same app on all machines."
        )
    stats = {name: _scalar(name, reply.stats[name], zero) for name, zero in expected.items()}
    if not isinstance(reply.kept, bool):
        raise ValueError(f"kept = {shown(reply.kept)}; it is true or false.")
    return Received(payloads, reply.weights, reply.clusters, stats, np.bool_(reply.kept))


def _scalar(name: str, value: Any, like: np.ndarray) -> np.ndarray:
    if isinstance(value, str | bytes) or np.shape(value) != like.shape:
        raise ValueError(f"The statistic {name} is {shown(value)}; it is one number.")
    return np.asarray(value, like.dtype)


def told(deployment: Deployment, number: int) -> dict[str, np.ndarray]:
    """Returns the statistics that a client tells in a pass, {name: zero}."""
    shapes = deployment.shapes
    like = dict(shapes.kept[number][1])
    sent = shapes.contributions[number]
    if UPDATE in sent:
        whole = deployment.pipeline.leaves_alone(UPDATE)
        weight = sent[UPDATE].weight
        like |= jax.eval_shape(lambda weight: of_update(np.float32(0), weight, whole), weight)
    zeros = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in like.items()}
    zeros |= dict.fromkeys(("jobs", "nonfinite", "lost"), np.zeros((), np.int32))
    return zeros | {"uplink_bits": np.zeros((), np.uint32)}


def stacked(
    deployment: Deployment,
    number: int,
    plan: PassPlan,
    tasks: Sequence[Task],
    replies: Mapping[int, Received],
) -> Received:
    """Returns what came back in a pass, in the order of its jobs.

    Args:
      deployment, number: As for `read_reply`.
      plan: Of the pass.
      tasks: What was asked.
      replies: {position in the cohort: what came back}. Who was asked and is not in it is lost;
        those who were not asked are left out.
    """
    parts = deployment.shapes.contributions[number]
    empty = Received(
        deployment.shapes.arrived[number][0],
        {name: part.weight for name, part in parts.items()},
        {name: part.cluster for name, part in parts.items() if part.cluster is not None},
        told(deployment, number),
        np.bool_(False),
    )
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), empty)
    lost = empty._replace(stats=empty.stats | {"lost": np.int32(1)})
    found = {task.position: replies.get(task.position, lost) for task in tasks}
    positions = np.where(plan.jobs.client >= 0, plan.jobs.position, -1).tolist()
    rows = [found.get(position, empty) for position in positions]
    return jax.tree.map(
        lambda like, *leaves: np.stack([np.asarray(leaf, like.dtype) for leaf in leaves]),
        empty,
        *rows,
    )

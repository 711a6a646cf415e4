"""Puts what travels into Flower's records, and takes it out again.

Arrays travel as the bytes that they are, or that their compressor has made of them: an `Array` here
holds bytes alone, without NumPy's header.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fljax.core.wire_bytes import dense_from_bytes, dense_to_bytes
from fljax.export.flower.arrival import Received, read_reply
from fljax.export.flower.deployment import Deployment
from fljax.export.flower.node import Reply, Task


def packed(parts: Sequence[bytes]) -> ArrayRecord:
    """Returns parts of bytes as a record."""
    return ArrayRecord(
        {f"{n}": Array("uint8", (len(part),), "bytes", part) for n, part in enumerate(parts)}
    )


def unpacked(record: ArrayRecord) -> list[bytes]:
    """Returns the parts of a record."""
    return [record[f"{n}"].data for n in range(len(record))]


def task_record(tasks: Sequence[Task]) -> ConfigRecord:
    """Returns what clients are asked for, as lists."""
    return ConfigRecord({name: [getattr(task, name) for task in tasks] for name in Task._fields})


def tasks_of(record: ConfigRecord) -> list[Task]:
    """Returns what clients are asked for."""
    return [
        Task(*numbers) for numbers in zip(*(record[name] for name in Task._fields), strict=True)
    ]


def put_reply(content: RecordDict, position: int, reply: Reply) -> None:
    """Adds what one client sends to the content of a message."""
    for name, parts in reply.parts.items():
        content[f"{position}/sent/{name}"] = packed(parts)
    content[f"{position}/weights"] = packed(dense_to_bytes((reply.weights, reply.clusters)))
    stats = {name: np.asarray(value).item() for name, value in reply.stats.items()}
    content[f"{position}/stats"] = MetricRecord(stats)
    content[f"{position}/kept"] = ConfigRecord({"kept": reply.kept})


def reply_of(content: RecordDict, task: Task, deployment: Deployment) -> Received:
    """Returns what one client has sent.

    Raises:
      Exception: Of any kind, if it is not what clients of the app send.
    """
    sent, place = deployment.shapes.contributions[task.number], task.position
    weights = {name: part.weight for name, part in sent.items()}
    clusters = {name: part.cluster for name, part in sent.items() if part.cluster is not None}
    weights, clusters = dense_from_bytes(unpacked(content[f"{place}/weights"]), (weights, clusters))
    parts = {name: tuple(unpacked(content[f"{place}/sent/{name}"])) for name in sent}
    stats = dict(content[f"{place}/stats"])
    reply = Reply(parts, weights, clusters, stats, content[f"{place}/kept"]["kept"])
    return read_reply(deployment, task.number, reply)

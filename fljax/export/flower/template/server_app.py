"""Runs the rounds: asks the nodes for the work of their clients, and aggregates what arrives."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from fljax_app.records import packed, reply_of, task_record
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from fljax import recording
from fljax.core.values import brief
from fljax.core.wire_bytes import dense_to_bytes
from fljax.export.flower import app as apps
from fljax.export.flower import outcome
from fljax.export.flower.arrival import Received
from fljax.export.flower.node import Task
from fljax.export.flower.server import make_server, run_round, start

app = ServerApp()


def find_clients(grid: Grid, nodes: int, timeout: float) -> dict[int, tuple[int, int]]:
    """Waits for so many nodes; returns {client: (its node, its rows)}."""
    while len(found := list(grid.get_node_ids())) < nodes:
        log(INFO, "%d of %d nodes are here", len(found), nodes)
        time.sleep(1)
    asked = [Message(RecordDict(), node, MessageType.QUERY) for node in found]
    homes: dict[int, tuple[int, int]] = {}
    for reply in grid.send_and_receive(asked, timeout=timeout):
        if reply.has_error():
            raise RuntimeError(f"node {reply.metadata.src_node_id}: {reply.error.reason}")
        for client, rows in _told(reply):
            if client in homes:
                raise ValueError(
                    f"Client {client} lives on two nodes. Give each node a partition-id, or a "
                    "folder of clients, of its own."
                )
            homes[client] = reply.metadata.src_node_id, rows
    return homes


def _told(reply: Message) -> list[tuple[int, int]]:
    """Returns (client, its rows) of all clients of a node that was asked."""
    try:
        told = reply.content["clients"]
        return [(int(c), int(n)) for c, n in zip(told["clients"], told["rows"], strict=True)]
    except Exception as error:
        raise RuntimeError(
            f"Node {reply.metadata.src_node_id} does not say which clients live on it "
            f"({brief(error)}). Run the same app on all machines."
        ) from error


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the app."""
    config = context.run_config
    timeout = float(config["reply-timeout"])
    homes = find_clients(grid, int(config["min-nodes"]), timeout)
    sizes = {client: rows for client, (_, rows) in homes.items()}
    server = make_server(apps.read_app(__file__, sizes=sizes))
    log(INFO, "%d clients on %d nodes", len(homes), len({node for node, _ in homes.values()}))

    def ask(tasks: Sequence[Task], received: Any) -> Mapping[int, Received]:
        """Sends each node the tasks of its clients; returns {position: what came back}."""
        of_nodes: dict[int, list[Task]] = {}
        for task in tasks:
            if task.client in homes:
                of_nodes.setdefault(homes[task.client][0], []).append(task)
        parts = packed(dense_to_bytes(received))
        messages = [
            Message(
                RecordDict({"message": parts, "tasks": task_record(own)}),
                node,
                MessageType.TRAIN,
                group_id=f"{own[0].round}",
            )
            for node, own in of_nodes.items()
        ]
        replies: dict[int, Received] = {}
        for reply in grid.send_and_receive(messages, timeout=timeout):
            node = reply.metadata.src_node_id
            if reply.has_error():
                log(WARNING, "node %d is lost for this round: %s", node, reply.error.reason)
                continue
            for task in of_nodes[node]:
                try:
                    replies[task.position] = reply_of(reply.content, task, server.deployment)
                except Exception as error:  # what another machine sends may be anything
                    log(
                        WARNING, "client %d of node %d is lost for this round, its reply cannot be "
                        "read: %s", task.client, node, brief(error),
                    )  # fmt: skip
        return replies

    directory = Path(config["workdir"]).absolute() / f"{context.run_id}"
    progress = start(server)
    with recording.Recorder(directory) as recorder:
        outcome.begin(server, recorder, apps.read_facts(__file__)["config"])
        for _ in range(int(config["num-server-rounds"])):
            progress, record = run_round(server, progress, ask)
            recorder.write(record)
            log(
                INFO, "round %d: train/loss %.6f, %d bytes up", progress.round,
                record.get("train/loss", float("nan")), record["comm/uplink_bytes"],
            )  # fmt: skip
        outcome.finish(server, progress, recorder)
    log(INFO, "the model is in %s", directory)

"""Trains the clients of a node when the server asks.

A node has `partition-id` and `num-partitions` in its `--node-config`, and clients whose number is
partition-id modulo num-partitions live on it: with as many partitions as clients, one. Where the
app was exported with `--data=files`, `clients` names the folder of the node's client_*.npz files,
and these are its clients.
"""

from __future__ import annotations

import functools

import numpy as np
from fljax_app.records import packed, put_reply, tasks_of, unpacked
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fljax.core.wire_bytes import dense_from_bytes, dense_to_bytes
from fljax.export.flower import app as apps
from fljax.export.flower.node import Node, make_node, train
from fljax.export.flower.server import message_of

app = ClientApp()
# make_node compiles: once a process
node_of = functools.cache(lambda folder: make_node(apps.read_app(__file__, folder)))


def _node(context: Context) -> Node:
    return node_of(context.node_config.get("clients"))


def _sizes(context: Context) -> np.ndarray:
    return _node(context).deployment.blueprint.split.partition.sizes


def _clients(context: Context) -> list[int]:
    """Returns the clients that live on the node."""
    config = context.node_config
    if "clients" in config:
        return apps.clients_in(config["clients"])
    return list(range(config["partition-id"], len(_sizes(context)), config["num-partitions"]))


@app.query()
def query(message: Message, context: Context) -> Message:
    """Says which clients live here, and how many rows each has."""
    sizes, clients = _sizes(context), _clients(context)
    told = {"clients": clients, "rows": [int(sizes[client]) for client in clients]}
    return Message(RecordDict({"clients": ConfigRecord(told)}), reply_to=message)


@app.train()
def do_tasks(message: Message, context: Context) -> Message:
    """Lets clients of this node do their work; what they keep stays in the node's state."""
    node, content = _node(context), RecordDict()
    fresh = node.deployment.client_rows
    tasks, here = tasks_of(message.content["tasks"]), _clients(context)
    if strangers := sorted({task.client for task in tasks} - set(here)):
        raise ValueError(f"client {strangers[0]} is asked for, and {here} live on this node")
    received = message_of(node.deployment, tasks[0].number, unpacked(message.content["message"]))
    for task in tasks:
        place, rows = f"client/{task.client}", fresh
        if place in context.state:
            rows = dense_from_bytes(unpacked(context.state[place]), fresh)
        reply, rows = train(node, task, received, rows)
        put_reply(content, task.position, reply)
        if parts := dense_to_bytes(rows):
            context.state[place] = packed(parts)
    return Message(content, reply_to=message)

"""A round whose clients and server run apart is the round program's, bytes included."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from fljax.config.experiment import make_experiment
from fljax.core.wire_bytes import dense_to_bytes
from fljax.export.flower.arrival import read_reply
from fljax.export.flower.deployment import of_experiment
from fljax.export.flower.node import make_node, train
from fljax.export.flower.server import make_server, message_of, run_round, start, variables
from fljax.training.federation import build
from fljax.training.options import split_options

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = {
    "dataset": "digits", "partition": "dirichlet", "alpha": 0.3, "num_clients": 6,
    "model": "softmax_regression", "clients_per_round": 3, "num_rounds": 2, "local_epochs": 1,
    "batch_size": 10, "client_lr": 0.1, "eval_every": 0, "devices": 1, "lanes": 1,
}  # fmt: skip
CASES = {
    "a code, its memory, a server optimizer": {
        "uplink": "top_k(0.05), qsgd(8)", "uplink_memory": "error_feedback",
        "algorithm": "fedopt", "server_optimizer": "adam", "server_lr": 0.01,
    },
    "two passes": {"algorithm": "mime"},
    "a robust rule, a code of each leaf": {
        "aggregator": "median", "weighting": "uniform", "uplink": "int8", "uplink_per_leaf": True,
    },
}  # fmt: skip
# {what a reply is changed to: what is said of it}
WRONG = {
    lambda reply: reply._replace(parts={}): "update",
    lambda reply: reply._replace(parts={**reply.parts, "update": (b"?",)}): "bytes|shorter",
    lambda reply: reply._replace(stats={}): "those of a client here",
    lambda reply: reply._replace(stats={**reply.stats, "jobs": "1"}): "jobs is '1'",
    lambda reply: reply._replace(kept="yes"): "true or false",
}


def simulated(experiment):
    """Returns (parameters, bits that clients sent) of the simulation after its rounds."""
    options, _ = split_options(experiment.options)
    federation, bits = build(*experiment[:3], options), 0
    for plan, facts in federation.plans(0, options.num_rounds):
        bits += sum(int(each["uplink_bits"].sum()) for each in federation.step(plan, facts))
    return federation.variables.params, bits


@pytest.mark.parametrize("case", CASES)
def test_apart_as_together(case):
    experiment = make_experiment(CONFIG | CASES[case])
    deployment = of_experiment(experiment)
    server, node = make_server(deployment), make_node(deployment)
    kept, sent, last = {}, [], []

    def ask(tasks, message):
        """Answers as nodes do: what travels is bytes."""
        replies = {}
        message = message_of(deployment, tasks[0].number, dense_to_bytes(message))
        for task in tasks:
            rows = kept.get(task.client, deployment.client_rows)
            reply, kept[task.client] = train(node, task, message, rows)
            replies[task.position] = read_reply(deployment, task.number, reply)
            sent.extend(len(p) for parts in reply.parts.values() for p in parts)
            last.append(reply)
        return replies

    progress, records = start(server), []
    for _ in range(deployment.num_rounds):
        progress, record = run_round(server, progress, ask)
        records.append(record)
    expected, bits = simulated(experiment)
    ours = variables(server, progress).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, expected)
    assert sum(sent) * 8 == bits
    assert records[-1]["comm/uplink_bytes"] == sum(sent)
    # who does not answer is lost, and the others count
    progress, record = run_round(server, progress, lambda tasks, message: ask(tasks[1:], message))
    assert (record["train/clients"], record["train/clients_lost"]) == (2, 1)
    final = len(deployment.algorithm.passes) - 1
    for changes, reason in WRONG.items():
        with pytest.raises((KeyError, ValueError), match=reason):
            read_reply(deployment, final, changes(last[-1]))

    # what is not finite is counted, whatever its client says of it
    def broken(tasks, message):
        replies, first = ask(tasks, message), tasks[0].position
        if tasks[0].number:
            return replies
        weights = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), replies[first].weights)
        return replies | {first: replies[first]._replace(weights=weights)}

    progress, record = run_round(server, progress, broken)
    assert (record["train/clients"], record["train/clients_nonfinite"]) == (2, 1)
    after, record = run_round(server, progress, lambda tasks, message: {})
    assert (record["train/clients"], record["train/clients_lost"]) == (0, 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables(server, after)))

"""Trains by an algorithm of one's own, whose clients stay near the server's model, by fljax."""

import jax
import optax

import fljax
from fljax import data, models
from fljax.algorithms.fedavg import from_passes, local_training
from fljax.core.algorithm import AlgorithmSpec


def held_back(client_lr=0.1, pull=0.1):
    def build(task, hp):
        def correct(grads, params, message):
            return jax.tree.map(
                lambda g, w, w0: g + hp["pull"] * (w - w0), grads, params, message.params
            )

        local = local_training(task, optax.sgd(hp["client_lr"]), correct=correct)
        return from_passes((local,), optax.sgd(1.0))

    return AlgorithmSpec("held_back", build, {"client_lr": client_lr, "pull": pull})


rows = data.load("csv", path="rows.csv", client="client", label="label", test_path="test.csv")
run = fljax.simulate(
    rows,
    models.mlp((64, 64, 64, 10)),
    held_back(),
    num_rounds=50,
    clients_per_round=10,
    local_epochs=2,
    batch_size=10,
)
print(f"accuracy {run.summary['final']['eval/test/accuracy']:.4f}")

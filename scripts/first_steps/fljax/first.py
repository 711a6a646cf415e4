"""Trains on handwritten digits by fljax."""

import fljax
from fljax import algorithms, data, models

digits = data.digits(partition="iid", num_clients=100)
run = fljax.simulate(
    digits,
    models.mlp((64, 64, 64, 10)),
    algorithms.fedavg(client_lr=0.1),
    num_rounds=50,
    clients_per_round=10,
    local_epochs=2,
    batch_size=10,
)
print(f"accuracy {run.summary['final']['eval/test/accuracy']:.4f}")

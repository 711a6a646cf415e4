"""Trains on rows of a CSV file, whose first column says whose they are, by fljax."""

import fljax
from fljax import algorithms, data, models

rows = data.load("csv", path="rows.csv", client="client", label="label", test_path="test.csv")
run = fljax.simulate(
    rows,
    models.mlp((64, 64, 64, 10)),
    algorithms.fedavg(client_lr=0.1),
    num_rounds=50,
    clients_per_round=10,
    local_epochs=2,
    batch_size=10,
)
print(f"accuracy {run.summary['final']['eval/test/accuracy']:.4f}")

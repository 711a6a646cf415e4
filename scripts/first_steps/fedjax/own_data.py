"""Trains on rows of a CSV file, whose first column says whose they are, by FedJAX."""

import fedjax
import haiku as hk
import jax
import numpy as np


def read(path):
    table = np.genfromtxt(path, delimiter=",", skip_header=1, dtype=np.float32)
    return table[:, 0].astype(int), table[:, 1:-1], table[:, -1].astype(np.int32)


owner, train_x, train_y = read("rows.csv")
_, test_x, test_y = read("test.csv")
clients = fedjax.InMemoryFederatedData(
    {
        b"%d" % client: {"x": train_x[owner == client], "y": train_y[owner == client]}
        for client in np.unique(owner)
    }
)


def network(batch):
    return hk.nets.MLP([64, 64, 10])(batch["x"])


sample = {"x": np.zeros((1, 64), np.float32), "y": np.zeros(1, np.int32)}
model = fedjax.create_model_from_haiku(
    hk.transform(network),
    sample,
    train_loss=lambda batch, scores: fedjax.metrics.unreduced_cross_entropy_loss(
        batch["y"], scores
    ),
    eval_metrics={"accuracy": fedjax.metrics.Accuracy()},
)
algorithm = fedjax.algorithms.fed_avg.federated_averaging(
    fedjax.model_grad(model),
    fedjax.optimizers.sgd(0.1),
    fedjax.optimizers.sgd(1.0),
    fedjax.ShuffleRepeatBatchHParams(batch_size=10, num_epochs=2),
)
state = algorithm.init(model.init(jax.random.PRNGKey(0)))
sampler = fedjax.client_samplers.UniformGetClientSampler(clients, num_clients=10, seed=0)
for _ in range(50):
    state, _ = algorithm.apply(state, sampler.sample())
test_rows = fedjax.ClientDataset({"x": test_x, "y": test_y})
batches = fedjax.padded_batch_client_datasets([test_rows], batch_size=256)
found = fedjax.evaluate_model(model, state.params, batches)
print(f"accuracy {float(found['accuracy']):.4f}")

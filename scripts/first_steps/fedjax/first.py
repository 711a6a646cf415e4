"""Trains on handwritten digits by FedJAX."""

import fedjax
import haiku as hk
import jax
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

x, y = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32)
train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.2, random_state=0)
clients = fedjax.InMemoryFederatedData(
    {
        b"%d" % client: {"x": train_x[rows], "y": train_y[rows]}
        for client, rows in enumerate(np.array_split(np.arange(len(train_y)), 100))
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

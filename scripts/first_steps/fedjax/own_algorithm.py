"""Trains by an algorithm of one's own, whose clients stay near the server's model, by FedJAX."""

import fedjax
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms import fed_avg


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


def held_back(grad_fn, client_optimizer, server_optimizer, batching, pull=0.1):
    def start(server_params, rng):
        return {
            "params": server_params,
            "opt_state": client_optimizer.init(server_params),
            "start": server_params,
            "rng": rng,
        }

    def step(state, batch):
        rng, use = jax.random.split(state["rng"])
        grads = jax.tree_util.tree_map(
            lambda g, w, w0: g + pull * (w - w0),
            grad_fn(state["params"], batch, use),
            state["params"],
            state["start"],
        )
        opt_state, params = client_optimizer.apply(grads, state["opt_state"], state["params"])
        return {"params": params, "opt_state": opt_state, "start": state["start"], "rng": rng}

    def finish(server_params, state):
        return jax.tree_util.tree_map(jnp.subtract, server_params, state["params"])

    train = fedjax.for_each_client(start, step, finish)

    def init(params):
        return fed_avg.ServerState(params, server_optimizer.init(params))

    def apply(server, sampled):
        sizes = {client: len(rows) for client, rows, _ in sampled}
        batches = [(c, rows.shuffle_repeat_batch(batching), rng) for c, rows, rng in sampled]
        updates = [(update, sizes[c]) for c, update in train(server.params, batches)]
        mean = fedjax.tree_util.tree_mean(updates)
        opt_state, params = server_optimizer.apply(mean, server.opt_state, server.params)
        return fed_avg.ServerState(params, opt_state), {}

    return fedjax.FederatedAlgorithm(init, apply)


algorithm = held_back(
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

"""Trains on rows of a CSV file, whose first column says whose they are, by TensorFlow Federated."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff


def read(path):
    table = np.genfromtxt(path, delimiter=",", skip_header=1, dtype=np.float32)
    return table[:, 0].astype(int), table[:, 1:-1], table[:, -1].astype(np.int32)


owner, train_x, train_y = read("rows.csv")
_, test_x, test_y = read("test.csv")
rows = {k: (train_x[owner == k], train_y[owner == k]) for k in np.unique(owner)}


def batches(x, y, epochs=1):
    table = tf.data.Dataset.from_tensor_slices((x, y))
    return table.shuffle(len(y)).repeat(epochs).batch(10)


spec = batches(test_x, test_y).element_spec


def make_model():
    layers = [
        tf.keras.layers.Dense(64, "relu", input_shape=(64,)),
        tf.keras.layers.Dense(64, "relu"),
        tf.keras.layers.Dense(10),
    ]
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential(layers),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=spec,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


process = tff.learning.algorithms.build_weighted_fed_avg(
    make_model,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1),
    server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
)
state = process.initialize()
rng = np.random.default_rng(0)
for _ in range(50):
    cohort = rng.choice(list(rows), 10, replace=False)
    state = process.next(state, [batches(*rows[client], epochs=2) for client in cohort]).state
evaluation = tff.learning.algorithms.build_fed_eval(make_model)
evaluated = evaluation.set_model_weights(evaluation.initialize(), process.get_model_weights(state))
found = evaluation.next(evaluated, [batches(test_x, test_y)]).metrics
accuracy = found["client_work"]["eval"]["current_round_metrics"]["sparse_categorical_accuracy"]
print(f"accuracy {accuracy:.4f}")

"""Trains on handwritten digits by TensorFlow Federated."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

x, y = load_digits(return_X_y=True)
x, y = (x / 16).astype(np.float32), y.astype(np.int32)
train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.2, random_state=0)
parts = np.array_split(np.arange(len(train_y)), 100)
rows = {client: (train_x[part], train_y[part]) for client, part in enumerate(parts)}


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

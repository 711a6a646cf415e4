"""Trains by an algorithm of one's own, by TensorFlow Federated: clients stay near the server's."""

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
batch_type = tff.to_type(
    (tff.TensorType(np.float32, (None, 64)), tff.TensorType(np.int32, (None,)))
)


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


weights_of = tff.learning.models.ModelWeights.from_model
types = tff.learning.models.weights_type_from_model(make_model)


@tff.tensorflow.computation
def initial_weights():
    return weights_of(make_model())


@tff.tensorflow.computation(types, tff.SequenceType(batch_type))
def trained(server, dataset):
    model, pull, rate = make_model(), 0.1, 0.1
    own = weights_of(model)

    @tf.function
    def train(server, dataset):
        server.assign_weights_to(model)
        examples = 0.0
        for batch in dataset:
            with tf.GradientTape() as tape:
                loss = model.forward_pass(batch).loss
            grads = tape.gradient(loss, own.trainable)
            for weight, grad, start in zip(own.trainable, grads, server.trainable, strict=True):
                weight.assign_sub(rate * (grad + pull * (weight - start)))
            examples += tf.cast(tf.shape(batch[1])[0], tf.float32)
        return weights_of(model), examples

    return train(server, dataset)


@tff.federated_computation
def initialize():
    return tff.federated_eval(initial_weights, tff.SERVER)


@tff.federated_computation(
    tff.FederatedType(types, tff.SERVER),
    tff.FederatedType(tff.SequenceType(batch_type), tff.CLIENTS),
)
def next_round(server, datasets):
    models, examples = tff.federated_map(trained, (tff.federated_broadcast(server), datasets))
    return tff.federated_mean(models, examples)


weights = initialize()
rng = np.random.default_rng(0)
for _ in range(50):
    cohort = rng.choice(list(rows), 10, replace=False)
    weights = next_round(weights, [batches(*rows[client], epochs=2) for client in cohort])
evaluation = tff.learning.algorithms.build_fed_eval(make_model)
evaluated = evaluation.set_model_weights(evaluation.initialize(), weights)
found = evaluation.next(evaluated, [batches(test_x, test_y)]).metrics
accuracy = found["client_work"]["eval"]["current_round_metrics"]["sparse_categorical_accuracy"]
print(f"accuracy {accuracy:.4f}")

"""Models: exact sizes, shapes, and the LSTM against a NumPy loop."""

import jax
import numpy as np
import pytest
from flax import nnx

from fljax import models


def parameters(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.parametrize(
    "name, num_classes, shape, count",
    [
        ("softmax_regression", 10, (28, 28, 1), 7_850),
        ("mlp", 10, (784,), 199_210),
        ("mcmahan_cnn", 10, (28, 28, 1), 1_663_370),
        ("emnist_cnn", 62, (28, 28, 1), 1_206_590),
        ("pfl_cifar10_cnn", 10, (32, 32, 3), 1_626_442),
        ("lenet_cnn", 10, (28, 28, 1), 44_426),
        ("lenet_cnn", 10, (32, 32, 3), 62_006),
        ("char_lstm", 90, (20,), 820_522),
    ],
)
def test_parameter_counts_and_output_shapes(name, num_classes, shape, count):
    factory = models.make(name, num_classes, shape)
    dtype = np.int32 if name == "char_lstm" else np.float32
    abstract = nnx.eval_shape(lambda: factory(nnx.Rngs(0)))
    assert parameters(abstract) == count
    x = jax.ShapeDtypeStruct((3, *shape), dtype)
    logits = jax.eval_shape(lambda x: factory(nnx.Rngs(0))(x), x)
    targets = (3, *shape) if name == "char_lstm" else (3,)
    assert logits.shape == (*targets, num_classes)


def test_softmax_regression_starts_at_zero():
    module = models.softmax_regression(6, 4)(nnx.Rngs(0))
    np.testing.assert_array_equal(module(np.ones((2, 6), np.float32)), np.zeros((2, 4)))


def test_mlp_is_matrix_products_and_relu_on_flat_inputs():
    module = models.mlp((6, 5, 3))(nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((4, 2, 3, 1)).astype(np.float32)
    first, second = module.layers
    hidden = np.maximum(x.reshape(4, 6) @ first.kernel[...] + first.bias[...], 0)
    np.testing.assert_allclose(
        module(x), hidden @ second.kernel[...] + second.bias[...], rtol=1e-5, atol=1e-6
    )


def test_images_may_come_flat():
    module = models.lenet_cnn(4, (16, 16, 1))(nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 1)).astype(np.float32)
    np.testing.assert_array_equal(module(x), module(x.reshape(2, -1)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_lstm_is_the_recurrence_of_its_definition():
    vocab, hidden = 5, 3
    module = models.char_lstm(vocab, embedding=2, hidden=hidden, layers=2)(nnx.Rngs(0))
    tokens = np.random.default_rng(0).integers(0, vocab, (4, 6))
    x = np.asarray(module.embed.embedding[...], np.float64)[tokens]
    for layer in module.layers:
        kernels = [layer.input_kernel, layer.hidden_kernel, layer.bias]
        w, u, b = (np.asarray(kernel[...], np.float64) for kernel in kernels)
        h = c = np.zeros((4, hidden))
        outputs = []
        for t in range(tokens.shape[1]):
            i, g, f, o = np.split(x[:, t] @ w + h @ u + b, 4, axis=-1)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs, 1)
    expected = x @ module.dense.kernel[...] + module.dense.bias[...]
    np.testing.assert_allclose(module(tokens), expected, rtol=1e-5, atol=1e-5)


def test_unknown_names_and_options_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'emnist_cnn'"):
        models.make("emnist_cn", 10, (28, 28, 1))
    with pytest.raises(ValueError, match="did you mean 'hidden'"):
        models.make("mlp", 10, (784,), hiden=(3,))
    with pytest.raises(ValueError, match="Known: none"):
        models.make("softmax_regression", 10, (784,), hidden=3)

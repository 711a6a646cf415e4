"""Models: exact sizes, shapes, and forward passes against their definitions."""

import jax
import numpy as np
import pytest
from flax import nnx

from fljax import models, tasks

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)


def parameters(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.parametrize(
    "name, num_classes, shape, count",
    [
        ("softmax_regression", 10, (28, 28, 1), 7_850),
        ("mlp", 10, (784,), 199_210),
        ("mcmahan_cnn", 10, (28, 28, 1), 1_663_370),
        ("mcmahan_cnn(padding='VALID')", 10, (28, 28, 1), 582_026),
        ("emnist_cnn", 62, (28, 28, 1), 1_206_590),
        ("pfl_cifar10_cnn", 10, (32, 32, 3), 1_626_442),
        ("lenet_cnn", 10, (28, 28, 1), 44_426),
        ("lenet_cnn", 10, (32, 32, 3), 62_006),
        ("resnet18_gn", 100, (32, 32, 3), 11_220_132),
        ("resnet18_gn", 10, (24, 24, 3), 11_173_962),
        ("resnet_gn(depth=20)", 10, (32, 32, 3), 272_474),
        ("mobilenet_gn", 10, (32, 32, 3), 1_350_250),
        ("mobilenet_gn(width=0.5)", 10, (28, 28, 1), 362_330),
        ("char_lstm", 90, (20,), 820_522),
        ("char_gru", 90, (20,), 621_866),
        ("gru_classifier", 6, (128, 9), 14_662),
    ],
)
def test_parameter_counts_and_output_shapes(name, num_classes, shape, count):
    factory = models.make(name, num_classes, shape)
    dtype = np.int32 if name.startswith("char") else np.float32
    abstract = nnx.eval_shape(lambda: factory(nnx.Rngs(0)))
    assert parameters(abstract) == count
    x = jax.ShapeDtypeStruct((3, *shape), dtype)
    logits = jax.eval_shape(lambda x: factory(nnx.Rngs(0))(x), x)
    targets = (3, *shape) if name.startswith("char") else (3,)
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


def small_resnet(rngs):
    """A ResNet-18 of two channels and more, whose normalizations do not start at the identity."""
    module = models.resnet18_gn(3, (9, 8, 2), width=2)(rngs)
    generator = np.random.default_rng(1)

    def perturbed(leaf):
        return leaf + 0.3 * generator.standard_normal(leaf.shape).astype(np.float32)

    nnx.update(module, jax.tree.map(perturbed, nnx.state(module, nnx.Param)))
    return module


def group_norm(x, norm, groups):
    """Normalizes [B, H, W, C] in groups of channels, in NumPy."""
    grouped = x.reshape(*x.shape[:3], groups, -1)
    mean, variance = (f(grouped, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    normal = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    return normal * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def test_resnet_is_xla_convolutions_and_normalized_groups():
    module = small_resnet(nnx.Rngs(0))
    x = np.random.default_rng(2).standard_normal((3, 9, 8, 2))

    def layer(x, conv, norm, stride=1):
        kernel = np.asarray(conv.kernel[...])
        half = kernel.shape[0] // 2
        y = jax.lax.conv_general_dilated(
            x.astype(np.float32), kernel, (stride, stride), [(half, half)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return group_norm(np.asarray(y, np.float64), norm, groups=2)

    y = np.maximum(layer(x, module.stem, module.norm), 0)
    for number, block in enumerate(module.blocks):
        stride = 2 if number in (2, 4, 6) else 1
        left = np.maximum(layer(y, block.conv1, block.norm1, stride), 0)
        left = layer(left, block.conv2, block.norm2)
        if stride == 2:
            y = layer(y, block.shortcut, block.shortcut_norm, stride)
        y = np.maximum(y + left, 0)
    assert y.shape == (3, 2, 1, 16)
    expected = y.mean((1, 2)) @ module.dense.kernel[...] + module.dense.bias[...]
    got = jax.jit(lambda x: module(x))(x.astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_resnet_trains_and_padding_rows_change_nothing():
    task = tasks.classification(models.resnet18_gn(3, (8, 8, 1), width=2), 3)
    params, frozen, model_state = task.init(jax.random.key(0))
    assert not jax.tree.leaves(model_state)
    generator = np.random.default_rng(0)
    y = np.arange(12, dtype=np.int32) % 3
    x = generator.standard_normal((12, 8, 8, 1)).astype(np.float32)
    x += generator.standard_normal((3, 8, 8, 1)).astype(np.float32)[y]

    def mean_loss(params, batch):
        (values, weights), _ = task.loss(params, frozen, model_state, batch, KEY, True)
        return values.sum() / weights.sum()

    gradient = jax.jit(jax.value_and_grad(mean_loss))
    mask = np.arange(12) < 9
    padded = {"x": np.where(mask[:, None, None, None], x, np.nan), "y": y, "mask": mask}
    real = {"x": x[:9], "y": y[:9], "mask": mask[:9]}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradient(params, padded),
        gradient(params, real),
    )
    losses = []
    for _ in range(20):
        loss, grads = gradient(params, padded)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, grads)
        losses.append(float(loss))
    assert losses[-1] < 0.2 * losses[0]


def test_groups_must_divide_the_width():
    with pytest.raises(ValueError, match="groups = 3 must divide width = 64"):
        models.make("resnet18_gn", 10, (32, 32, 3), groups=3)


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


def test_targets_without_classes_need_a_model_of_ones_own():
    with pytest.raises(ValueError, match="'mlp' has an output for each class, .* have none"):
        models.make("mlp", None, (8,))


def test_unknown_names_and_options_name_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'emnist_cnn'"):
        models.make("emnist_cn", 10, (28, 28, 1))
    with pytest.raises(ValueError, match="Did you mean 'hidden'"):
        models.make("mlp", 10, (784,), hiden=(3,))
    with pytest.raises(ValueError, match=r"no argument 'hidden' = 3. .*\(\)."):
        models.make("softmax_regression", 10, (784,), hidden=3)


@pytest.mark.parametrize(
    "name, smallest", [("mcmahan_cnn", 4), ("emnist_cnn", 6), ("lenet_cnn", 16)]
)
def test_images_that_are_too_small_are_refused(name, smallest):
    make = getattr(models, name)
    found = jax.eval_shape(
        lambda x: make(3, (smallest, smallest, 1))(nnx.Rngs(0))(x),
        jax.ShapeDtypeStruct((2, smallest, smallest, 1), np.float32),
    )
    assert found.shape == (2, 3)
    with pytest.raises(ValueError, match=f"at least {smallest} x {smallest}, not {smallest} x"):
        make(3, (smallest, smallest - 1, 1))

"""The U-Net against shifted sums, and its training by name."""

import jax
import numpy as np
import pytest
from flax import nnx

from fljax import data, models
from fljax.training.task_choice import as_task

pytestmark = pytest.mark.usefixtures("quick_compilation")


def convolved(x, layer):
    """Returns a padded convolution of [B, H, W, C] as a sum over the places of its kernel."""
    kernel = np.float64(layer.kernel[...])
    half = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    height, width = x.shape[1:3]
    found = sum(
        padded[:, down : down + height, right : right + width] @ kernel[down, right]
        for down in range(kernel.shape[0])
        for right in range(kernel.shape[1])
    )
    return found if layer.bias is None else found + np.float64(layer.bias[...])


def normalized(x, layer, groups):
    grouped = x.reshape(*x.shape[:3], groups, -1)
    mean, variance = (f(grouped, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    normal = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    return np.maximum(normal * np.float64(layer.scale[...]) + np.float64(layer.bias[...]), 0)


def passed(x, block, groups):
    x = normalized(convolved(x, block.conv1), block.norm1, groups)
    return normalized(convolved(x, block.conv2), block.norm2, groups)


def test_images_go_down_and_up_again():
    module = models.unet(3, (8, 4, 2), width=4, depth=2, groups=2)(nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((2, 8, 4, 2))
    found = jax.jit(lambda x: module(x))(x.astype(np.float32))
    beside, y = [], x
    for block in module.down:
        beside.append(passed(y, block, 2))
        size, height, width, channels = beside[-1].shape
        y = beside[-1].reshape(size, height // 2, 2, width // 2, 2, channels).max((2, 4))
    y = passed(y, module.bottom, 2)
    for block, same in zip(module.up, reversed(beside), strict=True):
        y = passed(np.concatenate([same, y.repeat(2, 1).repeat(2, 2)], -1), block, 2)
    assert found.shape == (2, 8, 4, 3)
    np.testing.assert_allclose(found, convolved(y, module.out), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((12, 8, 1), {"depth": 3}, "12 x 8 cannot be: choose a smaller depth.*multiple of 8"),
        ((8, 8), {}, "needs images"),
        ((8, 8, 1), {"groups": 3}, "groups = 3 must divide width = 16"),
        ((8, 8, 1), {"depth": 4}, "at least 16 x 16"),
    ],
)
def test_images_that_cannot_be_halved_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        models.unet(2, shape, **options)


def test_a_segmentation_task_makes_it_by_name():
    x, y = np.zeros((6, 8, 8, 1), np.float32), np.zeros((6, 8, 8), np.int32)
    images = data.from_arrays(x, y, kind="targets", client_ids=np.arange(6) % 2)
    task = as_task("unet(depth=2)", images, "segmentation(num_classes=3)")
    assert len(task.replaced_layers) == 11
    params, *rest = jax.eval_shape(task.init, jax.random.key(0))
    batch = {"x": x, "y": y, "mask": np.ones(6, bool)}
    measured = jax.eval_shape(task.measure, params, *rest, batch)
    assert measured.sums["overlap"].value.shape == (6, 3)
    with pytest.raises(ValueError, match=r"Write segmentation\(num_classes=...\)"):
        as_task("unet(depth=2)", images, "segmentation")

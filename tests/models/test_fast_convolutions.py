"""`with_fast_convolutions`: the same function and parameters, another convolution."""

import jax
import numpy as np
import pytest
from flax import linen, nnx

import fljax_kernels
from fljax import models
from fljax.models import with_fast_convolutions


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.conv(x))


class Net(nnx.Module):
    """Convolutions of every kind, in lists, one block twice."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs)
        block = Block(rngs)
        self.blocks = nnx.List([block, Block(rngs), block])
        self.up = nnx.ConvTranspose(4, 4, (2, 2), strides=(2, 2), rngs=rngs)
        self.depthwise = nnx.Conv(4, 4, 3, feature_group_count=4, rngs=rngs)
        self.own = nnx.Conv(4, 2, (1, 1), conv_general_dilated=own, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = self.up(x)
        x = self.depthwise(x.reshape(x.shape[0], -1, 4)).reshape(x.shape)
        return self.own(x)


def own(*args, **options):
    return jax.lax.conv_general_dilated(*args, **options)


def check(fast, plain):
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(fast(x), plain(x), rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(fast), nnx.state(plain))
    ours = fljax_kernels.conv_general_dilated
    for layer in (fast.stem, *(block.conv for block in fast.blocks)):
        assert layer.conv_general_dilated is ours
    assert fast.blocks[0] is fast.blocks[2]
    assert fast.depthwise.conv_general_dilated is jax.lax.conv_general_dilated
    assert fast.own.conv_general_dilated is own


def test_a_module_is_copied():
    plain = Net(nnx.Rngs(0))
    fast = with_fast_convolutions(plain)
    check(fast, plain)
    assert plain.stem.conv_general_dilated is jax.lax.conv_general_dilated


def test_a_factory_stays_one():
    check(with_fast_convolutions(Net)(nnx.Rngs(3)), Net(nnx.Rngs(3)))


@pytest.mark.parametrize("make", [models.emnist_cnn, models.resnet18_gn])
def test_a_form_is_chosen_for_a_whole_model(make):
    options = {} if make is models.emnist_cnn else {"width": 2, "groups": 1}
    plain, formed, again = (
        make(3, (8, 8, 2), **options, **form)(nnx.Rngs(0))
        for form in ({}, {"conv_form": "grouped"}, {"conv_form": "grouped"})
    )
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 2)).astype(np.float32)
    for module in (plain, formed):
        module.eval()
    np.testing.assert_allclose(formed(x), plain(x), rtol=1e-4, atol=1e-5)

    def primitives(module):
        return str(jax.make_jaxpr(lambda x: module(x))(x))

    assert "conv_general_dilated" in primitives(formed)
    assert "conv_general_dilated" not in primitives(plain)
    assert nnx.graphdef(formed) != nnx.graphdef(plain)
    again.eval()
    assert nnx.graphdef(formed) == nnx.graphdef(again)


def test_models_by_name_take_a_form_and_refuse_unknown_ones():
    models.make("lenet_cnn", 3, (16, 16, 1), conv_form="gemm")
    with pytest.raises(ValueError, match="form = 'winogard' is not one of 'auto'"):
        models.make("lenet_cnn", 3, (16, 16, 1), conv_form="winogard")


def test_linen_modules_are_refused_with_the_way_out():
    with pytest.raises(TypeError, match="conv_general_dilated=fljax_kernels"):
        with_fast_convolutions(linen.Conv(4, (3, 3)))

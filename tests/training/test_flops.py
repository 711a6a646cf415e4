"""Operations are counted as a person counts them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import fljax_kernels
from fljax import models
from fljax.tasks import classification, next_token
from fljax.training.flops import training_flops


def spec(shape, dtype=np.float32, targets=()):
    return {
        "x": jax.ShapeDtypeStruct(shape, dtype),
        "y": jax.ShapeDtypeStruct(targets, np.int32),
    }


def test_a_perceptron():
    model = models.make("mlp", 7, (11,), hidden=(5,))
    # the first layer has no gradient of its inputs, the second has
    by_hand = 2 * (2 * 11 * 5 + 3 * 5 * 7)
    assert training_flops(classification(model, 7), spec((11,)), 3) == 3 * by_hand


def test_a_convolution_and_a_frozen_layer():
    class Net(nnx.Module):
        def __init__(self, rngs):
            conv = partial(nnx.Conv, kernel_size=(3, 2), rngs=rngs)
            self.first = conv(4, 5, conv_general_dilated=lax.conv_general_dilated)
            self.second = conv(5, 6, padding="VALID")
            self.out = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, x):
            return self.out(self.second(self.first(x)).mean((1, 2)))

    first, second, out = 8 * 9 * 5 * 6 * 4, 6 * 8 * 6 * 6 * 5, 6 * 3
    count = partial(training_flops, spec=spec((8, 9, 4)), batch_size=2)
    assert count(classification(Net, 3)) == 2 * 2 * (2 * first + 3 * second + 3 * out)
    # nothing flows back to a layer that does not learn
    task = classification(Net, 3, frozen=nnx.PathContains("first"))
    assert count(task) == 2 * 2 * (first + 2 * second + 3 * out)


def test_every_time_of_a_recurrent_model():
    vocabulary, times, inputs, hidden = 11, 5, 4, 8
    model = models.make("char_lstm", vocabulary, (times,), embedding=inputs, hidden=hidden)
    found = training_flops(
        next_token(model, vocabulary), spec((times,), np.int32, targets=(times,)), 3
    )
    per_token = 4 * hidden * (inputs + hidden) + 4 * hidden * 2 * hidden + hidden * vocabulary
    assert found == 3 * 2 * per_token * times * 3


class Convolutions(nnx.Module):
    """Of every kind: cropped, strided, in groups, dilated, transposed, large."""

    def __init__(self, conv, rngs):
        conv = partial(nnx.Conv, rngs=rngs, conv_general_dilated=conv)
        self.layers = nnx.List(
            [
                conv(4, 8, (3, 3), padding="VALID"),
                conv(8, 8, (3, 3), strides=2),
                conv(8, 8, (3, 3), feature_group_count=4),
                conv(8, 16, (3, 3), kernel_dilation=2),
                conv(16, 24, (3, 3), input_dilation=2, padding=((1, 1), (2, 0))),
                conv(24, 32, (5, 5)),
                conv(32, 32, (3, 3), padding=((0, 2), (1, 1))),
            ]
        )
        self.out = nnx.Linear(32, 3, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.out(x.mean((1, 2)))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_convolution_is_counted_as_a_direct_one_in_every_form(backend, monkeypatch):
    """The work of a model does not depend on how, nor on where it is counted."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    ours = fljax_kernels.conv_general_dilated
    forms = [ours, *(partial(ours, form=form) for form in ("gemm", "grouped"))]
    found = {
        training_flops(classification(partial(Convolutions, conv), 3), spec((13, 11, 4)), 2)
        for conv in (lax.conv_general_dilated, *forms)
    }
    assert max(found) == pytest.approx(min(found), rel=1e-12)
    shape = (28, 28, 1)
    for form in ("auto", "gemm", "winograd", "grouped"):
        model = models.make("mcmahan_cnn", 10, shape, conv_form=form)
        first, second = 28 * 28 * 25 * 32, 14 * 14 * 25 * 32 * 64
        rest = 49 * 64 * 512 + 512 * 10
        by_hand = 2 * (2 * first + 3 * second + 3 * rest)
        count = partial(training_flops, spec=spec(shape), batch_size=3)
        assert count(classification(model, 10)) == pytest.approx(3 * by_hand, rel=1e-12)
        # in each step of a loop
        looped = lambda rngs, model=model: Thrice(model, rngs)  # noqa: E731
        assert count(classification(looped, 10)) == pytest.approx(3 * 3 * by_hand, rel=1e-12)


class Thrice(nnx.Module):
    """A model that runs through a loop three times."""

    def __init__(self, make, rngs):
        self.model = make(rngs)

    def __call__(self, x):
        graph, state = nnx.split(self.model)

        def body(total, _):
            return total + nnx.merge(graph, state)(x), None

        start = jnp.zeros((x.shape[0], 10))
        return lax.scan(body, start, None, length=3)[0]

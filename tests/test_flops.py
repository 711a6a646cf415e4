"""Operations are counted as a person counts them."""

from functools import partial

import jax
import numpy as np
from flax import nnx
from jax import lax

from fljax import models
from fljax.flops import training_flops
from fljax.tasks import classification, next_token


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

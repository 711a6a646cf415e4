"""Two functions are alike where they have the same code and close over what is alike."""

import functools
import operator

import jax.numpy as jnp
import numpy as np
import pytest

from fljax.studies.groups import key_of, same_key


def scaled(factor, then=abs):
    return lambda x: then(factor * x)


def counting(times):
    def down(n):
        return times if n == 0 else down(n - 1)

    return down


def with_default(value):
    def function(x, y=value, *, z=value):
        return x + y + z

    return function


class Machine:
    def __init__(self, speed):
        self.speed = speed

    def run(self):
        return self.speed


MACHINE, ON_DEVICE = Machine(1), jnp.arange(3)

# (what makes a value, arguments that make others)
MAKERS = [
    (scaled, 2, 3),
    (scaled, 2, 2.0),
    (lambda factor: scaled(1, scaled(factor)), 2, 3),
    (counting, 2, 3),
    (with_default, 2, 3),
    (lambda power: functools.partial(operator.pow, power), 2, 3),
    (lambda keyword: functools.partial(dict, a=keyword), 2, 3),
    (lambda entry: {"a": [scaled(entry)], "b": (1, entry)}, 2, 3),
    (lambda step: scaled(np.arange(0, 6, step)), 2, 3),
    (lambda kind: np.zeros(2, kind), np.float32, np.int32),
]


@pytest.mark.parametrize("make, one, other", MAKERS)
def test_values_made_anew_are_alike_where_they_do_the_same(make, one, other):
    assert same_key(key_of(make(one)), key_of(make(one)))
    assert not same_key(key_of(make(one)), key_of(make(other)))


def test_other_code_is_another_function():
    assert not same_key(key_of(lambda x: x + 1), key_of(lambda x: x - 1))


def test_what_nothing_is_known_of_is_like_itself_alone():
    assert same_key(key_of(MACHINE.run), key_of(MACHINE.run))
    one, other = Machine(1), Machine(1)
    assert not same_key(key_of(one.run), key_of(other.run))
    assert same_key(key_of(scaled(ON_DEVICE)), key_of(scaled(ON_DEVICE)))
    copy = ON_DEVICE.copy()
    assert not same_key(key_of(scaled(ON_DEVICE)), key_of(scaled(copy)))


def test_what_refuses_to_be_compared_is_not_alike():
    class Rude:
        def __eq__(self, other):
            raise TypeError

    one, other = Rude(), Rude()
    assert not same_key(key_of(one), key_of(other))

"""The harness itself: zeroed rows, shares of devices, traced numbers, states that differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from robustness.harness import applied, attacked

from fljax.core.transforms import Aggregator, CohortLink
from fljax.robustness.stacks import square_norms

STACK = np.arange(20.0).reshape(4, 5) + 1


def scaled_sum(scale=1.0):
    def apply(stack, cohort, state):
        norms = square_norms(stack, cohort)
        return scale * stack.sum(0), state + 1, {"norm": (norms, cohort.valid)}

    return Aggregator("stack", apply, init=lambda params: jnp.int32(0), reports=("norm",))


PLAIN = scaled_sum()


@pytest.mark.parametrize("devices", [1, 2])
def test_an_aggregator_sees_rows_that_are_there_and_shares_of_them(devices):
    valid = [True, False, True, True]
    found = applied(PLAIN, STACK, valid, devices=devices)
    np.testing.assert_array_equal(found.value, STACK[valid].sum(0))
    norms, weight = found.reports["norm"]
    np.testing.assert_array_equal(norms[valid], (STACK[valid] ** 2).sum(1))
    assert weight.tolist() == valid and norms[1] == 0 and found.state == 1
    assert applied(PLAIN, STACK, valid, devices=devices, state=found.state).state == 2


def test_numbers_are_traced():
    seen = []

    def rule(scale):
        seen.append(isinstance(scale, jax.Array))
        return scaled_sum(scale)

    np.testing.assert_array_equal(applied(rule, STACK, traced={"scale": 2}).value, 2 * STACK.sum(0))
    assert seen == [False, True]  # its first state is of the number, its rounds of the argument


def test_colluders_replace_their_rows():
    flipped = CohortLink(
        lambda stack, cohort, state, key: (
            jnp.where(cohort.attackers[:, None], -stack, stack), cohort.clients,
        ),
        init=lambda params: jnp.zeros(4, jnp.int32),
    )  # fmt: skip
    sent = attacked(flipped, STACK, [True, True, False, False], [True, False, True, True])
    np.testing.assert_array_equal(sent.stack, STACK * np.array([[-1], [0], [1], [1]]))
    assert sent.state.tolist() == [0, -1, 2, 3]


def test_a_state_that_differs_between_devices_is_found():
    def apply(stack, cohort, state):
        return stack.sum(0), jax.lax.axis_index(cohort.axis_name)

    with pytest.raises(AssertionError):
        applied(Aggregator("stack", apply), STACK, devices=2)

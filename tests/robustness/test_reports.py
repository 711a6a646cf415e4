"""Reports of rules on updates that they reject, with attackers and without."""

import jax.numpy as jnp
import numpy as np
from robustness.harness import applied

from fljax.core.transforms import Aggregator
from fljax.robustness.reports import REJECTIONS, rejections

KEPT = np.array([True, False, True, False, True, False])
VALID = np.array([True, True, True, True, False, False])


def keep_some(stack, cohort, state):
    return stack.sum(0), state, rejections(jnp.asarray(KEPT), cohort)


RULE = Aggregator("stack", keep_some, reports=REJECTIONS)


def test_shares_are_of_those_who_are_there():
    hostile = np.array([True, True, False, False, True, True])
    found = applied(RULE, np.ones((6, 2)), VALID, attackers=hostile).reports
    assert set(found) == set(REJECTIONS)
    for name, wrong, of in (
        ("robustness/rejected", [0, 1, 0, 1, 0, 0], VALID),
        ("robustness/false_positives", [0, 0, 0, 1, 0, 0], VALID & ~hostile),
        ("robustness/false_negatives", [1, 0, 0, 0, 0, 0], VALID & hostile),
    ):
        value, weight = found[name]
        assert value.dtype == weight.dtype == float
        assert value.tolist() == wrong and weight.tolist() == of.tolist()


def test_nothing_is_wrong_where_nobody_is_known_to_be_hostile():
    found = applied(RULE, np.ones((6, 2)), VALID).reports
    assert found["robustness/rejected"][0].sum() == 2
    for name in REJECTIONS[1:]:
        assert not found[name][0].any() and not found[name][1].any()

"""Functions of one's own that say what part of their work clients do."""

import numpy as np
import pytest

from fljax.core.sampler import replay
from fljax.systems.completeness import in_part
from fljax.systems.devices import equal
from fljax.systems.fleet import Fleet
from fljax.systems.names import check_name, make_part
from fljax.systems.synchronous import wait_for_all


@pytest.mark.parametrize("text", ["all", "fljax.systems.nothing:part"])
def test_unknown_names_say_what_a_function_of_ones_own_is(text):
    with pytest.raises(ValueError, match="returns a function .clients, seed, number of the round"):
        check_name("completeness", text)


def test_what_is_no_function_is_refused():
    with pytest.raises(ValueError, match="statistics:mean returned 2 .int.. Your own function"):
        make_part("completeness", "statistics:mean([2])", {})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (0.5, "completeness returned in round 0 = 0.5 .float. must be 2 numbers"),
        (np.array([0.5, 1.5]), "gives client 1 the share 1.5 in round 0"),
        (np.array([np.nan, 1.0]), "gives client 0 the share nan in round 0"),
    ],
)
def test_shares_are_checked(part, message):
    fleet = Fleet(equal(2), None, np.array([10, 20]), 0.0, 0.0, 0.0, seed=0)
    waits = wait_for_all(fleet, lambda count: replay([[0, 1]], num_clients=2), 2)
    some = in_part(waits, fleet, lambda clients, seed, number: part)
    with pytest.raises(ValueError, match=message):
        some.draw(some.init(), 0)

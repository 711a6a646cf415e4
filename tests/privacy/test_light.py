"""LightSecAgg: coded masks, what they cost, and what they hide."""

from itertools import combinations

import numpy as np
import pytest

from fljax.privacy.secagg import light
from fljax.privacy.secagg.channel import ProtocolError

NUMBERS = np.random.default_rng(2).integers(-(2**20), 2**20, (9, 31))


def test_the_sum_is_exact_whoever_is_lost_and_bytes_are_the_formula():
    code = light.make_code(9, private=3, lost=3)
    held = light.run(NUMBERS, code, lost={"input": [2, 5], "unmask": [7]})
    np.testing.assert_array_equal(held.total, NUMBERS[[0, 1, 3, 4, 6, 7, 8]].sum(0))
    for stage, expected in light.expected_bytes(code, 31).items():
        gone = {"input": [2, 5], "unmask": [2, 5, 7]}.get(stage, [])
        assert [held.sent[stage][n] for n in range(9) if n not in gone] == [expected] * (
            9 - len(gone)
        )
        assert not held.sent[stage][gone].any()


def test_any_survivors_that_are_enough_take_the_same_mask_away():
    code = light.make_code(6, private=2, lost=2)
    mask = np.arange(2**31 - 8, 2**31 - 1, dtype=np.uint32)
    random = np.full((2, code.piece_size(7)), 12345, np.uint32)
    pieces = light.coded(code, mask, random)
    for chosen in combinations(range(6), 4):
        answers = {client: pieces[client] for client in chosen}
        np.testing.assert_array_equal(light.decoded(code, answers, 7), mask)
    with pytest.raises(ProtocolError, match="3 clients have answered and 4 must"):
        light.decoded(code, {n: pieces[n] for n in range(3)}, 7)


def test_few_pieces_fit_every_mask():
    """The random columns of those rows are invertible, so pieces are uniform whatever the mask."""
    code = light.make_code(6, private=2, lost=1)
    columns = light._matrix(code)[:, -code.private :].astype(object)
    for rows in combinations(range(6), 2):
        (a, b), (c, d) = columns[list(rows)]
        assert (a * d - b * c) % light.PRIME


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="9 clients 6 may be lost and 3 put"):
        light.make_code(9, private=3, lost=6)
    with pytest.raises(ValueError, match="at least 1 must"):
        light.make_code(9, private=0, lost=6)
    code = light.make_code(3, private=1, lost=0)
    with pytest.raises(ValueError, match="might reach 2\\^30"):
        light.run(np.full((3, 2), 2**29), code)
    with pytest.raises(ProtocolError, match="2 clients have answered and 3 must"):
        light.run(NUMBERS[:3], code, lost={"input": [0]})

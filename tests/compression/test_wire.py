"""Fields on the wire."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax.compression import wire


def test_fields_stand_one_behind_the_other_without_padding():
    layout = {
        "a": wire.unsigned((3,), 3, np.int32),
        "inner": {"b": wire.signed((2,), 5, np.int8)},
        "c": wire.bitmap(2, 6),
    }
    payload = {
        "a": np.array([1, 7, 4]),
        "inner": {"b": np.array([-16, 15])},
        "c": np.array([0, 5]),
    }
    message = wire.to_bytes(layout, payload)
    # lowest bits first: 100 111 001, then 00001 11110, then 100001
    stream = "100111001" + "0000111110" + "100001"
    expected = [int(stream.ljust(32, "0")[n : n + 8][::-1], 2) for n in range(0, 32, 8)]
    assert list(message) == expected
    assert wire.bits(layout, payload) == 25
    read = wire.from_bytes(layout, message)
    jax.tree.map(np.testing.assert_array_equal, read, payload)


@pytest.mark.parametrize("d", [1, 4, 5, 6, 11])
def test_five_ternary_digits_share_a_byte(d):
    layout = {"x": wire.base(3, 5, 8, d)}
    x = np.random.default_rng(d).integers(0, 3, d).astype(np.int8)
    message = wire.to_bytes(layout, {"x": x})
    assert len(message) == -(-d // 5)
    np.testing.assert_array_equal(wire.from_bytes(layout, message)["x"], x)


def test_floats_travel_bit_for_bit():
    layout = {"s": wire.floats(), "x": wire.floats((3,), jnp.bfloat16)}
    payload = {"s": np.float32(-0.1), "x": np.array([1, -0.0, 3e38], jnp.bfloat16)}
    read = wire.from_bytes(layout, wire.to_bytes(layout, payload))
    assert read["s"] == payload["s"] and read["s"].shape == ()
    np.testing.assert_array_equal(read["x"].view(np.uint16), payload["x"].view(np.uint16))


def test_what_32_bits_cannot_count_is_refused():
    assert int(wire.count(2**32 - 1)) == 2**32 - 1
    with pytest.raises(ValueError, match="512 MiB"):
        wire.count(2**32)

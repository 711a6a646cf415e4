"""Sends little more than signs: one bit a coordinate, three values, powers of two."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from fljax.compression import wire
from fljax.compression.compressor import Compressor, fixed_size
from fljax.compression.compressor_arguments import check_positive
from fljax_kernels.natural import round_to_powers_of_two
from fljax_kernels.quantize import largest_magnitude
from fljax_kernels.sign import mean_magnitude
from fljax_kernels.ternary import deternarize, ternarize


def sign() -> Compressor:
    """Returns the signs, scaled by the mean magnitude: sign(x) |x|_1 / d.

    Karimireddy et al. 2019 (arXiv:1901.09847); biased, for `error_feedback`. A zero counts as
    positive. With `uplink(sign(), per_leaf=True)` every tensor has a scale of its own.

    Wire format: the scale (32 bits), then one bit a coordinate: d + 32 bits. alpha = 1 / d, and
    |x|_1^2 / (d |x|^2) of a vector x, which is 2 / pi for normal coordinates.

    Example:
      >>> code, x = compression.sign(), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 1.62 -1.62  1.62 -1.62] 36 bits
    """

    def decode(payload, d):
        scale = jnp.asarray(payload["scale"])
        return jnp.where(payload["positive"] != 0, scale, -scale)

    return fixed_size(
        "sign",
        "Karimireddy et al. 2019, arXiv:1901.09847",
        encode=lambda key, x: {"scale": mean_magnitude(x), "positive": (x >= 0).astype(jnp.uint8)},
        decode=decode,
        layout=lambda d: {
            "scale": wire.floats(),
            "positive": wire.unsigned((d,), 1, np.uint8),
        },
        alpha=lambda d: 1 / d,
    )


def terngrad(*, clip: float | None = None) -> Compressor:
    """Returns TernGrad: -m, 0 or m with m = max |x|, at random so that the mean stays.

    Wen et al. 2017 (arXiv:1705.07878); unbiased unless it clips. With `uplink(..., per_leaf=True)`
    every tensor has a maximum of its own, as in the paper.

    Args:
      clip: Standard deviations at which coordinates are clipped first; the paper takes 2.5.

    Wire format: the maximum (32 bits), then five coordinates a byte: 8 ceil(d / 5) + 32 bits.
    omega = (sqrt(d) - 1) / 2 without clipping.

    Example:
      >>> code, x = compression.terngrad(), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [3. 0. 0. 0.] 40 bits
    """

    if clip is not None:
        check_positive("clip", clip)

    def encode(key, x):
        if clip is not None:
            bound = clip * jnp.std(x)
            x = jnp.clip(x, -bound, bound)
        scale = largest_magnitude(x)
        return {"scale": scale, "trits": ternarize(x, scale, key)}

    def decode(payload, d):
        return deternarize(jnp.asarray(payload["trits"]), jnp.asarray(payload["scale"]))

    return fixed_size(
        "terngrad" if clip is None else f"terngrad({clip:g})",
        "Wen et al. 2017, arXiv:1705.07878",
        encode,
        decode,
        layout=lambda d: {"scale": wire.floats(), "trits": wire.base(3, 5, 8, d)},
        omega=(lambda d: (math.sqrt(d) - 1) / 2) if clip is None else None,
    )


def natural() -> Compressor:
    """Returns natural compression: random rounding to a neighbouring power of two.

    Horvath et al. 2019 (arXiv:1905.10988). Unbiased for magnitudes below 2^127, which become that;
    the constant holds from 2^-126 on, what is smaller becomes 0 or that.

    Wire format: 9 bits a coordinate, sign and exponent as float32 has them: 9 d bits. omega = 1/8.

    Example:
      >>> code, x = compression.natural(), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 2.  -1.   0.5 -2. ] 36 bits
    """

    def encode(key, x):
        rounded = jax.lax.bitcast_convert_type(round_to_powers_of_two(x, key), jnp.uint32)
        return {"powers": (rounded >> 23).astype(jnp.uint16)}

    def decode(payload, d):
        bits = jnp.asarray(payload["powers"]).astype(jnp.uint32) << 23
        return jax.lax.bitcast_convert_type(bits, jnp.float32)

    return fixed_size(
        "natural",
        "Horvath et al. 2019, arXiv:1905.10988",
        encode,
        decode,
        layout=lambda d: {"powers": wire.unsigned((d,), 9, np.uint16)},
        omega=lambda d: 0.125,
    )

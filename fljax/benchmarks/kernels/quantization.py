"""Times what compresses: `python -m fljax.benchmarks.kernels.quantization [--out=FILE.json]`.

Everything runs as it does in a round: inside a compiled loop, one copy on each device at the same
time (a CPU is split into one device per core). Gigabytes per second count what must be read and
written at least, which is each argument and each result once, and stand beside those of copying a
vector of the same size, measured in the same run. "trip" is from a vector to what
the server decodes, without packing; "encode" is to the packed bytes, "decode" from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from fljax.benchmarks.kernels import bandwidth
from fljax.benchmarks.kernels.timed_loop import milliseconds
from fljax.engine.devices.execution import use_all_cores
from fljax_kernels import natural, packing, quantize, sign, ternary
from fljax_kernels.hadamard import hadamard_transform, next_power_of_two, rotate, rotate_back
from fljax_kernels.random_words import random_words

BLOCK = 8192
Forms = dict[str, tuple[Callable, tuple[jax.Array, ...]]]


def _key(x: jax.Array) -> jax.Array:
    """Returns a key that is known no sooner than x: else a loop might draw its words once."""
    return jax.random.wrap_key_data((0 * x[:2]).astype(jnp.uint32) + jnp.uint32(0x5EED))


def _codec(x, scale, encode, decode, pack, unpack) -> Forms:
    """Forms of a compressor.

    Args:
      x: Vector.
      scale: Of x, to what is sent beside the codes.
      encode: Of (x, scale).
      decode: Of (codes, scale).
      pack: Of codes.
      unpack: Of packed codes.
    """

    def to_bytes(x):
        scales = scale(x)
        return pack(encode(x, scales)), scales

    def from_bytes(packed, *scales):
        return decode(unpack(packed), jax.tree.unflatten(structure, scales))

    def trip(x):
        scales = scale(x)
        return decode(encode(x, scales), scales)

    packed, scales = jax.jit(to_bytes)(x)
    scales, structure = jax.tree.flatten(scales)
    return {
        "trip": (trip, (x,)),
        "encode": (to_bytes, (x,)),
        "decode": (from_bytes, (packed, *scales)),
    }


def _compressors(x: jax.Array) -> Iterator[tuple[str, Forms]]:
    """Yields (name, forms)."""
    size = x.size

    def bits(number):
        return (
            lambda codes: packing.pack_bits(codes, number),
            lambda packed: packing.unpack_bits(packed, number, size),
        )

    def symmetric(level, stochastic=True):
        return (
            lambda x, s: quantize.quantize_symmetric(x, s, level, _key(x) if stochastic else None),
            lambda codes, s: quantize.dequantize_symmetric(codes, s, level),
        )

    largest = quantize.largest_magnitude
    yield "QSGD, 4 bits", _codec(x, quantize.euclidean_norm, *symmetric(7), *bits(4))
    yield "QSGD, 5 bits", _codec(x, quantize.euclidean_norm, *symmetric(15), *bits(5))
    yield "int8", _codec(x, largest, *symmetric(127), *bits(8))
    yield "int8, to nearest", _codec(x, largest, *symmetric(127, stochastic=False), *bits(8))
    yield (
        "range, 4 bits",
        _codec(
            x,
            quantize.value_range,
            lambda x, bounds: quantize.quantize_range(x, *bounds, levels=16, key=_key(x)),
            lambda codes, bounds: quantize.dequantize_range(codes, *bounds, levels=16),
            *bits(4),
        ),
    )
    yield (
        "sign",
        _codec(
            x,
            sign.mean_magnitude,
            lambda x, scale: jnp.where(x >= 0, 1.0, -1.0),
            lambda signs, scale: signs * scale,
            sign.pack_signs,
            lambda packed: sign.unpack_signs(packed, jnp.float32(1), size),
        ),
    )
    yield (
        "TernGrad",
        _codec(
            x,
            largest,
            lambda x, scale: ternary.ternarize(x, scale, _key(x)),
            ternary.deternarize,
            ternary.pack_trits,
            lambda packed: ternary.unpack_trits(packed, size),
        ),
    )
    yield (
        "natural",
        _codec(
            x,
            lambda x: (),
            lambda x, scale: natural.round_to_powers_of_two(x, _key(x)),
            lambda x, scale: x,
            natural.pack_powers_of_two,
            lambda packed: natural.unpack_powers_of_two(packed, size),
        ),
    )


def _butterflies(x):
    half = 1
    while half < x.size:
        pairs = x.reshape(-1, 2, half)
        x = jnp.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).ravel()
        half *= 2
    return x / x.size**0.5


def kernels(size: int) -> Iterator[tuple[str, Forms]]:
    """Yields (name, {form: (function, arguments)}) for vectors of a size."""
    x = jax.random.normal(jax.random.key(0), (size,))
    yield (
        "random words",
        {
            "hash": (lambda x: random_words(_key(x), size), (x,)),
            "threefry": (lambda x: jax.random.bits(_key(x), (size,)), (x,)),
        },
    )
    yield from _compressors(x)
    for bits in range(1, 9):
        codes = jax.random.bits(jax.random.key(1), (size,), jnp.uint8) >> (8 - bits)
        packed = packing.pack_bits(codes, bits)
        yield (
            f"packing, {bits} bits",
            {
                "pack": (lambda codes, bits=bits: packing.pack_bits(codes, bits), (codes,)),
                "unpack": (
                    lambda packed, bits=bits: packing.unpack_bits(packed, bits, size),
                    (packed,),
                ),
            },
        )
    whole = jnp.pad(x, (0, next_power_of_two(size) - size))
    yield (
        f"rotation of {whole.size}",
        {
            "products": (hadamard_transform, (whole,)),
            "butterflies": (_butterflies, (whole,)),
            "forth": (lambda x: rotate(x, _key(x)), (whole,)),
            "back": (lambda x: rotate_back(x, _key(x)), (whole,)),
        },
    )
    blocks = jnp.pad(x, (0, -size % BLOCK)).reshape(-1, BLOCK)

    def keys(x):
        return jax.random.split(_key(x.ravel()), x.shape[0])

    yield (
        f"rotation of blocks of {BLOCK}",
        {
            "forth": (lambda x: rotate(x, keys(x)), (blocks,)),
            "back": (lambda x: rotate_back(x, keys(x)), (blocks,)),
        },
    )


def rows(size: int, clients: int) -> Iterator[dict[str, Any]]:
    """Yields one row for each form of each kernel.

    Args:
      size: Entries of a vector.
      clients: Clients side by side on each device; 0 is one without that axis.
    """
    for kernel, forms in kernels(size):
        for form, (function, args) in forms.items():
            time = milliseconds(function, *args, clients=clients)
            arrays = [*args, *jax.tree.leaves(jax.eval_shape(function, *args))]
            moved = sum(array.size * array.dtype.itemsize for array in arrays)
            if kernel == "random words":  # their argument makes them wait, and that is all
                moved -= 4 * size
            yield {
                "kernel": kernel,
                "form": form,
                "milliseconds": time,
                "gigabytes_per_second": bandwidth.gigabytes_per_second(moved, time, clients),
            }


def main(arguments: list[str] | None = None) -> None:
    """Prints a table, and writes it as JSON where asked to."""
    options = bandwidth.options(__doc__.partition("\n")[0]).parse_args(arguments)
    bandwidth.report(bandwidth.run(rows, options.sizes, options.clients), options.out)


if __name__ == "__main__":
    use_all_cores()
    main()

"""Draws counter-based random numbers on the host: the same for the same key, in any order.

NumPy's generators are sequential, and one generator a client costs about 20 µs each. Here every
random word is a hash of its coordinates, so that a planner draws for a whole cohort in one
vectorized call, and a client's draw depends on (seed, purpose, round, client, ...) alone: never on
who else was drawn. The mixing function is the finalizer of SplitMix64 (Steele, Lea and Flood,
OOPSLA 2014), applied once a coordinate.
"""

from __future__ import annotations

import zlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def _mix(z: np.ndarray) -> np.ndarray:
    """Returns the mixed words, in the memory of the ones given."""
    z ^= z >> np.uint64(30)
    z *= _MIX1
    z ^= z >> np.uint64(27)
    z *= _MIX2
    z ^= z >> np.uint64(31)
    return z


def bits(seed: int, purpose: str, *coordinates) -> np.ndarray:
    """Returns uint64 random words, one for each broadcast combination of the coordinates.

    Args:
      seed: Any integer.
      purpose: Separates the streams of one seed, such as "shuffle" or "sampler".
      *coordinates: Integer scalars or arrays that broadcast together.

    Returns:
      uint64 array of the broadcast shape; equal coordinates give equal words.
    """
    with np.errstate(over="ignore"):
        word = _mix(np.asarray(seed & 0xFFFFFFFFFFFFFFFF, np.uint64) + _GOLDEN)
        word = _mix(word ^ np.uint64(zlib.crc32(purpose.encode())) + _GOLDEN)
    return fold_in(word, *coordinates)


def fold_in(words: np.ndarray, *coordinates) -> np.ndarray:
    """Returns the words of `bits` at further coordinates.

    `fold_in(bits(seed, purpose, a), b)` is `bits(seed, purpose, a, b)`: where many b share an a,
    the words of a are computed once.

    Args:
      words: uint64 array of `bits` or `fold_in`.
      *coordinates: Integer scalars or arrays that broadcast with the words.
    """
    with np.errstate(over="ignore"):
        for coordinate in coordinates:
            coordinate = np.asarray(coordinate).astype(np.int64).view(np.uint64)
            words = _mix((words + _GOLDEN) ^ (coordinate * _MIX2 + _GOLDEN))
    return np.asarray(words)


def uniform(seed: int, purpose: str, *coordinates) -> np.ndarray:
    """Returns float64 uniforms in the open interval (0, 1), keyed as in `bits`."""
    return as_uniform(bits(seed, purpose, *coordinates))


def as_uniform(words: np.ndarray) -> np.ndarray:
    """Returns float64 uniforms in the open interval (0, 1), made of words of `bits`."""
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def normal(seed: int, purpose: str, *coordinates) -> np.ndarray:
    """Returns float64 standard normals (Box and Muller, 1958), keyed as in `bits`."""
    radius = np.sqrt(-2.0 * np.log(uniform(seed, purpose + "/radius", *coordinates)))
    return radius * np.cos(2.0 * np.pi * uniform(seed, purpose + "/angle", *coordinates))


def generator(seed: int, purpose: str, *coordinates) -> np.random.Generator:
    """Returns an ordinary NumPy generator for set-up work that runs once."""
    return np.random.default_rng(int(bits(seed, purpose, *coordinates)))

"""Definitions of the kernels that compress, in NumPy: float64, and loops over bits and digits."""

from __future__ import annotations

import numpy as np


def random_words_reference(key_words: list[int], size: int) -> np.ndarray:
    """Returns the words of one key, by Python's integers: uint32[size]."""

    def mix(word):
        word = ((word ^ word >> 16) * 0x85EBCA6B) % 2**32
        word = ((word ^ word >> 13) * 0xC2B2AE35) % 2**32
        return word ^ word >> 16

    words = [(index + 1) * 0x9E3779B9 % 2**32 for index in range(size)]
    for key_word in key_words:
        words = [mix(word ^ int(key_word)) for word in words]
    return np.array(words, np.uint32)


def pack_bits_reference(values: np.ndarray, bits: int) -> np.ndarray:
    """Packs integers [d] bit by bit: uint8[ceil(d * bits / 8)]."""
    group = next(g for g in (1, 2, 4, 8) if g * bits % 8 == 0)
    groups, rest = divmod(len(values), group)
    head = [values[j : groups * group : groups] for j in range(groups)]
    columns = np.array([_bytes(number, bits) for number in head], np.uint8).T.ravel()
    tail = _bytes(values[groups * group :], bits) if rest else []
    return np.array([*columns, *tail], np.uint8)


def _bytes(values, bits):
    """Returns the bytes of a stream of bits, the lowest first."""
    number = sum(int(value) << (bits * place) for place, value in enumerate(values))
    return list(number.to_bytes(-(-len(values) * bits // 8), "little"))


def pack_trits_reference(trits: np.ndarray) -> np.ndarray:
    """Packs trits [d] byte by byte: uint8[ceil(d / 5)]."""
    size = -(-len(trits) // 5)
    groups = [trits[j::size] for j in range(size)]
    return np.array(
        [sum(int(t) * 3**place for place, t in enumerate(group)) for group in groups], np.uint8
    )


def round_reference(x: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Rounds float64[d] up where 24 bits of a word are below 2 ** 24 times the fraction."""
    below = np.floor(x)
    return below + ((words >> 8) * 2.0**-24 < x - below)


def natural_reference(x: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Rounds finite float32[d] below 2 ** 127 to powers of two, in float64."""
    x = np.asarray(x, np.float64)
    exponent = np.where(x == 0, -127, np.frexp(x)[1] - 1)
    low = np.where(exponent < -126, 0, np.ldexp(1.0, exponent))
    high = np.where(exponent < -126, np.ldexp(1.0, -126), 2 * low)
    share = (np.abs(x) - low) / (high - low)
    # the carry of 23 random bits added to 23 bits of mantissa
    up = (words & (2**23 - 1)) + share * 2**23 >= 2**23
    return np.copysign(np.where(up, high, low), x)


def hadamard_reference(x: np.ndarray) -> np.ndarray:
    """Transforms float64[d] by butterflies."""
    x = np.asarray(x, np.float64).copy()
    half = 1
    while half < len(x):
        pairs = x.reshape(-1, 2, half)
        x = np.stack([pairs.sum(1), pairs[:, 0] - pairs[:, 1]], 1).ravel()
        half *= 2
    return x / np.sqrt(len(x))

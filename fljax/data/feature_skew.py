"""Skews features by domain: rotated, noisy and blurred images, a domain for each client.

    rotations(4)                   turned by 0, 90, 180, 270 degrees, as IFCA's (arXiv:2006.04088)
    gaussian_noise(0.5, levels=4)  noise that grows from domain to domain, as in NIID-Bench
    blur(2.0, levels=3)            Gaussian blur
    rotations(2), blur(1.0)        every pair of both

All rows of a client are of its domain, those that it trains on and those that it is tested on.
Rows are changed once, when they are loaded: bytes stay bytes, and a round costs nothing more.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fljax.core import parts, random
from fljax.core.values import COUNT, POSITIVE, Field, Interval, checked, shown
from fljax.data.dataset import FederatedDataset, Split
from fljax.data.examples import ArrayExamples, Examples
from fljax.data.partition_arguments import partition_setting

DOMAIN = "domain"
_HELD_OUT = ("held_out", "held_out_train")
# Rows that are held as floats at once.
_CHUNK = 4096


class Skew(NamedTuple):
    """What some domains do to features.

    Attributes:
      names: Of the domains, such as "rotated_90".
      apply: (x [rows, ...], number of a domain, NumPy generator) -> x of the same shape and type.

    Example:
      >>> brighter = data.Skew(["plain", "brighter"], lambda x, domain, rng: x + domain)
      >>> brighter.apply(np.zeros(2), 1, None).tolist()
      [1.0, 1.0]
    """

    names: Sequence[str]
    apply: Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def rotations(count: int = 4) -> Skew:
    """Turns images counterclockwise by k / count of a full turn in domain k.

    Multiples of 90 degrees move pixels and change none; other angles are interpolated between
    four pixels, about the middle of the image, with 0 outside of it.

    Args:
      count: Domains.

    Example:
      >>> data.rotations(4).apply(np.array([[[1, 2], [3, 4]]]), 1, None).tolist()
      [[[2, 4], [1, 3]]]
    """
    count = checked("count", count, Field(4, int, COUNT))
    angles = [360.0 * k / count for k in range(count)]

    def apply(x, domain, rng):
        quarters, rest = divmod(angles[domain], 90.0)
        if quarters % 2 and x.shape[1] != x.shape[2]:
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} pixels cannot be turned by "
                f"{angles[domain]:g} degrees and keep their shape: make them square"
            )
        x = np.rot90(x, int(quarters), axes=(1, 2))
        return x if not rest else _as_given(_turned(x.astype(np.float32), rest), x.dtype)

    return Skew([f"rotated_{angle:g}" for angle in angles], _of_images("rotations", apply))


def gaussian_noise(deviation: float, levels: int = 4) -> Skew:
    """Adds Gaussian noise whose standard deviation grows from 0 to `deviation` over the domains.

    NIID-Bench (arXiv:2102.02079) gives client i of N the level i / N; with as many levels as
    clients, so does this. Noise is drawn once a row, and bytes are rounded and kept in their range.

    Args:
      deviation: Of the last domain, in units of the features; of bytes, of their range [0, 255].
      levels: Domains, at equal distances.

    Example:
      >>> data.gaussian_noise(0.5, levels=3).names
      ['noise_0', 'noise_0.25', 'noise_0.5']
    """
    grades = _grades("deviation", deviation, levels)

    def apply(x, domain, rng):
        if x.dtype.kind != "f" and x.dtype != np.uint8:
            raise ValueError(f"gaussian_noise needs floats or bytes, not x of {x.dtype}")
        unit = 255.0 if x.dtype == np.uint8 else 1.0
        noise = rng.standard_normal(x.shape, np.float32)
        return _as_given(x + unit * np.float32(grades[domain]) * noise, x.dtype)

    return Skew([f"noise_{grade:g}" for grade in grades], apply)


def blur(deviation: float, levels: int = 4) -> Skew:
    """Blurs images by a Gaussian whose standard deviation grows from 0 over the domains.

    Args:
      deviation: Of the last domain, in pixels.
      levels: Domains, at equal distances.

    Example:
      >>> data.blur(2.0, levels=3).names
      ['blurred_0', 'blurred_1', 'blurred_2']
    """
    grades = _grades("deviation", deviation, levels)

    def apply(x, domain, rng):
        if not grades[domain]:
            return x
        rows, columns = (_blurring(size, grades[domain]) for size in x.shape[1:3])
        flat = x.astype(np.float32).reshape(*x.shape[:3], -1)
        blurred = np.einsum("ij,njkc,lk->nilc", rows, flat, columns, optimize=True)
        return _as_given(blurred.reshape(x.shape), x.dtype)

    return Skew([f"blurred_{grade:g}" for grade in grades], _of_images("blur", apply))


SKEWS: dict[str, Callable[..., Skew]] = {
    "rotations": rotations,
    "gaussian_noise": gaussian_noise,
    "blur": blur,
}


def with_feature_skew(
    dataset: FederatedDataset, feature_skew: str | Skew, seed: int = 0
) -> FederatedDataset:
    """Returns the dataset with features skewed by the domain of their client.

    Clients, those that are held out as well, are dealt evenly to the domains; the group "domain"
    says which is whose, and records report on each, `eval/groups/domain/...`. A test set that
    nobody owns is repeated, once in each domain, and "domain" is a group of rows as well.

    Args:
      dataset: Whose examples are arrays in memory; they are copied.
      feature_skew: Calls of `SKEWS` or of functions of one's own that return a `Skew`, one after
        another: "rotations(4), blur(1.0)" has a domain for each combination. Or a `Skew`.
      seed: Chooses the clients of a domain, and the noise.

    Raises:
      ValueError: If the text names no skew, or the features are not what it needs.

    Example:
      >>> images = np.arange(16.0).reshape(4, 2, 2)
      >>> dataset = data.from_arrays(images, [0, 1, 0, 1], num_clients=4)
      >>> sorted(data.with_feature_skew(dataset, 'rotations(2)').groups['domain'].tolist())
      ['rotated_0', 'rotated_0', 'rotated_180', 'rotated_180']
    """
    skew = feature_skew if isinstance(feature_skew, Skew) else named_skew(feature_skew)
    seed = partition_setting("seed", seed)
    if DOMAIN in {*dataset.groups, *dataset.row_groups}:
        raise ValueError(f"{dataset.name!r} has groups {DOMAIN!r} already: rename them")
    names = np.array(skew.names)
    domains = _dealt(dataset.num_clients, len(names), seed, "clients")
    owned, unowned = {}, {}
    for role in ("train", "val", "test"):
        if (split := getattr(dataset, role)) is not None:
            (unowned if split.partition is None else owned)[role] = split
    tells = "test" in unowned
    split_of = _skewed_splits(owned, domains, skew, seed, tells)
    split_of |= {
        role: _in_each_domain(split, skew, seed, role, tells) for role, split in unowned.items()
    }
    held_out_groups = dict(dataset.held_out_groups)
    if dataset.held_out is not None:
        clients = dataset.held_out.partition.num_clients
        held_out_domains = _dealt(clients, len(names), seed, "held_out")
        held_out = {role: split for role in _HELD_OUT if (split := getattr(dataset, role))}
        split_of |= _skewed_splits(held_out, held_out_domains, skew, seed, tells)
        held_out_groups[DOMAIN] = names[held_out_domains]
    return dataclasses.replace(
        dataset,
        groups={**dataset.groups, DOMAIN: names[domains]},
        held_out_groups=held_out_groups,
        row_groups={**dataset.row_groups, **({DOMAIN: tuple(skew.names)} if tells else {})},
        **split_of,
    )


def named_skew(text: str) -> Skew:
    """Returns the skew that a text names; of several, each combination is a domain."""
    calls = parts.read("feature_skew", text, SKEWS)
    kinds = [parts.make(call) for call in calls]
    for call, kind in zip(calls, kinds, strict=True):
        if not isinstance(kind, Skew):
            raise parts.FailedCall(
                f"{call.where}: {call.name} returned {shown(kind)} ({type(kind).__name__}), and a "
                "skew is a fljax.data.Skew(names, apply)."
            )
    if len(kinds) == 1:
        return kinds[0]
    combinations = list(itertools.product(*(range(len(kind.names)) for kind in kinds)))

    def apply(x, domain, rng):
        for kind, number in zip(kinds, combinations[domain], strict=True):
            x = kind.apply(x, number, rng)
        return x

    names = itertools.product(*(kind.names for kind in kinds))
    return Skew(["+".join(several) for several in names], apply)


def _dealt(num_clients: int, num_domains: int, seed: int, whose: str) -> np.ndarray:
    """Returns int[clients] the domain of each; sizes of domains differ by one client at most."""
    rng = random.generator(seed, f"feature skew/domains of {whose}")
    return rng.permutation(num_clients) % num_domains


def _skewed_splits(
    splits: Mapping[str, Split], domains: np.ndarray, skew: Skew, seed: int, tells: bool
) -> dict[str, Split]:
    """Returns splits over the same clients, each row in its client's domain.

    Args:
      splits: {role: split that clients own}; those that share examples share the new ones.
      domains: int[N] of the clients.
      skew, seed: As given.
      tells: Whether each row says its domain.
    """
    made: dict[int, ArrayExamples] = {}
    for role, split in splits.items():
        key = id(split.examples)
        if key not in made:
            of_row = np.full(split.examples.num_examples, -1)
            for other in splits.values():
                if other.examples is split.examples:
                    of_row[other.rows()] = domains[other.partition.owners()]
            made[key] = _skewed(split.examples, of_row, skew, seed, role, tells)
    return {
        role: Split(made[id(split.examples)], split.partition) for role, split in splits.items()
    }


def _skewed(examples: Examples, of_row: np.ndarray, skew: Skew, seed: int, role: str, tells: bool):
    """Returns the examples with each row in its domain; rows of domain -1 stay as they are."""
    x = _features(examples).copy()
    for domain, name in enumerate(skew.names):
        rng = random.generator(seed, f"feature skew/{role}", domain)
        rows = np.flatnonzero(of_row == domain)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            x[chunk] = _applied(skew, name, x[chunk], domain, rng)
    return _told({**examples.arrays, "x": x}, of_row, tells)


def _told(arrays: dict, of_row: np.ndarray, tells: bool) -> ArrayExamples:
    """Returns examples that say their domains, where they are to; rows of nobody say the first."""
    if tells:
        groups = {**arrays.get("groups", {}), DOMAIN: of_row.clip(0).astype(np.int16)}
        arrays = {**arrays, "groups": groups}
    return ArrayExamples(arrays)


def _in_each_domain(split: Split, skew: Skew, seed: int, role: str, tells: bool) -> Split:
    """Returns a set that nobody owns, repeated in each domain, one domain after another."""
    x = _features(split.examples)
    copies = []
    for domain, name in enumerate(skew.names):
        rng = random.generator(seed, f"feature skew/{role}", domain)
        copies += [
            _applied(skew, name, x[start : start + _CHUNK], domain, rng)
            for start in range(0, len(x), _CHUNK)
        ]
    rows = np.tile(np.arange(len(x)), len(skew.names))
    arrays = {**split.examples.take(rows), "x": np.concatenate(copies)}
    return Split(_told(arrays, np.repeat(np.arange(len(skew.names)), len(x)), tells))


def _features(examples: Examples) -> np.ndarray:
    x = None if examples.arrays is None else examples.arrays["x"]
    if not isinstance(x, np.ndarray) or isinstance(x, np.memmap):
        what = "generated when they are read" if x is None else f"{type(x).__name__}"
        raise ValueError(
            f"feature_skew changes features once, in an array in memory, and these are {what}: "
            "give x as such an array, or skew in `preprocess`"
        )
    return x


def _applied(skew: Skew, name: str, x: np.ndarray, domain: int, rng) -> np.ndarray:
    made = np.asarray(skew.apply(x, domain, rng))
    if made.shape != x.shape or made.dtype != x.dtype:
        raise ValueError(
            f"the domain {name!r} makes {made.dtype}{list(made.shape)} of features "
            f"{x.dtype}{list(x.shape)}: a skew keeps shape and type"
        )
    return made


def _of_images(name: str, apply: Callable) -> Callable:
    """Returns the function, which refuses what is no stack of images [rows, height, width, ...]."""

    def of_images(x, domain, rng):
        if x.ndim not in (3, 4):
            raise ValueError(
                f"{name} needs images [rows, height, width] or [rows, height, width, channels], "
                f"not x of shape {list(x.shape)}: reshape it, such as to [rows, 8, 8, 1]"
            )
        return apply(x, domain, rng)

    return of_images


def _grades(name: str, most: float, levels: int) -> list[float]:
    most = checked(name, most, Field(1.0, float, POSITIVE))
    levels = checked("levels", levels, Field(4, int, Interval(2)))
    return [most * level / (levels - 1) for level in range(levels)]


def _as_given(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns floats in the type of the features; whole numbers are rounded and clipped."""
    if dtype.kind == "f":
        return x.astype(dtype)
    bounds = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.clip(np.rint(x), *bounds).astype(dtype)


def _turned(x: np.ndarray, degrees: float) -> np.ndarray:
    """Returns images [rows, H, W, ...] turned counterclockwise about their middle, bilinear."""
    height, width = x.shape[1:3]
    i, j = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    middle = (height - 1) / 2, (width - 1) / 2
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    # where the pixel that lands at (i, j) comes from
    from_i = cos * (i - middle[0]) + sin * (j - middle[1]) + middle[0]
    from_j = -sin * (i - middle[0]) + cos * (j - middle[1]) + middle[1]
    low_i, low_j = np.floor(from_i).astype(int), np.floor(from_j).astype(int)
    total = np.zeros_like(x)
    for di, dj in itertools.product((0, 1), repeat=2):
        at_i, at_j = low_i + di, low_j + dj
        weight = (1 - abs(from_i - at_i)) * (1 - abs(from_j - at_j))
        weight *= (0 <= at_i) & (at_i < height) & (0 <= at_j) & (at_j < width)
        pixels = x[:, at_i.clip(0, height - 1), at_j.clip(0, width - 1)]
        total += pixels * weight.astype(np.float32).reshape(1, height, width, *[1] * (x.ndim - 3))
    return total


def _blurring(size: int, deviation: float) -> np.ndarray:
    """Returns float32[size, size], the matrix that blurs a line; its edges are mirrored."""
    reach = int(4 * deviation + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / deviation) ** 2)
    matrix = np.zeros((size, size))
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        place = (np.arange(size) + offset) % (2 * size)
        place = np.minimum(place, 2 * size - 1 - place)
        np.add.at(matrix, (np.arange(size), place), weight)
    return matrix.astype(np.float32)

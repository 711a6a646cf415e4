"""Augmentation: training examples are changed at random, inside the compiled step.

`augmented(task, "crop(4), flip")` is the task whose training steps see changed examples; evaluation
sees them as they are. What is drawn follows from the step's key, hence from seed, round, client and
step, never from lanes or devices. Padding rows stay padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.core import parts
from fljax.core.task import Task
from fljax.core.values import COUNT, NON_NEGATIVE, POSITIVE, Field, Interval, checked

Batch = Mapping[str, Any]
_PURPOSE = 0x617567


class Augmentation(NamedTuple):
    """One change of training batches.

    Attributes:
      change: (key, batch) -> batch, each example by itself; None where examples are mixed.
      mix: (key, batch) -> (batch, the rows that each is mixed with, each one's own share), for
        `mixup`: the loss is that of both targets by their shares.
      moves: Whether `change` moves the pixels of images: then it moves those of `segmentation`'s
        targets alike.

    Example:
      >>> darker = tasks.Augmentation(lambda key, batch: {**batch, "x": 0.5 * batch["x"]})
      >>> task = tasks.augmented(tasks.classification(models.mlp((4, 3)), 3), [darker])
    """

    change: Callable[[jax.Array, Batch], Batch] | None = None
    mix: Callable[[jax.Array, Batch], tuple[Batch, jax.Array, jax.Array]] | None = None
    moves: bool = False


def crop(padding: int = 4) -> Augmentation:
    """Pads images with zeros and cuts them back at a random place (He et al. 2016).

    Args:
      padding: Pixels on every side.
    """
    padding = checked("padding", padding, Field(4, int, COUNT))

    def change(key, x):
        rows, columns = jax.random.randint(key, (2, len(x)), -padding, padding + 1)
        return _shifted(x, rows, columns)

    return _of_images(change, moves=True)


def flip(vertical: bool = False) -> Augmentation:
    """Mirrors half of the images.

    Args:
      vertical: Top to bottom, not left to right.
    """
    vertical = checked("vertical", vertical, Field(False, bool))

    def change(key, x):
        coin = jax.random.bernoulli(key, shape=(len(x), *(1,) * (x.ndim - 1)))
        return jnp.where(coin, jnp.flip(x, 1 if vertical else 2), x)

    return _of_images(change, moves=True)


def rotation(degrees: float = 15.0) -> Augmentation:
    """Turns images about their middle, bilinearly, by an angle from -degrees to degrees.

    Args:
      degrees: The largest angle; beyond the border is zero.
    """
    degrees = checked("degrees", degrees, Field(15.0, float, Interval(0, 180)))

    def change(key, x):
        limit = jnp.deg2rad(degrees)
        angles = jax.random.uniform(key, (len(x),), jnp.float32, -limit, limit)
        return jax.vmap(_rotated)(x, angles)

    return _of_images(change, moves=True)


def cutout(size: int = 8) -> Augmentation:
    """Sets a square at a random place to zero (DeVries and Taylor 2017, arXiv:1708.04552).

    Args:
      size: Pixels of its side; it may reach beyond the border.
    """
    size = checked("size", size, Field(8, int, COUNT))

    def change(key, x):
        places = jax.random.uniform(key, (2, len(x)))
        inside = [
            _is_near(jnp.floor(place * extent), extent, size)
            for place, extent in zip(places, x.shape[1:3], strict=True)
        ]
        square = inside[0][:, :, None] & inside[1][:, None, :]
        return jnp.where(square.reshape(*square.shape, *(1,) * (x.ndim - 3)), 0, x)

    return _of_images(change)


def noise(deviation: float = 0.1) -> Augmentation:
    """Adds Gaussian noise to every number of x that is a float.

    Args:
      deviation: Its standard deviation, in units of x as the model sees it.
    """
    deviation = checked("deviation", deviation, Field(0.1, float, NON_NEGATIVE))

    def change(key, batch):
        leaves, tree = jax.tree.flatten(batch["x"])
        noisy = [
            leaf + deviation * jax.random.normal(jax.random.fold_in(key, place), leaf.shape)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else leaf
            for place, leaf in enumerate(leaves)
        ]
        return {**batch, "x": jax.tree.unflatten(tree, noisy)}

    return Augmentation(change)


def window(length: int) -> Augmentation:
    """Cuts a window at a random place out of sequences, of tokens and their targets alike.

    Args:
      length: Of the window; sequences are longer.
    """
    length = checked("length", length, Field(None, int, COUNT))

    def change(key, batch):
        x = batch["x"]
        size = getattr(x, "shape", (0, 0))[1:2]
        if not size or size[0] < length or getattr(batch["y"], "shape", ())[:2] != x.shape[:2]:
            raise ValueError(
                f"augmentation window({length}) cuts sequences x and y of one length, at least "
                f"{length}, and x is {_shape(x)}, y {_shape(batch['y'])}"
            )
        starts = jax.random.randint(key, (len(x),), 0, size[0] - length + 1)
        places = starts[:, None] + jnp.arange(length)
        return {**batch, **{part: _at(batch[part], places) for part in ("x", "y")}}

    return Augmentation(change)


def mixup(alpha: float = 0.2) -> Augmentation:
    """Mixes each example with another one of its batch, and the losses of both targets alike.

    Zhang et al. 2017 (arXiv:1710.09412). The share is drawn once a batch from Beta(alpha, alpha);
    the other example lies a random distance further in the batch. Where that is padding, an example
    stays as it is. Batches of one example are refused, and so is DP-SGD, which clips the gradients
    of single examples.

    Args:
      alpha: Of the Beta distribution.
    """
    alpha = checked("alpha", alpha, Field(0.2, float, POSITIVE))

    def mix(key, batch):
        of_share, of_distance = jax.random.split(key)
        size = len(batch["mask"])
        if size < 2:
            raise ValueError(
                "augmentation mixup mixes an example with another one of its batch, and the "
                "batches of this run hold one. Set batch_size to 2 or more (0 is all rows of a "
                "client), or leave mixup out."
            )
        drawn = jax.random.beta(of_share, alpha, alpha)
        other = (jnp.arange(size) + jax.random.randint(of_distance, (), 0, size)) % size
        share = jnp.where(batch["mask"][other], drawn, 1.0)

        def mixed(leaf):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(
                    f"augmentation mixup mixes floats, and x is {leaf.dtype}: it is for images and "
                    "numbers, not for tokens"
                )
            own = share.astype(leaf.dtype).reshape(-1, *(1,) * (leaf.ndim - 1))
            return own * leaf + (1 - own) * leaf[other]

        return {**batch, "x": jax.tree.map(mixed, batch["x"])}, other, share

    return Augmentation(mix=mix)


# name -> function (**options) -> Augmentation
AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
    "crop": crop,
    "flip": flip,
    "rotation": rotation,
    "cutout": cutout,
    "noise": noise,
    "window": window,
    "mixup": mixup,
}


def augmented(task: Task, augmentation: str | Sequence[Augmentation]) -> Task:
    """Returns the task whose training steps see changed examples.

    Args:
      task: Whose x come as the model sees them, after the data's preprocess.
      augmentation: Names of `AUGMENTATIONS` or calls of them, one applied after another, such as
        "crop(4), flip, cutout(8)", or "module:function" of your own that returns an
        `Augmentation`; or these themselves. `mixup` stands last.

    Raises:
      ValueError: For an unknown name or argument; in the first step for x of another kind.

    Example:
      >>> task = tasks.classification(models.lenet_cnn(10, (28, 28, 1)), 10)
      >>> tasks.augmented(task, "crop(2), flip")
      Task('classification', 10 classes)
    """
    is_text = isinstance(augmentation, str)
    chosen = chain_of(augmentation) if is_text else _checked(augmentation)
    has_pixels = task.kind == "segmentation"
    if has_pixels and task.num_classes is None and any(each.moves for each in chosen):
        raise ValueError(
            f"augmentation = {augmentation!r} moves pixels, and those of y cannot be moved where "
            "some are ignored. Leave ignore_label out, or crop, flip and rotation."
        )

    def loss(params, frozen, model_state, batch, key, train):
        if not train or key is None:
            return task.loss(params, frozen, model_state, batch, key, train)
        keys = jax.random.split(jax.random.fold_in(key, _PURPOSE), len(chosen))
        for each, own in zip(chosen, keys, strict=True):
            if each.mix is None:
                changed_batch = each.change(own, batch)
                if has_pixels and each.moves:
                    y = _moved(each.change, own, batch, task.num_classes)
                    changed_batch = {**changed_batch, "y": y}
                batch = changed_batch
        if chosen[-1].mix is None:
            return task.loss(params, frozen, model_state, batch, key, train)
        batch, other, share = chosen[-1].mix(keys[-1], batch)

        # the model does not depend on the targets, so that it is applied once for both
        def of_targets(y):
            return task.loss(params, frozen, model_state, {**batch, "y": y}, key, train)

        both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[other]]), batch["y"])
        (values, weights), state = jax.vmap(of_targets, out_axes=(0, None))(both)
        value = share * values[0] + (1 - share) * values[1]
        return (value, weights[0]), state

    mixes = chosen[-1].mix is not None
    changed = task._replace(loss=loss, compares_examples=task.compares_examples or mixes)
    if (fit := task.fit) is None:
        return changed
    return changed._replace(fit=lambda blocks: augmented(fit(blocks), chosen))


def chain_of(text: str) -> tuple[Augmentation, ...]:
    """Returns the augmentations that a text names.

    Raises:
      ValueError: For an unknown name, a wrong argument, or a function of one's own that returns
        something else.
    """
    chosen = []
    for call in parts.read("augmentation", text, AUGMENTATIONS):
        made = parts.make(call)
        if not isinstance(made, Augmentation):
            raise ValueError(
                f"{call.where}: {call.name} returned {type(made).__name__}, and an augmentation is "
                "a fljax.tasks.Augmentation(change)."
            )
        chosen.append(made)
    return _checked(chosen)


def _checked(chosen: Sequence[Augmentation]) -> tuple[Augmentation, ...]:
    """Returns augmentations in an order that means something; raises ValueError for others."""
    if not chosen:
        raise ValueError("augmentation names nothing: leave it unset to change nothing")
    if any(each.mix for each in chosen[:-1]):
        raise ValueError("augmentation: mixup stands last; what follows would change its mixture")
    return tuple(chosen)


def _of_images(
    change: Callable[[jax.Array, jax.Array], jax.Array], moves: bool = False
) -> Augmentation:
    """Returns the augmentation of batches whose x are images [B, H, W] or [B, H, W, C]."""

    def change_batch(key, batch):
        x = batch["x"]
        if getattr(x, "ndim", 0) not in (3, 4) or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                "augmentation: crop, flip, rotation and cutout change images, floats of shape "
                f"[height, width, channels], and x is {_shape(x)} a batch. Leave them out, or give "
                "the data set a preprocess that makes such images"
            )
        return {**batch, "x": change(key, x).astype(x.dtype)}

    return Augmentation(change_batch, moves=moves)


def _moved(moves: Callable[[jax.Array, Batch], Batch], key: jax.Array, batch: Batch, classes: int):
    """Returns the class of each pixel after the pixels were moved; 0 where there was no image."""
    shares = moves(key, {**batch, "x": jax.nn.one_hot(batch["y"], classes)})["x"]
    return shares.argmax(-1).astype(batch["y"].dtype)


def _shape(x: Any) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(x))


def _at(values: jax.Array, places: jax.Array) -> jax.Array:
    """Returns values [B, T, ...] at places [B, L] of their second axis."""
    return jax.vmap(lambda row, place: row[place])(values, places)


def _shifted(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Returns images moved by whole pixels, zeros following, by products with shift matrices.

    A gather by example is slow on CPUs and TPUs; these products are small beside a network's.
    """
    height, width = x.shape[1:3]

    def matrices(offsets, extent):
        places = jnp.arange(extent)
        return (places == places[:, None] + offsets[:, None, None]).astype(x.dtype)

    moved = jnp.einsum("bij,bj...->bi...", matrices(rows, height), x)
    return jnp.einsum("bkw,biw...->bik...", matrices(columns, width), moved)


def _is_near(middle: jax.Array, extent: int, size: int) -> jax.Array:
    """Returns bool[B, extent], true in the `size` places around each middle."""
    start = middle.astype(jnp.int32)[:, None] - size // 2
    places = jnp.arange(extent)
    return (places >= start) & (places < start + size)


def _rotated(image: jax.Array, angle: jax.Array) -> jax.Array:
    """Returns an image [H, W, ...] turned about its middle, bilinearly."""
    height, width = image.shape[:2]
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    dy, dx = rows - (height - 1) / 2, columns - (width - 1) / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    source_y = (height - 1) / 2 + cos * dy + sin * dx
    source_x = (width - 1) / 2 - sin * dy + cos * dx
    flat = image.reshape(height * width, -1)
    top, left = jnp.floor(source_y), jnp.floor(source_x)
    total = jnp.zeros_like(flat)
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = (top + y).astype(jnp.int32), (left + x).astype(jnp.int32)
        weight = (1 - jnp.abs(source_y - row)) * (1 - jnp.abs(source_x - column))
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        weight = jnp.where(inside, weight, 0).reshape(-1, 1).astype(flat.dtype)
        total += weight * flat[place.ravel()]
    return total.reshape(image.shape)

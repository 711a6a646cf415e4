"""Draws rows again from gradients and updates of clients, as a configuration has them trained.

    one row     the gradient of a single row: the least that a client can hide behind
    a batch     the mean gradient of four rows
    an update   what a client of four rows sends after two epochs in batches of two, with the
                optimizer of the configuration
    a sum       the mean of the gradients of ten clients with a row each, as secure aggregation
                shows it

All at the model that the first round starts from, by an attacker who knows that model and how many
rows there are. DP-SGD acts on gradients, and is part of it; what else a configuration does to whole
updates, such as compression or local noise, is left out, which helps the attacker. Where the first
layer is dense and has a bias, its input is read off, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.audits.reconstruction.clients import batches_in_order
from fljax.audits.reconstruction.dense_inverse import dense_row
from fljax.audits.reconstruction.gradient_inversion import reconstruct
from fljax.audits.reconstruction.settings import Inversion, make_inversion
from fljax.audits.reconstruction.similarity import matched, psnr, ssim
from fljax.config import ConfigError
from fljax.config.experiment import Experiment
from fljax.data.pictures.image_rows import plot_image_rows
from fljax.studies.audit.scene import Layer, Scene, is_image, make_scene, seen_rows
from fljax.studies.audit.settings import Audit

_BATCH, _CLIENTS, _EPOCHS = 4, 10, 2
# Decibels of a row that is exactly right, of which there is no end.
_EXACT = 200.0
# What an audit takes where it is not told: for images, and for rows of numbers.
_OF_IMAGES, _OF_NUMBERS = "geiping(1e-4, steps=1200)", "idlg(steps=1000)"


class Case(NamedTuple):
    """Rows that were drawn again, beside the true ones.

    Attributes:
      sent: What the attacker saw.
      attack: Which attack drew them.
      found: float[R, ...].
      true: float[R, ...], in the same order.
      labels: The share of labels that are right; None where none were asked for.
    """

    sent: str
    attack: str
    found: np.ndarray
    true: np.ndarray
    labels: float | None


def check_inversion(plain: Experiment, settings: Audit) -> None:
    """Raises ConfigError for an attack that is none, or does not suit the rows."""
    if not settings.reconstructed or settings.inverted is None:
        return
    try:
        attack = make_inversion(settings.inverted)
    except ValueError as error:
        raise ConfigError(f"inverted: {error}") from error
    if attack.total_variation and not _has_images(plain):
        raise ConfigError(
            f"inverted = {settings.inverted!r} has a prior of images, and rows of "
            f"{plain.dataset.name} are none: use geiping(0)."
        )


def _has_images(plain: Experiment) -> bool:
    dataset = plain.dataset
    x, _ = seen_rows(dataset, dataset.train.rows()[:1])
    return is_image(x.shape[1:])


def reconstruct_rows(experiment: Experiment, folder: Path, settings: Audit) -> list[dict[str, Any]]:
    """Returns what attackers draw again from what clients send, a dict for each case.

    Args:
      experiment: The defence's, with its protection drawn.
      folder: Receives a picture of each case, where rows are images.
      settings: Of the audit.

    Returns:
      Dicts of "sent", "attack", "rows", "psnr" (dB) and "ssim" of each row, None where nothing
      finite was found, "labels", the share that is right, and "picture", a file or None. None of
      them for tasks without a label a row.
    """
    if not settings.reconstructed or experiment.dataset.kind != "classification":
        return []
    count = settings.reconstructed
    scene = make_scene(experiment, max(count, _BATCH, _CLIENTS), settings.seed)
    named = settings.inverted or (_OF_IMAGES if scene.is_image else _OF_NUMBERS)
    cases = [_one_by_one(named, scene, count, settings.seed)]
    if scene.dense is not None:
        cases.insert(0, _read_off(scene, count, settings.seed))
    if len(scene.x) >= _BATCH:
        sent = f"the mean gradient of {_BATCH} rows"
        cases.append(_drawn(sent, named, scene, range(_BATCH), 1, settings.seed))
        if scene.trainer is not None:
            cases.append(_trained(named, scene, settings.seed))
    if len(scene.x) >= _CLIENTS:
        sent = f"the mean of {_CLIENTS} clients' gradients"
        cases.append(_drawn(sent, named, scene, range(_CLIENTS), _CLIENTS, settings.seed))
    return [_told(case, scene, folder / f"row-{n}.png") for n, case in enumerate(cases)]


def _one_by_one(named: str, scene: Scene, count: int, seed: int) -> Case:
    rows = range(min(count, len(scene.x)))
    cases = [_drawn("", named, scene, [row], 1, seed + row) for row in rows]
    return Case(
        "the gradient of one row",
        named,
        np.concatenate([case.found for case in cases]),
        np.concatenate([case.true for case in cases]),
        float(np.mean([case.labels for case in cases])),
    )


def _drawn(sent: str, named: str, scene: Scene, rows, clients: int, seed: int) -> Case:
    """Draws rows again that equally many clients have sent the mean gradients of."""
    x, y = scene.x[np.array(rows)], scene.y[np.array(rows)]
    parts = zip(np.split(x, clients), np.split(y, clients), strict=True)
    messages = [
        scene.sent(jnp.asarray(x), jnp.asarray(y), seed + place)
        for place, (x, y) in enumerate(parts)
    ]
    observed = jax.tree.map(lambda *leaves: sum(leaves) / clients, *messages)
    return _searched(sent, named, scene, scene.client, observed, rows, seed)


def _trained(named: str, scene: Scene, seed: int) -> Case:
    """Draws the rows of a client again behind its update; the order of its batches is known."""
    batches = batches_in_order(_BATCH, _BATCH // 2, epochs=_EPOCHS)
    client, rows = scene.trainer(batches), range(_BATCH)
    observed = client(scene.params, jnp.asarray(scene.x[:_BATCH]), jnp.asarray(scene.y[:_BATCH]))
    sent = f"the update of {_BATCH} rows, {_EPOCHS} epochs in batches of {_BATCH // 2}"
    return _searched(sent, named, scene, client, observed, rows, seed, sign=-1)


def _searched(sent, named, scene: Scene, client, observed, rows, seed: int, sign: int = 1) -> Case:
    """Searches for the rows behind what was observed; `sign` makes a gradient of it."""
    x, y = scene.x[np.array(rows)], scene.y[np.array(rows)]
    head = scene.head
    if head is not None and sign < 0:
        head = _negative(head)
    found = reconstruct(
        observed, client, scene.params, x.shape, attack=_fitted(named, scene),
        num_classes=scene.num_classes, head=head, seed=seed,
    )  # fmt: skip
    counts = [np.bincount(labels, minlength=scene.num_classes) for labels in (found.labels, y)]
    order = matched(found.x, x, _extent(scene)).found
    return Case(sent, named, found.x[order], x, float(np.minimum(*counts).sum() / len(x)))


def _negative(layer: Layer) -> Layer:
    def of(update):
        kernel, bias = layer(update)
        return -kernel, None if bias is None else -bias

    return of


def _fitted(named: str, scene: Scene) -> Inversion:
    """Returns an attack's settings for these rows: their range, and whether labels are told."""
    attack = make_inversion(named)
    if attack.optimizer == "adam":
        attack = attack._replace(box=scene.box)
    if scene.head is None:
        attack = attack._replace(labels="optimized")
    return attack


def _read_off(scene: Scene, count: int, seed: int) -> Case:
    found = []
    for row in range(min(count, len(scene.x))):
        own = jnp.asarray(scene.x[row : row + 1]), jnp.asarray(scene.y[row : row + 1])
        layer = scene.dense(scene.sent(*own, seed + row))
        try:
            found.append(dense_row(*layer).reshape(scene.x.shape[1:]))
        except ValueError:  # no unit has a gradient
            found.append(np.full(scene.x.shape[1:], np.nan))
    true = scene.x[: len(found)]
    return Case("the gradient of one row", "dense_row", np.stack(found), true, None)


def _told(case: Case, scene: Scene, picture: Path) -> dict[str, Any]:
    quality, likeness = np.minimum(psnr(case.found, case.true, _extent(scene)), _EXACT), []
    if scene.is_image:
        likeness = ssim(case.found, case.true, _extent(scene))
        low, high = scene.box
        decibels = {"drawn": [f"{value:.0f} dB" for value in quality]}
        images = {"true": case.true, "drawn": case.found}
        plot_image_rows(images, decibels, low=low, high=high, path=picture)
    return {
        "sent": case.sent,
        "attack": case.attack,
        "rows": len(case.true),
        "psnr": _finite(quality),
        "ssim": _finite(likeness),
        "labels": case.labels,
        "picture": picture.name if scene.is_image else None,
    }


def _finite(values) -> list[float | None]:
    """Returns numbers as JSON has them."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _extent(scene: Scene) -> float:
    return scene.box[1] - scene.box[0]

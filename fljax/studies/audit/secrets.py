"""Secrets in a language model: random texts that clients hold, and how far the model exposes them.

Carlini et al. 2019 (arXiv:1802.08232): random sequences of tokens are put among the rows of some
clients, once or several times, a federation trains, and the exposure of each is how much likelier
the model finds it than sequences of the same kind that nobody holds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.audits.bounds.exposure import extrapolated_exposure, fitted_losses
from fljax.config.experiment import Experiment
from fljax.core import random
from fljax.data.dataset import ArrayExamples, FederatedDataset, Partition, Split, offsets_of
from fljax.studies.audit.settings import Audit
from fljax.studies.audit.statements import asked, make_statements
from fljax.training.options import round_options_among
from fljax.training.simulation import simulate

# Tokens of a secret; how often it stands among the rows of its client; secrets nobody holds.
_LENGTH, COPIES, _REFERENCES = 12, (1, 4, 16), 2000
_NEXT_TOKEN = "next_token"


def exposed_secrets(plain: Experiment, settings: Audit) -> dict[str, Any] | None:
    """Returns how far a federation exposes secrets, as JSON values.

    Args:
      plain: The defence's experiment, before its protection is drawn.
      settings: Of the audit; `secrets` of each number of copies.

    Returns:
      {"length": tokens of a secret, "tokens": how many different ones there are, "p_value": of the
      distribution fitted to what nobody holds, "exposure": {copies: bits of each secret}}; None for
      tasks without texts, or where no secrets are asked for. A secret that nobody holds has an
      exposure of 1.44 bits on average.
    """
    dataset = plain.dataset
    if not settings.secrets or dataset.kind != _NEXT_TOKEN or dataset.train.examples.arrays is None:
        return None
    count = settings.secrets * len(COPIES)
    texts = _texts(dataset, count + _REFERENCES, settings.seed)
    copies = np.repeat(COPIES, settings.secrets)
    own = with_secrets(dataset, texts[:count], copies, settings.seed)
    options = round_options_among(plain.options)
    run = simulate(own, plain.task, plain.algorithm, progress=False, **options)
    models = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], run.variables)
    rows = asked(plain.task, ArrayExamples(_rows(dataset, texts)), np.arange(len(texts)))
    losses = make_statements(plain.task, dataset)(models, run.frozen, rows).losses[0]
    fit = fitted_losses(losses[count:])
    exposure = extrapolated_exposure(losses[:count], fit)
    return {
        "length": _LENGTH,
        "tokens": dataset.num_classes - 1,
        "p_value": fit.p_value,
        "exposure": {
            str(number): [float(min(bits, _most(dataset))) for bits in exposure[copies == number]]
            for number in COPIES
        },
    }


def with_secrets(
    dataset: FederatedDataset, texts: np.ndarray, copies: np.ndarray, seed: int
) -> FederatedDataset:
    """Returns data in which clients hold secrets beside their own rows.

    Args:
      dataset: Of texts, in arrays.
      texts: int32[K, length] tokens of each secret.
      copies: int[K], how often it stands among the rows of the client that holds it.
      seed: Draws these clients among those with rows.
    """
    train, partition = dataset.train, dataset.train.partition
    added = jax.tree.map(lambda leaf: np.repeat(leaf, copies, axis=0), _rows(dataset, texts))
    known = jax.tree.map(np.asarray, dict(train.examples.arrays))
    arrays = jax.tree.map(lambda leaf, more: np.concatenate([leaf, more]), known, added)
    with_rows = np.flatnonzero(partition.sizes[: dataset.members])
    words = random.bits(seed, "audit/secrets", np.arange(len(texts)))
    holders = np.repeat(with_rows[words % np.uint64(len(with_rows))], copies)
    owners = np.concatenate([partition.owners(), holders])
    new = train.examples.num_examples + np.arange(len(holders))
    order = np.argsort(owners, kind="stable")
    index = np.concatenate([partition.all_rows(), new])[order]
    offsets = offsets_of(np.bincount(owners, minlength=partition.num_clients))
    return dataclasses.replace(
        dataset, train=Split(ArrayExamples(arrays), Partition(offsets, index)), subjects=None
    )


def _texts(dataset: FederatedDataset, count: int, seed: int) -> np.ndarray:
    """Returns int32[count, length] tokens at random; 0 is padding, and none of them."""
    places = np.arange(count)[:, None], np.arange(_LENGTH)
    drawn = random.bits(seed, "audit/secret texts", *places) % np.uint64(dataset.num_classes - 1)
    return drawn.astype(np.int32) + 1


def _rows(dataset: FederatedDataset, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Returns texts as rows of the data: each token is to be told from those before it."""
    spec = dataset.train.examples.spec
    width = spec["x"].shape[0]
    kept = texts[:, : width + 1]
    rows = {name: np.zeros((len(texts), width), spec[name].dtype) for name in ("x", "y")}
    rows["x"][:, : kept.shape[1] - 1] = kept[:, :-1]
    rows["y"][:, : kept.shape[1] - 1] = kept[:, 1:]
    return rows


def _most(dataset: FederatedDataset) -> float:
    """Returns the bits of all tokens of a secret but the first, more than which none has."""
    return (_LENGTH - 1) * float(np.log2(dataset.num_classes - 1))

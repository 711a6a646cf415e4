"""The contract of a privacy mechanism: what it does in a round, and what it guarantees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fljax.core.transforms import UplinkLink

__all__ = ["Guarantee", "Mechanism", "Setting"]


class Setting(NamedTuple):
    """The facts of a run that mechanisms and accountants use.

    Attributes:
      num_clients: Size of the population.
      clients_per_round: Size of a cohort, or its mean.
      sampler: Name of the sampler, such as "poisson"; "" for one without a name.
      num_rounds: Rounds of the run.
      seed: Of the run.
      sizes: int64[N] training rows of each client.
      batch_size: int64[N] rows of a local batch of each client, the mean where batches are drawn.
      steps: int64[N] local steps of each client in a round.
      batches: How batches are made: "shuffled" or "poisson".
      weighting: "uniform", "examples", or "own" for weights given client by client, or found by
        what a client has computed.
      behind: What stands behind the mechanism's link on the uplink: "nothing"; "links" that decode
        message by message, and may give back a larger one; or "sums", where messages are added up
        before they are decoded, as under secure aggregation.
      separation: Rounds from one participation of a client to its next, at least, as the sampler
        promises: 1 for once a round, 0 for no promise.
      message_size: Numbers in all that a client sends in a round.
      participations: rounds -> how many of the first so many rounds a client takes part in at most,
        as the sampler draws them; None where that is not known beforehand.

    Example:
      >>> rows = np.full(1000, 60)
      >>> facts = (1000, 100, "poisson", 50, 0)
      >>> setting = fljax.privacy.Setting(*facts, sizes=rows, batch_size=rows, steps=rows // 60)
      >>> setting.clients_per_round / setting.num_clients, setting.behind
      (0.1, 'nothing')
    """

    num_clients: int
    clients_per_round: float
    sampler: str
    num_rounds: int
    seed: int
    sizes: np.ndarray
    batch_size: np.ndarray
    steps: np.ndarray
    batches: str = "shuffled"
    weighting: str = "uniform"
    behind: str = "nothing"
    separation: int = 1
    message_size: int = 0
    participations: Callable[[int], int] | None = None


class Guarantee(NamedTuple):
    """The promise of a mechanism for a run.

    Attributes:
      unit: Whose participation is hidden: "user" or "example".
      relation: Between neighbouring data sets: "add_or_remove_one", "replace_one" or
        "replace_special" (one record becomes a zero).
      sampling: How cohorts or batches are drawn, in words.
      noise_multiplier: Standard deviation of the noise over the sensitivity; None where it is said
        otherwise.
      clip_norm: Bound of one contribution; None where it changes in the run.
      delta: Of (epsilon, delta).
      covers: What the guarantee covers, in a sentence.
      epsilon: rounds -> {accountant: epsilon} of the first so many rounds, on the host; the names
        are "rdp" and "pld", and one may be missing where there is no theorem for it.
      quick: rounds -> epsilon by the accountant that is quick enough for the record of every round,
        such as "rdp"; None where `epsilon` takes microseconds itself.
      by_client: rounds -> float[N] epsilon of each client's examples, where they differ and
        `epsilon` is the largest; None otherwise.
      sent_norm: Bound of the norm of all that a client sends where sums are taken of integers,
        which rounding must keep to; None where it is `clip_norm`.

    Example:
      >>> rows = np.full(1000, 60)
      >>> facts = (1000, 100, "poisson", 50, 0)
      >>> setting = fljax.privacy.Setting(*facts, sizes=rows, batch_size=rows, steps=rows // 60)
      >>> mechanism = fljax.privacy.gaussian(0.3, noise_multiplier=1.0, delta=1e-5)
      >>> promised = mechanism.guarantee(mechanism.hparams, setting)
      >>> promised.unit, {name: round(value, 2) for name, value in promised.epsilon(50).items()}
      ('user', {'rdp': 5.89, 'pld': 5.15})
    """

    unit: str
    relation: str
    sampling: str
    noise_multiplier: float | None
    clip_norm: float | None
    delta: float
    covers: str
    epsilon: Callable[[int], dict[str, float]]
    quick: Callable[[int], float] | None = None
    by_client: Callable[[int], np.ndarray] | None = None
    sent_norm: float | None = None


class Mechanism(NamedTuple):
    """A named recipe of privacy: what `simulate(privacy=...)` takes.

    Attributes:
      name: Shown in records.
      hparams: {name: number}, which join those of the algorithm and are traced as they are.
      guarantee: (hparams, setting) -> Guarantee, on the host, before the first round; raises
        ValueError, with the reason and the remedy, where no theorem covers the run.
      link: (hparams, setting) -> the uplink link that keeps the promise, called inside the trace,
        the first of all links that a message meets; None where updates leave a client as they are.
        Trials of a sweep that share a program share the link: it reads nothing of the setting that
        differs between them (seed, sizes, steps), but keys.
      estimator: (hparams, setting) -> (loss) -> gradient, as `fljax.core.gradients.plain` is: how
        clients differentiate the loss of a batch; None for the plain one.
      fixed_rounds: Whether it is made for the number of rounds of its setting, such as noise that
        is correlated over all of them: a resumed run must keep that number then.

    Example:
      >>> mechanism = fljax.privacy.gaussian(0.3, noise_multiplier=2.0)
      >>> mechanism.name, mechanism.hparams
      ('gaussian', {'clip_norm': 0.3, 'noise_multiplier': 2.0})
    """

    name: str
    hparams: Mapping[str, float]
    guarantee: Callable[[Mapping[str, float], Setting], Guarantee]
    link: Callable[[Mapping[str, Any], Setting], UplinkLink] | None = None
    estimator: Callable[[Mapping[str, Any], Setting], Callable] | None = None
    fixed_rounds: bool = False

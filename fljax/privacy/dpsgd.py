"""DP-SGD on the clients: privacy of single examples, with a server that nobody need trust.

Abadi et al. 2016, "Deep learning with differential privacy" (arXiv:1607.00133), in each client's
local training. What a client sends is made of noisy gradients alone, so it hides each of the
client's examples from whoever sees it. A client of n rows has a guarantee of its own,

    local steps x rounds    of Gaussian noise z    on a batch that each row joins with rate B / n,

and epsilon of a run is that of the client whose examples are hidden the least. Batches that are
shuffled instead have no theorem that counts the chance of being in one; each epoch then shows every
row once, and costs as much as the noise on a batch that the row is in for certain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.core.values import NON_NEGATIVE, Field, checked
from fljax.privacy import accounting
from fljax.privacy.accounting import Event
from fljax.privacy.gaussian import noise_hparams
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting
from fljax.privacy.per_example import clipped_gradients

__all__ = ["dpsgd"]

COVERS = (
    "all that one example of a client changes in what the client sends, and in all that follows "
    "from it; not how many examples a client has, and not the statistics of the record, which the "
    "simulator alone sees"
)
_MICROBATCH = Field(None, int, NON_NEGATIVE, optional=True)
# Fewer examples at once make products too small to be fast.
_FEWEST = 8
# So many different clients are counted by the slower accountant, which is exact for them.
_MOST_EXACT = 16


def dpsgd(
    clip_norm: float = 1.0,
    noise_multiplier: float = 1.0,
    *,
    delta: float | None = None,
    microbatch: int | None = None,
) -> Mechanism:
    """Returns differential privacy of examples: clipped and noisy gradients in local training.

    With `batches = "poisson"`, whose rows are drawn by themselves, accountants count the chance of
    being drawn; with shuffled batches they count each epoch as if all rows were in one batch.

    Args:
      clip_norm: Bound C of the gradient of one example.
      noise_multiplier: z; the noise of a sum of gradients has standard deviation z C.
      delta: Of (epsilon, delta); None for n^-1.1, n being the rows of the largest client.
      microbatch: Examples of a batch whose gradients are in memory at once; 0 for all. None is a
        quarter of a batch where batches are drawn and CPUs compute: parts of a batch in which there
        is nobody take no time, and there is room for several times as many rows as come.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> privacy.dpsgd(1.5, noise_multiplier=1.3, delta=1e-5).hparams
      {'clip_norm': 1.5, 'noise_multiplier': 1.3}
    """
    hparams = noise_hparams(clip_norm, noise_multiplier, delta, clips="gradient")
    microbatch = checked("microbatch", microbatch, _MICROBATCH)

    def guarantee(hp: Mapping[str, float], setting: Setting) -> Guarantee:
        return _guarantee(hp, setting, delta)

    def estimator(hp: Mapping[str, Any], setting: Setting) -> Callable:
        at_once = _at_once(setting) if microbatch is None else microbatch
        return clipped_gradients(hp["clip_norm"], hp["noise_multiplier"], at_once)

    return Mechanism("dpsgd", hparams, guarantee, estimator=estimator)


def _at_once(setting: Setting) -> int:
    """Returns how many examples of a batch to take at once; 0 for all.

    On accelerators a loop whose length follows from data waits for the host.
    """
    if setting.batches != "poisson" or jax.default_backend() != "cpu":
        return 0
    return max(_FEWEST, int(np.median(setting.batch_size)) // 4)


def _guarantee(hp: Mapping[str, float], setting: Setting, delta: float | None) -> Guarantee:
    """Returns what noisy gradients promise to the examples of each client."""
    if not setting.separation:
        raise ValueError(
            "dpsgd: a client may have several jobs in a round, so that nobody knows how often an "
            "example is used. Use sampler = 'uniform' or 'poisson', which draw a client once."
        )
    sizes, noise = setting.sizes, hp["noise_multiplier"]
    largest = max(int(sizes.max(initial=0)), 2)
    delta = accounting.check_delta(largest**-1.1 if delta is None else delta, largest)
    is_drawn = setting.batches == "poisson"
    works, which = _different(setting, is_drawn)
    events = [work.events(noise, is_drawn) for work in works]
    spent = [accounting.spending(event, delta) for event in events]

    def by(accountant: str, number: int, rounds: int) -> float:
        times = -(-rounds // setting.separation)
        return spent[number](times, (accountant,))[accountant]

    def quick(rounds: int) -> float:
        return max((by("rdp", number, rounds) for number in range(len(works))), default=0.0)

    def epsilon(rounds: int) -> dict[str, float]:
        bounds = sorted(((by("rdp", n, rounds), n) for n in range(len(works))), reverse=True)
        return {"rdp": quick(rounds), "pld": _largest(bounds, lambda n: by("pld", n, rounds))}

    def by_client(rounds: int) -> np.ndarray:
        accountant = "pld" if len(works) <= _MOST_EXACT else "rdp"
        found = np.array([by(accountant, number, rounds) for number in range(len(works))] + [0.0])
        return found[which]

    return Guarantee(
        unit="example",
        relation="add_or_remove_one" if is_drawn else "replace_special",
        sampling=_sampling(works, is_drawn),
        noise_multiplier=float(noise),
        clip_norm=float(hp["clip_norm"]),
        delta=delta,
        covers=COVERS,
        epsilon=epsilon,
        quick=quick,
        by_client=by_client,
    )


class _Work(NamedTuple):
    """A client's work in a round: its rows, those of a batch, its steps."""

    rows: int
    batch: int
    steps: int

    @property
    def rate(self) -> float:
        """The probability that a row is in a drawn batch."""
        return min(1.0, self.batch / self.rows)

    @property
    def uses(self) -> int:
        """The most uses of a row in the shuffled batches of a round."""
        return -(-self.steps // -(-self.rows // self.batch))

    def counts(self, is_drawn: bool) -> tuple[float, int]:
        """Returns how likely a row is in a release of a round, and in how many of them it may."""
        return (self.rate, self.steps) if is_drawn else (1.0, self.uses)

    def events(self, noise: float, is_drawn: bool) -> list[tuple[Event, int]]:
        """Returns what the accountants count of one round."""
        rate, times = self.counts(is_drawn)
        kind = accounting.poisson_gaussian(noise, rate) if is_drawn else accounting.gaussian(noise)
        return [(kind, times)]


def _different(setting: Setting, is_drawn: bool) -> tuple[list[_Work], np.ndarray]:
    """Returns works that cost different amounts, and int64[N] which of them is whose; -1 for none.

    Batches of all rows cost clients of any size alike, and are counted once.
    """
    table = np.stack([setting.sizes, setting.batch_size, setting.steps], 1).astype(np.int64)
    trains = (table > 0).all(1)
    rows, places = np.unique(table[trains], axis=0, return_inverse=True)
    number: dict[tuple[float, int], int] = {}
    works, whose = [], np.empty(len(rows), np.int64)
    for place, row in enumerate(rows):
        work = _Work(*map(int, row))
        whose[place] = number.setdefault(work.counts(is_drawn), len(works))
        if whose[place] == len(works):
            works.append(work)
    which = np.full(len(table), -1)
    which[trains] = whose[places.reshape(-1)]
    return works, which


def _largest(bounds: list[tuple[float, int]], exact: Callable[[int], float]) -> float:
    """Returns the largest exact value, or an upper bound of it where that takes long.

    Args:
      bounds: (upper bound, number) in descending order.
      exact: number -> value.
    """
    found = 0.0
    for tries, (bound, number) in enumerate(bounds):
        if bound <= found:
            return found
        if tries == _MOST_EXACT:
            return bound
        found = max(found, exact(number))
    return found


def _sampling(works: list[_Work], is_drawn: bool) -> str:
    """Returns in words how batches come about."""
    if is_drawn:
        rates = sorted(work.rate for work in works)
        of_all = " to ".join(dict.fromkeys(f"{rate:.4g}" for rate in (rates[0], rates[-1])))
        return (
            f"each example of a client is in a batch with probability {of_all} (Poisson), and each "
            "client counts as taking part as often as it may"
        )
    return (
        "shuffled batches: each example of a client is in one batch of an epoch, no chance of "
        "being in a certain one is counted, and each client counts as taking part as often as it "
        "may"
    )

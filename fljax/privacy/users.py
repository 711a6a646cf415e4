"""Guarantees for users: which runs a theorem covers, and what clipped and noised sums cost.

Everything that one client sends in one round is one record. A cohort is a Poisson sample of the
population, or all of it; neighbouring populations differ by one client.
"""

from __future__ import annotations

from fljax.privacy import accounting
from fljax.privacy.mechanism import Guarantee, Setting

__all__ = ["COVERS", "check_weights", "delta_of", "sampling_rate", "users_guarantee"]

COVERS = (
    "all that one user's data change in what the server learns of a run: models of all rounds, "
    "model state and control variates included; not the statistics of the record, which the "
    "simulator alone sees"
)


def users_guarantee(
    noise_multiplier: float,
    setting: Setting,
    delta: float | None,
    *,
    clip_norm: float | None,
    weight_cap: float | None = None,
) -> Guarantee:
    """Returns what Gaussian noise on the sum of a round's clipped messages promises to users.

    Args:
      noise_multiplier: Standard deviation of the noise over the bound of one message.
      setting: The run.
      delta: Of (epsilon, delta); None for N^-1.1.
      clip_norm: Of one message; None where it changes in the run.
      weight_cap: What a client's weight counts at most; None where all weigh alike.

    Raises:
      ValueError: If no theorem covers the run.

    Example:
      >>> zeros = np.zeros(1000, int)
      >>> setting = Setting(1000, 100, "poisson", 100, 0, zeros, zeros, zeros)
      >>> guarantee = users_guarantee(1.0, setting, 1e-5, clip_norm=0.3)
      >>> guarantee.unit, f"{guarantee.epsilon(100)['rdp']:.2f}"
      ('user', '7.90')
    """
    check_weights(setting, weight_cap)
    rate = sampling_rate(setting)
    delta = delta_of(delta, setting)
    event = (
        accounting.gaussian(noise_multiplier)
        if rate == 1
        else accounting.poisson_gaussian(noise_multiplier, rate)
    )
    spent = accounting.spending(event, delta)
    return Guarantee(
        unit="user",
        relation="add_or_remove_one",
        sampling=(
            "every client takes part in every round"
            if rate == 1
            else f"each client takes part in a round with probability {rate:.6g} (Poisson)"
        ),
        noise_multiplier=float(noise_multiplier),
        clip_norm=clip_norm,
        delta=delta,
        covers=COVERS,
        epsilon=lambda rounds: spent(rounds),
        quick=lambda rounds: spent(rounds, ("rdp",))["rdp"],
    )


def sampling_rate(setting: Setting) -> float:
    """Returns the probability that a client takes part in a round.

    Raises:
      ValueError: For cohorts that are neither Poisson samples nor everybody.

    Example:
      >>> sampling_rate(Setting(1000, 100, "poisson", 1, 0, *[np.zeros(1000, int)] * 3))
      0.1
    """
    clients, cohort = setting.num_clients, setting.clients_per_round
    if setting.sampler == "poisson":
        return cohort / clients
    if setting.sampler == "uniform" and cohort == clients:
        return 1.0
    if setting.sampler == "uniform":
        raise ValueError(
            f"sampler='uniform' draws exactly {cohort:g} of {clients:,} clients, so that one who "
            "is left out lets another one in, and changes the sum by twice the clip norm: the "
            "noise would count as half of what it is, and epsilon as many times as large. Use "
            "sampler='poisson', whose cohorts have this size on average."
        )
    raise ValueError(
        f"sampler={setting.sampler or 'a function of your own'!r}: there is no theorem of how "
        "such cohorts hide a client. Use sampler='poisson'."
    )


def check_weights(setting: Setting, weight_cap: float | None) -> None:
    """Raises ValueError where a client's weight, and so what it changes, has no bound.

    Example:
      >>> setting = Setting(1000, 100, "poisson", 1, 0, *[np.zeros(1000, int)] * 3)
      >>> check_weights(setting, weight_cap=None)
    """
    if weight_cap is None and setting.weighting != "uniform":
        weights = "weighting='examples'"
        if setting.weighting == "own":
            weights = "client_weights, or an algorithm whose weights are not all 1,"
        raise ValueError(
            f"{weights} gives clients unlike weights, so that a client with a large one would "
            "change the mean by more than the clip norm. Use weighting='uniform', or bound the "
            "weights with weight_cap, such as gaussian(0.3, weight_cap=100)."
        )
    if weight_cap is not None and setting.behind == "links":
        raise ValueError(
            f"weight_cap = {weight_cap:g} cannot go with compression, which may enlarge a message "
            "whose weight nobody knows where it is clipped again. Use weighting='uniform' and "
            "leave out weight_cap, or uplink='none'."
        )


def delta_of(delta: float | None, setting: Setting) -> float:
    """Returns delta, which is N^-1.1 where nobody has set it.

    Raises:
      ValueError: If it is 1/N or more.

    Example:
      >>> f"{delta_of(None, Setting(1000, 100, 'poisson', 1, 0, *[np.zeros(1000, int)] * 3)):.3g}"
      '0.000501'
    """
    clients = setting.num_clients
    return accounting.check_delta(clients**-1.1 if delta is None else delta, clients)

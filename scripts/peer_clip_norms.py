"""Shows where adaptive clip norms of several libraries go, on the same messages.

    python scripts/peer_clip_norms.py fljax
    PFL/bin/python scripts/peer_clip_norms.py pfl
    FLOWER/bin/python scripts/peer_clip_norms.py flwr

Others need an environment of their own, with NumPy and nothing of fljax. In each of 100 rounds, 100
clients send messages whose norms have the median 1. The clip norm begins below, at and above it,
and follows Andrew et al. 2021 (arXiv:1905.03871): noise multiplier 1, bits with noise of 5,
quantile 0.5, rate 0.2. Printed is the clip norm of some rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

ROUNDS, COHORT, NOISE_MULTIPLIER, BIT_NOISE = 100, 100, 1.0, 5.0
QUANTILE, RATE = 0.5, 0.2
STARTS, SHOWN = (0.1, 1.0, 5.0), (10, 20, 50, 100)


def main() -> None:
    """Prints a table of a library's clip norms."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    libraries = {"fljax": of_fljax, "pfl": of_pfl, "flwr": of_flower}
    parser.add_argument("library", choices=libraries)
    library = parser.parse_args().library
    print(f"| {library} begins at |" + "".join(f" after {round} rounds |" for round in SHOWN))
    print("|---:|" + "---:|" * len(SHOWN))
    for start in STARTS:
        np.random.seed(0)  # of which libraries draw their noise
        found = list(libraries[library](start, messages()))
        print(f"| {start:g} |" + "".join(f" {found[round - 1]:.3g} |" for round in SHOWN))


def messages() -> np.ndarray:
    """Returns float32[ROUNDS, COHORT, 2] messages, whose norms are log-normal around 1."""
    norms = np.exp(np.random.default_rng(0).normal(0, 0.8, (ROUNDS, COHORT, 1)))
    return (norms * np.array([0.6, -0.8])).astype(np.float32)


def of_fljax(start: float, sent: np.ndarray) -> Iterator[float]:
    """Yields the clip norm after each round of `adaptive_clipping`."""
    import jax
    import jax.numpy as jnp

    from fljax import privacy
    from fljax.core.algorithm import Aggregate, blank_job

    mechanism = privacy.adaptive_clipping(
        start, NOISE_MULTIPLIER, quantile=QUANTILE, clip_lr=RATE, bit_noise=BIT_NOISE
    )
    none = np.zeros(0, np.int64)
    facts = privacy.Setting(10 * COHORT, COHORT, "poisson", ROUNDS, 0, none, none, none)
    link = mechanism.link(mechanism.hparams, facts)
    job = blank_job(jax.random.key(0))._replace(weights={"update": jnp.ones(())})

    @jax.jit
    def after(moved, round, cohort):
        messages = jax.vmap(lambda x: link.encode({"update": x}, (), job, None, moved)[0])(cohort)
        count = jnp.float32(COHORT)
        sums = {name: Aggregate(part.sum(0), count, count) for name, part in messages.items()}
        return link.release(sums, moved, round, jax.random.key(round))[1]

    moved = jnp.zeros(())
    for round, cohort in enumerate(sent):
        moved = after(moved, round, cohort)
        yield start * float(np.exp(moved))


def of_pfl(start: float, sent: np.ndarray) -> Iterator[float]:
    """Yields the clip norm after each round of `AdaptiveClippingGaussianMechanism`."""
    from pfl.common_types import Population
    from pfl.context import CentralContext, UserContext
    from pfl.privacy.adaptive_clipping import AdaptiveClippingGaussianMechanism
    from pfl.privacy.gaussian_mechanism import GaussianMechanism
    from pfl.stats import MappedVectorStatistics

    mechanism = AdaptiveClippingGaussianMechanism(
        lambda bound: GaussianMechanism(bound, NOISE_MULTIPLIER),
        start, 2 * BIT_NOISE, QUANTILE, RATE,  # its bits are -1 and 1
    )  # fmt: skip
    for round, cohort in enumerate(sent):
        total = None
        for message in cohort:
            one_user, _ = mechanism.postprocess_one_user(
                stats=MappedVectorStatistics({"update": message}), user_context=UserContext(1, 0)
            )
            one_user.reweight(1)
            total = one_user if total is None else total + one_user
        context = CentralContext(round, False, COHORT, Population.TRAIN, None, None, seed=round + 1)
        mechanism.postprocess_server(stats=total, central_context=context, aggregate_metrics=None)
        yield mechanism.mutable_clipping_bound.value()


def of_flower(start: float, sent: np.ndarray) -> Iterator[float]:
    """Yields the clip norm after each round of `DifferentialPrivacyServerSideAdaptiveClipping`."""
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
    from flwr.server.strategy import DifferentialPrivacyServerSideAdaptiveClipping, FedAvg

    strategy = DifferentialPrivacyServerSideAdaptiveClipping(
        FedAvg(), NOISE_MULTIPLIER, COHORT, start, QUANTILE, RATE, BIT_NOISE
    )
    server = [np.zeros(sent.shape[-1], np.float32)]
    strategy.current_round_params = server
    for round, cohort in enumerate(sent):
        results = [
            (None, FitRes(Status(Code.OK, ""), ndarrays_to_parameters([message]), 1, {}))
            for message in cohort
        ]
        strategy.aggregate_fit(round, results, [])
        yield strategy.clipping_norm


if __name__ == "__main__":
    main()

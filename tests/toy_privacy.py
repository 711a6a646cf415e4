"""A mechanism of the tests' own: clipped updates, Gaussian noise, and zero-concentrated DP."""

import math

import jax
import jax.numpy as jnp

from fljax.core.transforms import UplinkLink
from fljax.core.trees import all_finite
from fljax.privacy.mechanism import Guarantee, Mechanism

# Whoever takes part is taken for certain: no theorem of sampling.
DELTA = 1e-3


def toy_gaussian(clip_norm: float, noise_multiplier: float, delta: float = DELTA) -> Mechanism:
    """Returns Gaussian noise on the sum of clipped messages, of which all clients may be part."""

    def guarantee(hparams, setting):
        if setting.sampler not in ("poisson", "uniform"):
            raise ValueError(f"no theorem for sampler = {setting.sampler!r}")
        if setting.weighting != "uniform":
            raise ValueError(f"no theorem for weighting = {setting.weighting!r}")
        noise = hparams["noise_multiplier"]

        def epsilon(rounds):
            return {"rdp": rdp(noise, rounds, delta), "pld": 0.9 * rdp(noise, rounds, delta)}

        return Guarantee(
            unit="user",
            relation="add_or_remove_one",
            sampling="whole population",
            noise_multiplier=noise,
            clip_norm=hparams["clip_norm"],
            delta=delta,
            covers="the models of all rounds",
            epsilon=epsilon,
            quick=lambda rounds: rdp(noise, rounds, delta),
        )

    def link(hparams, setting):
        expected = setting.clients_per_round
        scale = hparams["noise_multiplier"] * hparams["clip_norm"]

        def encode(message, state, job, key):
            norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(message)))
            factor = jnp.where(all_finite(message), jnp.minimum(1, hparams["clip_norm"] / norm), 0)
            bounded = lambda leaf: jnp.where(factor > 0, leaf * factor, 0)  # noqa: E731
            return jax.tree.map(bounded, message), state

        def release(message, state, round, key):
            leaves, form = jax.tree.flatten({name: total.sum for name, total in message.items()})
            keys = jax.random.split(key, len(leaves))
            noisy = [
                leaf + scale * jax.random.normal(own, leaf.shape, leaf.dtype)
                for leaf, own in zip(leaves, keys, strict=True)
            ]
            sums = jax.tree.unflatten(form, noisy)
            return {
                name: total._replace(
                    sum=sums[name],
                    weight=jnp.full_like(total.weight, expected),
                    count=jnp.maximum(total.count, 1),
                )
                for name, total in message.items()
            }, state

        return UplinkLink(
            encode,
            lambda payload, state: payload,
            covers=None,
            refuses_rest=True,
            makes_finite=True,
            release=release,
        )

    numbers = {"clip_norm": clip_norm, "noise_multiplier": noise_multiplier}
    return Mechanism("toy_gaussian", numbers, guarantee, link)


def rdp(noise: float, rounds: int, delta: float) -> float:
    """Returns epsilon of so many Gaussian releases, by zero-concentrated DP."""
    if not noise:
        return math.inf
    rho = rounds / (2 * noise**2)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))

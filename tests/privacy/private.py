"""Ground that tests of mechanisms share: settings, and rounds behind a mechanism's link."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import reference

from fljax.core.transforms import Pipeline, PipelineSpec
from fljax.engine.program import keys
from fljax.privacy.mechanism import Setting


def setting(num_clients=1000, clients_per_round=100.0, sampler="poisson", num_rounds=100, **facts):
    nothing = np.zeros(num_clients, np.int64)
    return Setting(
        num_clients, clients_per_round, sampler, num_rounds, 0, nothing, nothing, nothing
    )._replace(**facts)


def pipeline(mechanism, members, *links, behind="nothing", wrap=lambda link: link):
    """Returns the pipeline of a mechanism and of links behind it.

    Args:
      mechanism: The mechanism.
      members: Clients of a round, on average.
      *links: Behind it.
      behind: As in a Setting.
      wrap: Changes the mechanism's link.
    """
    run = setting(clients_per_round=members, behind=behind)
    return PipelineSpec(
        lambda hp: Pipeline(uplink=(wrap(mechanism.link(hp, run)), *links)), mechanism.hparams
    )


def length(*trees):
    return math.sqrt(sum((leaf**2).sum() for tree in trees for leaf in tree.values()))


def clipped(bound, *trees):
    """Returns trees {name: array}, whose numbers all together have a norm of the bound at most."""
    scale = min(1, bound / length(*trees))
    return [reference.combine(lambda leaf: leaf * scale, tree) for tree in trees]


def noise_of(round, shapes, split=False):
    """Draws the noise of a round in float64 by the documented derivation of keys.

    Args:
      round: Its number.
      shapes: Of arrays, {name: shape} or {name: {name: shape}}.
      split: Whether a number is drawn beside them, and returned too.
    """
    key = jax.random.key(0)
    for number in (round, 0, keys.RELEASE, 0):
        key = jax.random.fold_in(key, number)
    if split:
        key, other = jax.random.split(key)
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda shape: isinstance(shape, tuple))
    drawn = [
        np.asarray(jax.random.normal(jax.random.fold_in(key, number), shape, jnp.float64))
        for number, shape in enumerate(leaves)
    ]
    drawn = jax.tree.unflatten(tree, drawn)
    return (drawn, float(jax.random.normal(other, (), jnp.float64))) if split else drawn

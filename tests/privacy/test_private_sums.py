"""Differential privacy behind secure aggregation: integers change rounding alone."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fljax
from fljax import algorithms, data, models, privacy, tasks
from fljax.core.transforms import Participants
from fljax.privacy.secagg.masks import enough, make_graph
from fljax.privacy.secagg.refusals import chance_of_refusal, refused_share
from fljax.training.options import RoundOptions
from fljax.training.privacy import with_privacy

OPTIONS = {
    "num_rounds": 6, "clients_per_round": 12, "sampler": "poisson", "batch_size": 10, "seed": 3,
    "devices": 1, "lanes": 2, "eval_every": 0, "progress": False,
}  # fmt: skip
# a fixed clip norm behind masks: `test_secure_aggregation.py`
MECHANISMS = {
    "adaptive": privacy.adaptive_clipping(0.1, 0.5, bit_noise=0.6),
    "adaptive, no noise": privacy.adaptive_clipping(0.1, 0.0),
}


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.usefixtures("quick_compilation", "weights_as_written")
def test_rounds_are_those_without_masks_up_to_rounding(name):
    """SCAFFOLD's whole message, and bits beside it; noise is the same, drawn from the same keys."""
    dataset = data.digits(partition="iid", num_clients=60)
    runs = [
        fljax.simulate(
            dataset,
            "softmax_regression",
            algorithms.scaffold(0.3),
            privacy=MECHANISMS[name],
            secure_aggregation=secure,
            **OPTIONS,
        )  # fmt: skip
        for secure in (None, "secure_aggregation(bits=24)")
    ]
    plain, masked = (jax.tree.leaves(run.variables.params) for run in runs)
    for leaf, other in zip(plain, masked, strict=True):
        np.testing.assert_allclose(leaf, other, atol=2e-3 * np.abs(leaf).max())
    clip_norms = [run.curves["privacy/clip_norm"] for run in runs]
    np.testing.assert_allclose(*clip_norms, rtol=1e-3)
    assert clip_norms[0][-1] > 0.11  # from 0.1


@pytest.mark.parametrize(
    ("secure", "refused"),
    [
        (privacy.secure_aggregation(bits=8, clip=0.3), True),
        (privacy.secure_aggregation(clip=0.5, by_norm=True), True),
        (privacy.secure_aggregation(clip=0.3, by_norm=True, max_weight=5.0), True),
        (privacy.secure_aggregation(clip=0.3, by_norm=True), False),
        ("secure_aggregation", False),
    ],
)
def test_rounding_that_makes_messages_longer_is_refused(secure, refused):
    """Noise is in proportion to the clip norm, and rounding thousands of numbers adds to it."""
    dataset = data.digits(partition="iid", num_clients=60)
    task = tasks.classification(models.softmax_regression(64, 10), 10)
    spec = algorithms.fedavg(0.1, weighting="uniform")
    options = RoundOptions(
        num_rounds=5, clients_per_round=12, sampler="poisson", privacy=privacy.gaussian(0.3, 1.0),
        secure_aggregation=secure,
    )  # fmt: skip
    if not refused:
        with_privacy(dataset, task, spec, options)
        return
    with pytest.raises(
        ValueError, match="longer than 0.3,.*Give secure_aggregation clip=0.3, by_n"
    ):
        with_privacy(dataset, task, spec, options)


@pytest.mark.parametrize(("cap", "refused"), [(20.0, True), (1000.0, False)])
def test_weights_are_capped_where_they_are_rounded_or_not_at_all(cap, refused):
    """Integers have steps in proportion to the largest weight, noise to the cap."""
    dataset = data.digits(partition="quantity(sigma=1.0)", num_clients=40)
    task = tasks.classification(models.softmax_regression(64, 10), 10)
    options = RoundOptions(
        num_rounds=5, clients_per_round=12, sampler="poisson",
        privacy=privacy.gaussian(0.3, 1.0, weight_cap=cap),
        secure_aggregation="secure_aggregation",
    )  # fmt: skip
    if not refused:
        with_privacy(dataset, task, algorithms.fedavg(0.1), options)
        return
    with pytest.raises(ValueError, match="largest weight of all clients, which weight_cap must"):
        with_privacy(dataset, task, algorithms.fedavg(0.1), options)


class Case(NamedTuple):
    clients: int
    members: float
    secure: dict


REFUSALS = {
    "crowds": (Case(60, 12, {}), False),
    "everybody": (Case(40, 40, {}), False),
    "a cohort of two": (Case(60, 4, {}), True),
    "answers of nearly all": (Case(60, 30, {"vanishing": 0.2, "threshold": 0.75}), True),
    "answers of few neighbours": (Case(60, 30, {"vanishing": 0.05, "graph": 8}), True),
    "answers of half": (Case(60, 40, {"vanishing": 0.05, "threshold": 0.5}), False),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_sums_that_are_opened_or_not_by_who_came_are_refused(name):
    """Noise in proportion to one message does not hide whether there is a sum at all."""
    (clients, members, secure), refused = REFUSALS[name]
    dataset = data.digits(partition="iid", num_clients=clients)
    task = tasks.classification(models.softmax_regression(64, 10), 10)
    spec = algorithms.fedavg(0.1, weighting="uniform")
    options = RoundOptions(
        num_rounds=5, clients_per_round=members, privacy=privacy.gaussian(0.3, 1.0),
        sampler="uniform" if members == clients else "poisson",
        secure_aggregation=privacy.secure_aggregation(clip=0.3, by_norm=True, **secure),
    )  # fmt: skip
    if not refused:
        with_privacy(dataset, task, spec, options)
        return
    with pytest.raises(ValueError, match=f"opens no sum.*with {members} clients a round"):
        with_privacy(dataset, task, spec, options)


def test_the_chance_that_one_client_decides_is_at_least_what_is_drawn():
    """Cohorts, who stays and who are neighbours are drawn; `enough` opens sums."""
    clients, rate, threshold, vanishing, degree = 12, 0.4, 0.7, 0.3, 4
    share = functools.partial(
        refused_share, degree=degree, threshold=threshold, vanishing=vanishing
    )

    @jax.vmap
    def is_opened(key, present):
        graph = make_graph(Participants(present, jnp.int32(0), key), degree, vanishing)
        return enough(graph, present, threshold)

    cohort_key, key = jax.random.split(jax.random.key(0))
    present = jax.random.bernoulli(cohort_key, rate, (4000, clients))
    keys = jax.random.split(key, len(present))
    opened = is_opened(keys, present), is_opened(keys, present.at[:, 0].set(False))
    decides = (opened[0] != opened[1]).mean()
    assert 0.02 < decides <= chance_of_refusal(share, clients, rate)
    sizes = np.asarray(present.sum(1))
    for size in (2, 4, 6, 8):
        refused = 1 - np.asarray(opened[0])[sizes == size].mean()
        assert 0 < refused <= share(np.array([size]))[0] + 0.03

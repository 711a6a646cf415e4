"""Differential privacy behind secure aggregation: integers change rounding alone."""

import jax
import numpy as np
import pytest

import fljax
from fljax import algorithms, data, models, privacy, tasks
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

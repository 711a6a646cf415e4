"""To fair algorithms, clients of weight 0 or with broken updates are as those who did not come."""

import dataclasses

import jax
import numpy as np
import pytest
import toy
from algorithms import test_fairness as fair

from fljax import algorithms
from fljax.data.dataset import Split
from fljax.training.divergence import check_diverged
from fljax.training.federation import RoundOptions, build

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

LR, RATE = 0.2, 0.9
# The losses of these two are huge; one weighs nothing, of the other no update is finite.
WEIGHTLESS, BROKEN = 3, 8
WITHOUT = [[0, 2], [7, 2]]


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def dataset():
    whole = fair.dataset_of(0)
    examples, partition = whole.train.examples, whole.train.partition
    x = examples.arrays["x"].copy()
    x[partition.rows(WEIGHTLESS)] *= -1e4  # pulls away from the others
    x[partition.rows(BROKEN)] *= 1e150  # the square of its loss is finite
    examples = dataclasses.replace(examples, arrays=examples.arrays | {"x": x})
    return dataclasses.replace(whole, train=Split(examples, partition))


@pytest.mark.parametrize(
    ("spec", "absent"),
    [
        (algorithms.term(1.5, LR, RATE), [WEIGHTLESS, BROKEN]),
        (algorithms.q_fedavg(0.5, LR, RATE), [WEIGHTLESS, BROKEN]),
        (algorithms.afl(0.3, LR, RATE), [WEIGHTLESS, BROKEN]),
        (algorithms.fedmgda(1.0, LR, RATE), [WEIGHTLESS, BROKEN]),
        # what a client told before it broke counts for the gaps of the others
        (algorithms.gifair(None, LR, RATE), [WEIGHTLESS]),
        (algorithms.fairfed(0.4, LR, RATE), [WEIGHTLESS]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_who_does_not_arrive_did_not_come(spec, absent):
    weights, factors = np.linspace(1, 3, 9), np.ones(9)
    weights[WEIGHTLESS], factors[BROKEN] = 0, 1e38
    options = RoundOptions(
        num_rounds=4,
        cohorts=[[*clients, *absent] for clients in WITHOUT] + WITHOUT,
        batch_size=4,
        shuffle=False,
        clients_per_round=4,
        client_weights=weights.tolist(),
        client_lr_factors=factors.tolist(),
    )
    federation = build(dataset(), fair.task_of(), spec, options)
    start = jax.device_get((federation.state, federation.store.state()))
    got, broken = [], 0
    for round, (plan, facts) in enumerate(federation.plans(0, 4)):
        if round == 2:
            federation.load(*start)
        stats = federation.step(plan, facts)
        broken += np.sum(stats[-1]["nonfinite"])
        if round % 2:
            got.append(jax.device_get(federation.variables.params))
    assert broken == 2 * (BROKEN in absent)
    toy.assert_close(got[0], got[1], 1e-9)
    assert np.abs(got[0]["w"] - fair.initial_params()["w"]).max() > 1e-3
    record = {"train/clients_nonfinite": 1, "train/clients": 3, "round": 0}
    with pytest.warns(UserWarning) as said:
        check_diverged(record, np.array([BROKEN]), federation)
    assert "cluster" not in str(said[0].message)

"""Optimizers that start anew in each round hold no schedule; those that are kept run on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
import toy

from fljax import algorithms
from fljax.algorithms.optimizers import check_starts_anew

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

COHORTS = [[0, 2, 3], [3, 4], [], [5, 0]]
PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(2, jnp.bfloat16)}
DECAY = optax.exponential_decay(0.5, 1, 0.5)
WARMUP = optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)
JOINED = optax.join_schedules([optax.constant_schedule(0.1), WARMUP], [1000])


class Count(NamedTuple):
    count: jax.Array


class Moment(NamedTuple):
    count: jax.Array
    mean: optax.Params


def own(factor):
    """Returns a transformation of one's own, with a schedule of one's own."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda u: u * factor(state.count), updates), Count(state.count + 1)

    return optax.GradientTransformation(lambda params: Count(jnp.int32(0)), update)


def corrected_mean(decay=0.9):
    """Returns a mean of one's own, corrected for its start as Adam's is."""

    def update(updates, state, params=None):
        count = state.count + 1
        mean = jax.tree.map(lambda m, u: decay * m + (1 - decay) * u, state.mean, updates)
        return jax.tree.map(lambda m: m / (1 - decay**count), mean), Moment(count, mean)

    def init(params):
        return Moment(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))

    return optax.GradientTransformation(init, update)


def by_name(**optimizers):
    return optax.multi_transform(optimizers, {"w": "w", "b": "b"})


SCHEDULED = {
    "for some steps": optax.conditionally_mask(optax.sgd(0.1), lambda step, **_: step < 1),
    "otherwise in some steps": optax.conditionally_transform(
        optax.scale(0.1), lambda step, **_: step < 3
    ),
    "sgd": optax.sgd(DECAY),
    "adamw": optax.adamw(WARMUP),
    "chain": optax.chain(optax.clip(1.0), optax.scale_by_adam(), optax.scale_by_schedule(DECAY)),
    "later": optax.adam(JOINED),
    "injected": optax.inject_hyperparams(optax.sgd)(learning_rate=DECAY),
    "injected momentum": optax.inject_hyperparams(optax.sgd)(0.1, momentum=DECAY),
    "injected inside": optax.chain(optax.inject_hyperparams(optax.adam)(WARMUP)),
    "of one part": by_name(w=optax.sgd(0.1), b=optax.adam(DECAY)),
    "masked": optax.masked(optax.sgd(DECAY), {"w": True, "b": False}),
    "several steps": optax.MultiSteps(optax.sgd(DECAY), 2).gradient_transformation(),
    "finite": optax.apply_if_finite(optax.sgd(DECAY), 2),
    "weight decay": optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(0.1)),
    "a function": optax.sgd(lambda count: 0.1 / (1 + count)),
    "one's own": optax.chain(optax.scale_by_adam(), own(lambda count: 1 / (1 + count))),
    "one's own, later": own(lambda count: jnp.where(count < 500, 1.0, 0.1)),
    "one's own, masked": optax.masked(own(lambda count: 0.9**count), {"w": True, "b": False}),
}
CONSTANT = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.1),
    "amsgrad": optax.amsgrad(0.1),
    "adamw": optax.adamw(0.1, mask={"w": True, "b": False}),
    "adafactor": optax.adafactor(0.1),
    "lion": optax.lion(0.1),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=0.1, b1=0.8),
    "of one part": by_name(w=optax.sgd(0.1), b=optax.adam(0.1)),
    "several steps": optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
    "finite": optax.apply_if_finite(optax.adam(0.1), 2),
    "lookahead-like mean": optax.chain(optax.ema(0.9), optax.sgd(0.1)),
    "one's own": optax.chain(corrected_mean(), optax.sgd(0.1)),
    "one's own, that only counts": own(lambda count: 1.0),
}


@pytest.mark.parametrize("name", SCHEDULED)
def test_schedules_of_clients_are_refused(name):
    with pytest.raises(ValueError, match=r"has a schedule.*begin again.*client_lr_schedule"):
        check_starts_anew(SCHEDULED[name], PARAMS)


@pytest.mark.parametrize("name", CONSTANT)
def test_moments_may_start_anew(name):
    check_starts_anew(CONSTANT[name], PARAMS)


@pytest.mark.parametrize(
    "noise", [optax.add_noise(0.1, 0.5, key=0), optax.contrib.dpsgd(0.1, 1.0, 1.0, 0)]
)
def test_noise_from_a_key_of_the_optimizers_own_is_refused(noise):
    noisy = optax.chain(noise, optax.sgd(0.1))
    with pytest.raises(ValueError, match="the same noise, in every round"):
        check_starts_anew(noisy, PARAMS)


@pytest.mark.parametrize("make", [algorithms.fedavg, algorithms.fedopt, algorithms.fedprox])
def test_a_run_is_refused_before_it_starts(make):
    spec = make(client_optimizer=lambda hp: optax.sgd(lambda count: hp["client_lr"] / (1 + count)))
    with pytest.raises(ValueError, match="client_lr_schedule"):
        toy.run_rounds(toy.clients(), spec, COHORTS)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda hp: optax.sgd(lambda count: hp["server_lr"] * 0.5**count),
        lambda hp: optax.inject_hyperparams(optax.sgd)(lambda count: hp["server_lr"] * 0.5**count),
    ],
)
def test_a_schedule_of_the_server_counts_rounds_with_clients(optimizer):
    with jax.enable_x64(True):
        spec = algorithms.fedavg(0.2, 0.9, server_optimizer=optimizer)
        federation, _ = toy.run_rounds(toy.clients(), spec, COHORTS)
        found = toy.params_of(federation)
    server = reference.Server(toy.initial_params())
    for number, cohort in enumerate([cohort for cohort in COHORTS if cohort]):
        server.lr = 0.9 * 0.5**number
        reference.federated(None, toy.clients(), [cohort], lr=0.2, batch_size=4, server=server)
    toy.assert_close(found, server.params, 1e-9)


def test_injected_numbers_of_the_server_follow_its_schedule():
    """`inject_hyperparams` keeps numbers in its state: those of the round must replace them."""
    halves = lambda round: 0.5**round  # noqa: E731
    with jax.enable_x64(True):
        found = [
            toy.params_of(
                toy.run_rounds(
                    toy.clients(),
                    algorithms.fedavg(0.2, 0.9, server_optimizer=optimizer),
                    COHORTS,
                    server_lr_schedule=halves,
                )[0]
            )
            for optimizer in (
                lambda hp: optax.sgd(hp["server_lr"], momentum=0.5),
                lambda hp: optax.chain(
                    optax.inject_hyperparams(optax.sgd)(hp["server_lr"], momentum=0.5)
                ),
            )
        ]
    toy.assert_close(found[1], found[0], 1e-12)


def adam_by_schedule(hp):
    rate = lambda count: hp["client_lr"] * 0.7**count  # noqa: E731
    return optax.chain(
        optax.scale_by_adam(), optax.scale_by_schedule(rate), optax.scale_by_learning_rate(1.0)
    )


def test_a_client_that_trains_alone_goes_on_with_its_optimizer():
    """One step on one batch a round: moments, their correction and the schedule run on."""
    part = toy.clients([12])
    with jax.enable_x64(True):
        specs = (
            algorithms.centralized(adam_by_schedule, client_lr=0.1),
            algorithms.local_only(0.1, client_optimizer=adam_by_schedule),
        )
        runs = [toy.run_rounds(part, spec, [[0]] * 5, batch_size=12)[0] for spec in specs]
        alone = runs[1].store.rows_of(np.array([0])).algorithm.params
        found = [toy.params_of(runs[0]), jax.tree.map(lambda leaf: np.asarray(leaf[0]), alone)]
    params = toy.initial_params()
    mean, square = reference.zeros(params), reference.zeros(params)
    for count in range(1, 6):
        _, grad = reference.loss_and_gradient(params, *part[0])
        mean = reference.combine(lambda m, g: 0.9 * m + 0.1 * g, mean, grad)
        square = reference.combine(lambda v, g: 0.999 * v + 0.001 * g * g, square, grad)
        unit = reference.combine(
            lambda m, v, t=count: m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8),
            mean, square,
        )  # fmt: skip
        rate = 0.1 * 0.7 ** (count - 1)
        params = reference.combine(lambda p, u, rate=rate: p - rate * u, params, unit)
    for trained in found:
        toy.assert_close(trained, params, 1e-6)

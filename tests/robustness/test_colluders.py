"""Colluders against loops in NumPy: what they send, whom they leave alone, where they are few."""

import jax
import numpy as np
import pytest
from robustness import reference_messages as oracle
from robustness.harness import attacked

from fljax.robustness.attacks.alone import scaling
from fljax.robustness.attacks.farthest import min_max, min_sum
from fljax.robustness.attacks.moments import alie, ipm

P, D = 9, 11
GENERATOR = np.random.default_rng(0)
STACK = GENERATOR.standard_normal((P, D)) * GENERATOR.uniform(0.5, 3, (P, 1)) + 0.5
VALID = np.array([True, True, False, True, True, True, False, True, True])
HOSTILE = np.array([False, True, True, False, False, True, False, False, False])
WEIGHTS = GENERATOR.uniform(1, 5, P)


def farthest(name, accepts, **options):
    return lambda honest, hostile: oracle.farthest(
        honest, name, lambda *args: accepts(*args, **options)
    )


def of_gradients(expected):
    """Returns an oracle that takes updates for minus a rate times gradients."""

    def opposite(updates):
        return [-update for update in updates]

    return lambda honest, hostile: -expected(opposite(honest), opposite(hostile))


ATTACKS = {
    "alie": (alie(), oracle.alie),
    "alie(1.5, ddof=1)": (alie(1.5, ddof=1), lambda *seen: oracle.alie(*seen, z=1.5, ddof=1)),
    "alie of attackers": (
        alie(sees="attackers"), lambda *seen: oracle.alie(*seen, sees="attackers"),
    ),
    "alie of gradients": (alie(of="gradients"), of_gradients(oracle.alie)),
    "ipm": (ipm(), lambda *seen: oracle.ipm(*seen, epsilon=0.1)),
    "min_max(std)": (min_max(), farthest("std", oracle.within_max)),
    "min_max(unit)": (min_max("unit"), farthest("unit", oracle.within_max)),
    "min_max(sign)": (min_max("sign"), farthest("sign", oracle.within_max)),
    "min_sum(std)": (min_sum(), farthest("std", oracle.within_sum)),
    "min_max of gradients": (
        min_max(of="gradients"), of_gradients(farthest("std", oracle.within_max)),
    ),
    "min_sum of gradients": (
        min_sum(of="gradients"), of_gradients(farthest("std", oracle.within_sum)),
    ),
    "min_sum(unit, min)": (
        min_sum("unit", bound="min"), farthest("unit", oracle.within_sum, bound="min"),
    ),
}  # fmt: skip
LINKS = {name: attack.cohort[0] for name, (attack, _) in ATTACKS.items()}


def expected(name, stack, valid, hostile):
    """Returns the stack that the oracle's colluders leave."""
    honest, bad = valid & ~hostile, valid & hostile
    left = np.where(valid[:, None], stack, 0)
    if honest.any() and bad.any():
        left[bad] = ATTACKS[name][1](list(stack[honest]), list(stack[bad]))
    return left


def check(name, stack, valid, hostile, devices=1, rtol=1e-9):
    sent = attacked(LINKS[name], stack, hostile, valid, devices=devices).stack
    wanted = expected(name, stack, valid, hostile)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(sent, wanted, rtol=rtol, atol=rtol * scale)
    calm = ~(valid & hostile)
    np.testing.assert_array_equal(sent[calm], wanted[calm].astype(sent.dtype))


@pytest.mark.parametrize("name", ATTACKS)
def test_they_send_what_the_paper_says_on_any_number_of_devices(name):
    devices = 1 + 2 * (name in ("alie", "min_max(std)", "min_sum(unit, min)"))
    for valid in (np.ones(P, bool), VALID):
        check(name, STACK, valid, HOSTILE, devices)
    order = np.random.default_rng(1).permutation(P)
    check(name, STACK[order], VALID[order], HOSTILE[order], devices)


@pytest.mark.parametrize("name", ATTACKS)
def test_few_many_and_equal_updates(name):
    there = np.arange(P)
    everybody = np.ones(P, bool)
    cases = [
        (STACK, everybody, there < 0),  # nobody attacks
        (STACK, everybody, there >= 0),  # nobody is honest
        (STACK, there == 2, there == 2),
        (STACK, there < 2, there == 0),  # one beside one
        (STACK, there < 3, there == 0),
        (STACK, everybody, there < 8),  # one honest
        (STACK, there < 8, HOSTILE),  # an even number
        (STACK, everybody, there < 6),  # attackers in the majority
        (np.tile(STACK[:1], (P, 1)), everybody, HOSTILE),
        (np.zeros((P, D)), everybody, HOSTILE),
        (STACK * 1e30, everybody, HOSTILE),
        (STACK * 1e-30, everybody, HOSTILE),
    ]
    for case in cases:
        check(name, *case)


def test_min_max_and_min_sum_end_where_the_search_of_their_authors_does():
    honest = list(STACK[~HOSTILE])
    for name, accepts in (
        ("min_max(sign)", oracle.within_max),
        ("min_sum(std)", oracle.within_sum),
    ):
        direction = name.partition("(")[2].rstrip(")")
        searched = oracle.by_halved_steps(honest, direction, accepts)
        away = np.abs(oracle.direction_of(honest, direction)).max()
        sent = attacked(LINKS[name], STACK, HOSTILE).stack[1]
        np.testing.assert_allclose(sent, searched, atol=2e-5 * away)
        assert np.abs(sent - searched).max() > 0


def test_clients_that_step_along_gradients_are_attacked_in_those():
    rate, gradients = 0.1, STACK
    sent = attacked(alie(of="gradients").cohort[0], -rate * gradients, HOSTILE).stack[1]
    wanted = oracle.alie(list(gradients[~HOSTILE]), list(gradients[HOSTILE]))
    np.testing.assert_allclose(sent, -rate * wanted, rtol=1e-12)


def test_the_mean_minus_a_deviation_of_gradients_is_the_mean_plus_one_of_updates():
    below, above, of_gradients = (
        attacked(attack.cohort[0], STACK, HOSTILE).stack[1]
        for attack in (alie(0.5), alie(-0.5), alie(0.5, of="gradients"))
    )
    np.testing.assert_array_equal(of_gradients, above)
    assert (above > below).all()
    for make in (min_max, min_sum):
        for direction in ("unit", "sign"):
            same = (
                attacked(make(direction, of=of).cohort[0], STACK, HOSTILE).stack
                for of in ("updates", "gradients")
            )
            np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("name", ["alie", "ipm", "min_max(std)", "min_sum(unit, min)"])
def test_float32(name):
    with jax.enable_x64(False):
        check(name, STACK.astype(np.float32), VALID, HOSTILE, rtol=1e-5)
        # what they would send overflows: they send their own
        huge = np.float32(1e38) * np.sign(STACK).astype(np.float32)
        sent = attacked(LINKS[name], huge, HOSTILE).stack
        assert np.isfinite(sent).all()


@pytest.mark.parametrize(
    ("make", "numbers"), [(alie, {"z": 1.5}), (ipm, {"epsilon": 0.3})], ids=["alie", "ipm"]
)
def test_traced_numbers_are_pythons(make, numbers):
    plain = attacked(make(**numbers).cohort[0], STACK, HOSTILE, VALID).stack
    traced = attacked(lambda **n: make(**n).cohort[0], STACK, HOSTILE, VALID, traced=numbers).stack
    np.testing.assert_allclose(traced, plain, rtol=1e-12)


@pytest.mark.parametrize("valid", [np.ones(P, bool), VALID])
def test_scaled_updates_replace_the_weighted_mean(valid):
    link = scaling().cohort[0]
    sent = attacked(link, STACK, HOSTILE, valid, weights=WEIGHTS).stack
    bad, honest = valid & HOSTILE, valid & ~HOSTILE
    own = np.average(STACK[bad], axis=0, weights=WEIGHTS[bad])
    rest = (WEIGHTS[honest, None] * STACK[honest]).sum(0) / WEIGHTS[valid].sum()
    mean = np.average(sent[valid], axis=0, weights=WEIGHTS[valid])
    np.testing.assert_allclose(mean, own + rest, rtol=1e-9)
    np.testing.assert_array_equal(sent[honest], STACK[honest])
    nobody = attacked(link, STACK, np.zeros(P, bool), valid, weights=WEIGHTS).stack
    np.testing.assert_array_equal(nobody[valid], STACK[valid])


def test_a_pipeline_in_which_nobody_is_hostile_is_refused():
    with pytest.raises(ValueError, match="nobody is hostile: give it attackers"):
        attacked(LINKS["ipm"], STACK, None)


@pytest.mark.parametrize(
    ("make", "arguments", "text"),
    [
        (alie, {"z": "large"}, "z = 'large'"),
        (alie, {"ddof": 2}, "ddof = 2 must be at least 0 and at most 1"),
        (alie, {"sees": "all"}, "sees = 'all' is not one of 'honest', 'attackers'"),
        (alie, {"of": "gradient"}, "of = 'gradient' is not one of 'updates', 'gradients'"),
        (ipm, {"epsilon": -0.1}, "epsilon = -0.1 must be at least 0"),
        (min_max, {"direction": "mean"}, "direction = 'mean' is not one of 'unit', 'sign', 'std'"),
        (min_sum, {"bound": "mean"}, "bound = 'mean' is not one of 'max', 'min'"),
        (scaling, {"factor": "n"}, "factor = 'n'"),
    ],
)
def test_wrong_arguments_are_refused(make, arguments, text):
    with pytest.raises(ValueError, match=text):
        make(**arguments)

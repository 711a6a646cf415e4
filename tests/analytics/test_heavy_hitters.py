"""TrieHH against its definition: who is found, how often, and what it promises."""

import math

import numpy as np
import populations
import pytest
from scipy.stats import hypergeom

import fljax
from fljax.analytics import tries

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

# (word, clients that have it)
WORDS = {"sun": 130, "sue": 70, "sea": 60, "a": 45, "is": 40, "it": 30, "zoo": 4, "tee": 21}
CLIENTS = sum(WORDS.values())
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST, VOTES, COHORT, SEEDS = 3, 4, 60, 40


def rows_of(words):
    return np.array(words, f"S{LONGEST}").view(np.uint8).reshape(-1, LONGEST)


@pytest.fixture(scope="module")
def reply():
    words = [word for word, count in WORDS.items() for _ in range(count)]
    clients = populations.singles(rows_of(words), np.zeros(CLIENTS, np.int32))
    query = f"heavy_hitters({LETTERS!r}, votes={VOTES}, cohort={COHORT})"
    return fljax.ask(clients, query, column="x", seeds=range(SEEDS), devices=1)


def chance(word):
    """The product over prefixes, the whole word with its end among them."""
    found = 1.0
    for level in range(1, len(word) + 2):
        ended = (word + "$")[:level]
        holders = sum(n for other, n in WORDS.items() if (other + "$").startswith(ended))
        found *= hypergeom.sf(VOTES - 1, CLIENTS, holders, COHORT)
    return found


def test_words_are_found_as_often_as_voters_have_them(reply):
    found = {word: np.mean([word in answer.value for answer in reply.answers]) for word in WORDS}
    for word in WORDS:
        spread = math.sqrt(chance(word) * (1 - chance(word)) / SEEDS)
        assert abs(found[word] - chance(word)) < 3.5 * spread + 1e-3, word
    missed = sum(1 - found[word] for word in WORDS)
    theory = sum(1 - chance(word) for word in WORDS)
    assert theory / 1.3 < missed < 1.3 * theory
    assert found["zoo"] <= 0.05 and 0.3 < theory / len(WORDS) < 0.9


def test_only_words_that_somebody_has_are_found(reply):
    for answer in reply.answers:
        assert set(answer.value) <= WORDS.keys() and len(set(answer.value)) == len(answer.value)
        assert answer.details["prefixes"] == []


def test_the_chance_of_a_word_is_told(reply):
    holders = [CLIENTS - 45 - 70 - 4 - 21, 200, 130, 130]
    told = tries.chance_of(np.array(holders), CLIENTS, COHORT, VOTES)
    assert told == pytest.approx(chance("sun"))
    assert reply.facts["questions"] == 4 and reply.facts["messages"] == 4 * COHORT * SEEDS


def test_the_promise_is_that_of_the_paper(reply):
    share = COHORT * VOTES / CLIENTS
    epsilon = 4 * math.log(1 + 1 / (1 / share - 1))
    assert reply.privacy["epsilon"]["published"] == pytest.approx(epsilon)
    assert reply.privacy["delta"] == pytest.approx((4 - 2) / ((4 - 3) * math.factorial(4)))


def test_thresholds_and_cohorts_are_those_of_the_official_code():
    """(theta - 3) / (theta - 2) theta! >= 1 / delta, and m = n (e^(eps / L) - 1) / (theta ...)."""
    for delta in (1e-3, 2.3e-12, 1e-9):
        theta = tries.votes_for(delta)
        holds = [(t - 3) / (t - 2) * math.factorial(t) >= 1 / delta for t in (theta - 1, theta)]
        assert holds == [False, True]
    grown = math.exp(4.0 / 10)
    assert tries.cohort_for(10**6, 15, 10, 4.0) == int(10**6 * (grown - 1) / (15 * grown))


def test_words_longer_than_asked_leave_their_prefix():
    clients = populations.singles(rows_of(["sun"] * 30), np.zeros(30, np.int32))
    query = "heavy_hitters('snu', votes=4, cohort=30, length=2)"
    reply = fljax.ask(clients, query, column="x", devices=1)
    assert reply.answer.value == [] and reply.answer.details["prefixes"] == ["su"]


def test_a_client_votes_with_one_of_its_words_drawn_anew():
    """With 3 words of 1 letter in 10 clients each, about a third of 30 votes goes to each."""
    words = ["a", "b", "c", "b", "c", "a"] * 5
    clients = populations.population(np.full(10, 3), rows_of(words))
    query = "heavy_hitters('abc', votes=5, cohort=10, length=2)"
    reply = fljax.ask(clients, query, column="x", seeds=range(40), batch_size=2, devices=1)
    found = np.array([[word in answer.value for word in "abc"] for answer in reply.answers])
    # a letter needs 5 of 10 votes twice, each for it with probability 1/3
    once = sum(math.comb(10, k) / 3**k * (2 / 3) ** (10 - k) for k in range(5, 11))
    theory = once**2
    assert abs(found.mean() - theory) < 4 * math.sqrt(theory / found.size)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("heavy_hitters('')", "different letters"),
        ("heavy_hitters('aa')", "different letters"),
        ("heavy_hitters('abc', epsilon=1e-3)", "Raise epsilon"),
        ("heavy_hitters('abc', votes=9, cohort=4)", "9 votes make"),
    ],
)
def test_wrong_arguments_are_refused(query, message):
    clients = populations.singles(rows_of(["sun"] * 30), np.zeros(30, np.int32))
    with pytest.raises(ValueError, match=message):
        fljax.ask(clients, query, column="x", devices=1)
    with pytest.raises(ValueError, match="Leave out privacy"):
        private = {"privacy": "gaussian", "noise_multiplier": 1.0}
        fljax.ask(clients, "heavy_hitters('abc', votes=4, cohort=9)", column="x", **private)

"""Heavy hitters by TrieHH: frequent words, letter by letter, private by sampling and a threshold.

Zhu, Kairouz, McMahan, Sun and Li 2020 ("Federated heavy hitters discovery with differential
privacy", arXiv:1902.08534), Algorithms 1 and 2. Of n clients m are drawn for each of L questions.
Each votes for the prefix of its word that is one letter longer than a node of the trie so far, if
the word has one; prefixes with theta votes or more join the trie. Words end with a letter of their
own, so that those in the trie are whole. No noise is added, and the trie alone is released:

    epsilon = L ln(1 + 1 / (n / (m theta) - 1)),    delta = (theta - 2) / ((theta - 3) theta!)

(Corollary 1, where m is written gamma sqrt(n)). The smallest theta of at least 4 that keeps to
delta, and the largest m that keeps to epsilon with it, are chosen, as the official code does. A
client with several words draws one at random for each question.

A vote is one 1 in a table of (nodes, letters), so that it goes through secure sums. Since m votes
give theta to no more than m / theta prefixes, the table has room for all of them.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.analytics.query import Answer, Asked, Promise, Query
from fljax.core.algorithm import step_key
from fljax.core.values import COUNT, POSITIVE, Field, Interval, checked

PyTree = Any
_EPSILON = Field(4.0, float, POSITIVE)
_DELTA = Field(None, float, Interval(0, 1, low_open=True, high_open=True), optional=True)
_COUNT = Field(None, int, COUNT, optional=True)
# Theorem 1 asks for at least 4.
_LEAST_VOTES = 4
_COVERS = (
    "the words of one client, in the words that are found (TrieHH, arXiv:1902.08534, Corollary 1); "
    "not the numbers of votes"
)


def heavy_hitters(
    letters: str,
    epsilon: float = 4.0,
    delta: float | None = None,
    *,
    length: int | None = None,
    votes: int | None = None,
    cohort: int | None = None,
    like: jax.ShapeDtypeStruct,
    num_clients: int,
) -> Query:
    """Returns the query of frequent words, TrieHH.

    Args:
      letters: What words are made of; a word with anything else in it is not counted from there on.
      epsilon: Of all questions together; ignored where `votes` and `cohort` are given.
      delta: Likewise; None for n^-1.1.
      length: L, letters of the longest words that are looked for, their end included; None for all
        of a row, and the end.
      votes: theta; None for the smallest that keeps to delta.
      cohort: m; None for the largest that keeps to epsilon.
      like: Shape and type of a row: whole numbers [W], the bytes of a word, filled up with zeros.
      num_clients: n, how many clients have rows.

    Raises:
      ValueError: If an argument is out of range, rows are no words, or clients are too few.

    Example:
      >>> like = jax.ShapeDtypeStruct((10,), jnp.uint8)
      >>> query = heavy_hitters("abc", epsilon=4.0, delta=1e-8, like=like, num_clients=10_000)
      >>> query.questions, query.cohort, round(query.promise.epsilon, 2)
      (11, 254, 4.0)
    """
    table, width = _table(letters), _width(like)
    length = checked("length", width + 1 if length is None else length, _COUNT)
    delta = checked("delta", delta, _DELTA)
    theta = checked("votes", votes, _COUNT)
    theta = votes_for(num_clients**-1.1 if delta is None else delta) if theta is None else theta
    epsilon = checked("epsilon", epsilon, _EPSILON)
    drawn = checked("cohort", cohort, _COUNT)
    drawn = cohort_for(num_clients, theta, length, epsilon) if drawn is None else drawn
    if not theta <= drawn <= num_clients:
        raise ValueError(
            f"heavy_hitters: {theta} votes make a prefix frequent, and epsilon = {epsilon:g} lets "
            f"{drawn} of {num_clients:,} clients vote for each of {length} letters. Raise epsilon "
            "or delta, look for shorter words with length, or ask more clients."
        )
    promise = promised(num_clients, drawn, theta, length)
    return _trie_query(letters, table, length, theta, drawn, promise)


def _width(like: jax.ShapeDtypeStruct) -> int:
    if len(like.shape) != 1 or not jnp.issubdtype(like.dtype, jnp.integer):
        raise ValueError(
            f"heavy_hitters asks for words, rows of bytes (whole numbers, filled up with zeros), "
            f"and these are {like.dtype}{list(like.shape)}. Of whole numbers, such as labels, ask "
            "count_sketch or histogram."
        )
    return like.shape[0]


def votes_for(delta: float) -> int:
    """Returns the smallest threshold theta that keeps to delta.

    Example:
      >>> votes_for(2.3e-12)
      15
    """
    theta = _LEAST_VOTES
    while _delta(theta) > delta:
        theta += 1
    return theta


def _delta(theta: int) -> float:
    """Returns (theta - 2) / ((theta - 3) theta!), which says nothing below 4."""
    if theta < _LEAST_VOTES:
        return 1.0
    return math.exp(math.log((theta - 2) / (theta - 3)) - math.lgamma(theta + 1))


def cohort_for(num_clients: int, votes: int, length: int, epsilon: float) -> int:
    """Returns the largest number of voters of a question that keeps to epsilon.

    Example:
      >>> cohort_for(10_000, votes=13, length=11, epsilon=4.0)
      234
    """
    return min(num_clients, math.floor(num_clients * -math.expm1(-epsilon / length) / votes))


def promised(num_clients: int, cohort: int, votes: int, length: int) -> Promise:
    """Returns epsilon and delta of a trie.

    Example:
      >>> found = promised(10_000, 234, votes=13, length=11)
      >>> round(found.epsilon, 2), found.delta < 1e-9
      (3.99, True)
    """
    share = cohort * votes / num_clients
    epsilon = -length * math.log1p(-share) if share < 1 else math.inf
    return Promise(epsilon, _delta(votes), _COVERS)


def _trie_query(
    letters: str, table: np.ndarray, length: int, theta: int, drawn: int, promise: Promise
) -> Query:
    """Returns the query of tries of words whose letters have the numbers of a table."""
    symbols, nodes = len(letters) + 1, drawn // theta
    first = {
        "level": jnp.zeros((), jnp.int32),
        # the letters of each node of a level; the root alone at first
        "nodes": jnp.full((length + 1, nodes, length), -1, jnp.int16),
        "there": jnp.zeros((length + 1, nodes), bool).at[0, 0].set(True),
    }

    def tell(question):
        level = question["level"]
        nodes = question["nodes"][level]
        # words that have ended grow no further
        goes_on = (level == 0) | (nodes[:, jnp.maximum(level - 1, 0)] != 0)
        return {"level": level, "nodes": nodes, "there": question["there"][level] & goes_on}

    def start(question, job):
        del question, job
        return {"word": jnp.full(length, -1, jnp.int16), "rows": jnp.zeros((), jnp.int32)}

    def fold(question, carry, values, mask, job):
        """Keeps one row of those so far, each with the same probability."""
        del question
        order = jax.random.uniform(step_key(job), mask.shape)
        best = jnp.where(mask, order, -1).argmax()
        count = mask.sum(dtype=jnp.int32)
        rows = carry["rows"] + count
        lot = jax.random.uniform(jax.random.fold_in(step_key(job), 1))
        taken = lot * rows < count
        word = _spelled(values[best], table, length)
        return {"word": jnp.where(taken, word, carry["word"]), "rows": rows}

    def send(question, carry, job):
        del job
        level, word = question["level"], carry["word"]
        known = jnp.arange(length) < level
        fits = (~known | (question["nodes"] == word)).all(1) & question["there"]
        letter = word[jnp.minimum(level, length - 1)]
        vote = fits[:, None] & (jnp.arange(symbols) == letter) & (carry["rows"] > 0)
        return {"votes": vote.astype(jnp.int32)}

    def follow(question, total):
        level, votes = question["level"], total["votes"]
        frequent = votes >= theta - 0.5
        (place,) = jnp.nonzero(frequent.reshape(-1), size=nodes, fill_value=votes.size)
        there = place < votes.size
        node, letter = jnp.divmod(jnp.minimum(place, votes.size - 1), symbols)
        grown = question["nodes"][level][node].at[:, level].set(letter.astype(jnp.int16))
        return {
            "level": level + 1,
            "nodes": question["nodes"].at[level + 1].set(grown),
            "there": question["there"].at[level + 1].set(there),
        }

    def answer(question, total, asked: Asked) -> Answer:
        del asked
        told = jax.device_get(follow(*jax.tree.map(jnp.asarray, (question, total))))
        theory = (
            f"no noise: a word is found if {theta} of {drawn} voters have it, at each of its "
            "letters anew; see chance_of"
        )
        words, prefixes = _words(told, letters, length)
        details = {"votes": theta, "cohort": drawn, "length": length, "prefixes": prefixes}
        return Answer(words, None, "words", theory, details)

    return Query(
        "heavy_hitters",
        {"votes": jax.ShapeDtypeStruct((nodes, symbols), jnp.int32)},
        first,
        start,
        fold,
        send,
        follow,
        answer,
        questions=length,
        sensitivity=1.0,
        largest=1.0,
        whole=True,
        cohort=drawn,
        promise=promise,
        tell=tell,
    )


def _table(letters: str) -> np.ndarray:
    """Returns int16[256], the number of each byte: 0 ends a word, -1 is no letter."""
    try:
        codes = np.frombuffer(letters.encode("latin-1"), np.uint8)
    except (AttributeError, UnicodeEncodeError):
        codes = np.zeros(0, np.uint8)
    if not codes.size or len(set(codes.tolist())) < codes.size or not codes.all():
        raise ValueError(
            f"letters = {letters!r} must be a text of different letters of one byte each, such as "
            "'abcdefghijklmnopqrstuvwxyz'."
        )
    table = np.full(256, -1, np.int16)
    table[codes] = np.arange(1, codes.size + 1)
    table[0] = 0
    return table


def _spelled(row: jax.Array, table: np.ndarray, length: int) -> jax.Array:
    """Returns int16[length], the numbers of a word's letters and of its end."""
    row = row.astype(jnp.int32)  # a uint8 cannot be compared with 256
    found = jnp.where((row >= 0) & (row < table.size), jnp.asarray(table)[row], -1)
    return jnp.pad(found, (0, max(0, length - found.size)))[:length]


def _words(told: dict, letters: str, length: int) -> tuple[list[str], list[str]]:
    """Returns (words of the trie, its longest prefixes, which have no end)."""
    words, prefixes = [], []
    for level in range(1, length + 1):
        for node in told["nodes"][level][told["there"][level]]:
            spelled = "".join(letters[number - 1] for number in node[:level] if number > 0)
            if node[level - 1] == 0:
                words.append(spelled)
            elif level == length:
                prefixes.append(spelled)
    return sorted(words), sorted(prefixes)


def chance_of(holders: np.ndarray, num_clients: int, cohort: int, votes: int) -> float:
    """Returns the probability that TrieHH finds a word.

    Args:
      holders: int[L], how many clients have a word with each of its prefixes, the end included.
      num_clients, cohort, votes: n, m and theta.

    Returns:
      The product, over prefixes, of the probability that `votes` of them are among those drawn.

    Example:
      >>> round(chance_of(np.array([500, 400]), num_clients=1000, cohort=20, votes=10), 3)
      0.143
    """
    from scipy.stats import hypergeom  # what is slow to import is imported where it is needed

    return float(np.prod(hypergeom.sf(votes - 1, num_clients, np.asarray(holders), cohort)))

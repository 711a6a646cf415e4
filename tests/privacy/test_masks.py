"""Masks vanish from sums, whoever is lost, and hide single messages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fljax import privacy
from fljax.core.transforms import Participants
from fljax.privacy.secagg import masks

HALF = 3
pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


@functools.partial(jax.jit, static_argnums=0)
def masked_sum(degree, key, present, arrived, words):
    """Returns (what the server opens, every message, whether enough arrived)."""
    graph = masks.make_graph(Participants(present, jnp.int32(0), key), degree)
    sent = jax.vmap(functools.partial(masks.masked, graph))(jnp.arange(len(present)), words)
    total = jax.tree.map(
        lambda leaf: jnp.where(arrived[:, None], leaf, 0).sum(0, dtype=jnp.uint32), sent
    )
    return masks.unmasked(graph, total, arrived), sent, masks.enough(graph, arrived, 2 / 3)


@pytest.mark.parametrize("degree", [None, 26])
@pytest.mark.parametrize("cohort", [2, 10, 27, 1000])
def test_sums_are_those_of_the_words_whoever_is_lost(cohort, degree):
    generator = np.random.default_rng(cohort)
    fates = [(0, 0), (0.2, 0.1), (0.5, 0.6), (0.97, 0)]
    for attempt, (absent, lost) in enumerate(fates[: 4 if cohort < 1000 else 2]):
        present = generator.random(cohort) >= absent
        arrived = present & (generator.random(cohort) >= lost)
        words = tuple(generator.integers(0, 2**32, (2, cohort, HALF), dtype=np.uint32))
        opened, sent, enough = masked_sum(degree, jax.random.key(attempt), present, arrived, words)
        for got, plain in zip(opened, words, strict=True):
            np.testing.assert_array_equal(got, plain[arrived].sum(0, dtype=np.uint32))
        if present.sum() >= 2:  # nobody sends what can be read
            assert not np.any(np.asarray(sent[0])[present] == words[0][present])
        if lost == 0:
            assert enough == (present.sum() >= 2)
        if degree is None:
            others = present.sum() - 1
            needed = np.ceil(2 / 3 * others - 1e-4)
            counts = arrived.sum() - arrived[present]
            assert enough == (arrived.sum() >= 2 and (counts >= needed).all())


def test_who_vanishes_after_the_upload_answers_for_nobody():
    """Each round draws anew who stays; the sum is opened where two thirds of neighbours do."""
    everybody = jnp.ones(60, bool)
    shares = []

    @jax.jit
    def drawn(key):
        graph = masks.make_graph(Participants(everybody, jnp.int32(0), key), 8, 0.2)
        return graph.order, graph.stays, [masks.enough(graph, everybody, t) for t in (2 / 3, 0.1)]

    for seed in range(20):
        order, stays, (verdict, of_few) = jax.device_get(drawn(jax.random.key(seed)))
        around = [np.roll(stays[order], shift) for shift in (*range(-4, 0), *range(1, 5))]
        assert verdict == (np.sum(around, 0) >= 6).all()
        assert of_few
        shares.append(stays.mean())
    assert abs(np.mean(shares) - 0.8) < 0.05
    people = Participants(everybody, jnp.int32(0), jax.random.key(0))
    assert masks.make_graph(people, 8).stays.all()


@pytest.mark.parametrize(("size", "degree"), [(9, 4), (12, 6), (5, 8), (6, 8)])
def test_neighbours_form_a_regular_graph(size, degree):
    """Whose masks a client's message has in it, found from the masks of everybody's own."""
    present = np.arange(14) < size
    graph = masks.make_graph(Participants(present, jnp.int32(0), jax.random.key(size)), degree)
    nothing = (jnp.zeros(1, jnp.uint32), jnp.zeros(1, jnp.uint32))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def words_between(first, second):
        wanted = jnp.arange(14) == second
        return masks.with_masks(graph, first, nothing, wanted, (1, graph.reach + 1))[0]

    edges = np.asarray(words_between(jnp.arange(14), jnp.arange(14)))[..., 0] != 0
    edges[size:] = False
    assert (edges == edges.T).all() and not edges.diagonal().any()
    assert (edges.sum(1)[:size] == min(degree, size - 1)).all()
    near = np.asarray(graph.place)[:size]
    gap = np.abs(near[:, None] - near) % size
    assert (edges[:size, :size] == ((np.minimum(gap, size - gap) <= degree // 2) & (gap > 0))).all()


@pytest.mark.parametrize("degree", [None, 4])
def test_a_message_is_uniform_over_the_ring(degree):
    """Of 100,000 equal words, bytes and halves of words fit the uniform distribution."""
    half = 50_000
    for seed in range(3):
        people = Participants(jnp.ones(6, bool), jnp.int32(0), jax.random.key(seed))
        graph = masks.make_graph(people, degree)
        words = (jnp.full(half, 7, jnp.uint32),) * 2
        message = np.concatenate(jax.jit(masks.masked)(graph, jnp.int32(2), words))
        for shift, bins in ((0, 256), (8, 256), (16, 256), (24, 256), (22, 1024), (0, 1024)):
            counts = np.bincount((message >> shift) % bins, minlength=bins)
            assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


def test_masks_of_the_host_are_those_of_the_program():
    people = Participants(jnp.ones(2, bool), jnp.int32(0), jax.random.key(3))
    graph = masks.make_graph(people, None)
    nothing = (jnp.zeros(4, jnp.uint32),) * 2
    words = masks.with_masks(graph, jnp.int32(0), nothing, people.present, (1, 2))
    numbers = [np.array([number], np.uint32) for number in (0, 1)]
    key = masks.pair_key(np.asarray(graph.secret)[:, None], *numbers)
    host = masks.mask_words(key, 7)
    np.testing.assert_array_equal(np.concatenate(words)[:7], host)


@pytest.mark.parametrize(
    ("clients", "corrupted", "dropped", "degree", "needed"),
    [  # expected values of graph_parameter_finder_test.cc in google-parfait/federated-compute
        (100, 0.33, 0.05, 34, 29),
        (100, 0.05, 0.33, 28, 6),
        (100, 0.45, 0.45, 92, 46),
        (1000, 0.33, 0.33, 286, 150),
        (1000, 0.33, 0.05, 78, 60),
        (1000, 0.05, 0.33, 72, 24),
        (100_000, 0.33, 0.05, 102, 77),
        (1_000_000, 0.05, 0.33, 102, 34),
    ],
)
def test_degrees_are_those_of_google(clients, corrupted, dropped, degree, needed):
    assert privacy.masking_graph(clients, corrupted, dropped) == (degree, needed)


def test_degrees_that_cannot_be_are_refused():
    assert privacy.masking_graph(3) == (2, 2)
    with pytest.raises(ValueError, match="hardly anybody to hide among"):
        privacy.masking_graph(100, 0.5, 0.45)
    for graph in (7, "ring", True, 1):
        with pytest.raises(ValueError, match="graph .*(an even number|at least 2)"):
            privacy.masks(graph)

"""Per-client state: a row from the first participation on, whatever the store does to hold it."""

import contextlib
import tracemalloc
from unittest import mock

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.engine.devices.execution import make_mesh
from fljax.engine.store import row_routing
from fljax.engine.store.client_store import ClientStore, most_bytes

pytestmark = pytest.mark.usefixtures("quick_compilation")

DEVICES, JOBS, CLIENTS = 2, 3, 40


def default(trials=1):
    """A state of two leaves that differs between trials."""
    own = np.arange(trials, dtype=np.float32)
    return {"v": own[:, None] + np.float32([0.25, 0.5]), "n": (own + 7).astype(np.int32)}


def make_store(trials=1, num_clients=CLIENTS, **options):
    return ClientStore(default(trials), num_clients, make_mesh(DEVICES), **options)


def jobs(*clients):
    """Returns client numbers as a plan lays them out, [D, J], padding -1."""
    out = np.full((DEVICES, JOBS), -1, np.int32)
    out.reshape(-1)[: len(clients)] = clients
    return out


def rows_with(value):
    """Returns rows [D, J, ...] that hold value[D, J]."""
    value = np.asarray(value)
    return jax.device_put(
        {
            "v": np.stack([value, -value], -1).astype(np.float32),
            "n": value.astype(np.int32),
        }
    )


def values(rows):
    """Returns the numbers that `rows_with` wrote; NaN where the default was read."""
    v, n = np.asarray(rows["v"]), np.asarray(rows["n"])
    written = v[..., 1] == -v[..., 0]
    np.testing.assert_array_equal(v[..., 0][written], n[written])
    return np.where(written, v[..., 0], np.nan)


def zeros(clients):
    return np.zeros_like(clients)


@contextlib.contextmanager
def accelerators():
    """Lets rows travel as between accelerators, some at a time."""
    with mock.patch.multiple(row_routing, _on_cpu=lambda mesh: False, _BLOCK=2):
        yield


PLACES = {"device": contextlib.nullcontext, "blocks": accelerators, "host": contextlib.nullcontext}


@pytest.fixture(params=PLACES)
def on_host(request):
    with PLACES[request.param]():
        yield request.param == "host"


def test_a_client_reads_the_default_until_it_took_part(on_host):
    store = make_store(on_host=on_host)
    cohort = jobs(3, 0, 5)
    before = jax.device_get(store.gather(zeros(cohort), cohort))
    np.testing.assert_array_equal(before["v"][0], np.broadcast_to([0.25, 0.5], (JOBS, 2)))
    np.testing.assert_array_equal(before["n"][0], np.full(JOBS, 7))
    assert store.num_rows == 0
    store.scatter(zeros(cohort), cohort, rows_with(100 + cohort))
    assert store.num_rows == 3
    # consecutive rounds: 5 reads what it wrote, 4 still reads the default
    found = values(store.gather(zeros(cohort), jobs(5, 4, 0)))
    np.testing.assert_array_equal(found[0], [105, np.nan, 100])


def test_padding_writes_nothing(on_host):
    store = make_store(on_host=on_host)
    store.scatter(zeros(jobs()), jobs(), rows_with(jobs()))
    assert store.num_rows == 0
    assert np.isnan(values(store.gather(zeros(jobs()), jobs(*range(6))))).all()


def test_of_repeated_clients_the_last_job_wins(on_host):
    store = make_store(on_host=on_host)
    cohort = jobs(4, 9, 4, 4, 9, 2)
    store.scatter(zeros(cohort), cohort, rows_with([[1, 2, 3], [4, 5, 6]]))
    assert store.num_rows == 3
    np.testing.assert_array_equal(values(store.rows_of(np.array([4, 9, 2]))), [4, 5, 6])


def test_each_trial_has_rows_of_its_own(on_host):
    store = make_store(trials=3, on_host=on_host)
    cohort = jobs(8, 8, 1)
    trials = np.array([[0, 2, 2], [0, 0, 0]], np.int32)
    store.scatter(trials, cohort, rows_with([[10, 12, 22], [0, 0, 0]]))
    assert store.num_rows == 3
    assert values(store.rows_of(np.array([8]), trial=0)) == [10]
    assert values(store.rows_of(np.array([8]), trial=2)) == [12]
    assert values(store.rows_of(np.array([1]), trial=2)) == [22]
    # trial 1 saw neither client, and its default is its own
    untouched = jax.device_get(store.rows_of(np.array([8, 1]), trial=1))
    np.testing.assert_array_equal(untouched["v"], [[1.25, 1.5]] * 2)
    np.testing.assert_array_equal(untouched["n"], [8, 8])


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=15)
@given(
    rounds=st.lists(
        st.lists(st.tuples(st.integers(0, 1), st.integers(0, CLIENTS - 1)), max_size=6),
        max_size=12,
    ),
)
def test_the_store_is_a_dictionary_that_grows(place, rounds):
    with PLACES[place]():
        check_dictionary(rounds, on_host=place == "host")


def check_dictionary(rounds, on_host):
    store, expected = make_store(trials=2, on_host=on_host), {}
    for number, pairs in enumerate(rounds):
        cohort = jobs(*(client for _, client in pairs))
        trials = zeros(cohort)
        trials.reshape(-1)[: len(pairs)] = [trial for trial, _ in pairs]
        found = values(store.gather(trials, cohort)).reshape(-1)
        want = [expected.get(pair, np.nan) for pair in pairs]
        np.testing.assert_array_equal(found[: len(pairs)], want)
        new = 1 + 10 * number + np.arange(DEVICES * JOBS)
        store.scatter(trials, cohort, rows_with(new.reshape(DEVICES, JOBS)))
        expected |= {pair: value for pair, value in zip(pairs, new.tolist(), strict=False)}
        assert store.num_rows == len(expected)


@pytest.mark.parametrize("to_host", [False, True])
def test_a_saved_store_goes_on(on_host, to_host):
    """State moves between placements and into a store that had rows of other clients."""
    first = make_store(trials=2, on_host=on_host)
    cohort = jobs(3, 30, 17, 5, 6)
    trials = np.array([[0, 1, 0], [1, 1, 0]], np.int32)
    first.scatter(trials, cohort, rows_with(100 + cohort))
    state = first.state()
    template = first.template(first.num_rows)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), template
    )
    second = make_store(trials=2, on_host=to_host)
    second.scatter(zeros(cohort), jobs(1, 2, 3, 4, 7, 8), rows_with(cohort))
    second.load(state)
    assert second.num_rows == 5
    everyone = np.arange(CLIENTS)
    for trial in (0, 1):
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.device_get(second.rows_of(everyone, trial)),
            jax.device_get(first.rows_of(everyone, trial)),
        )
    for store in (first, second):
        store.scatter(zeros(cohort), jobs(3, 11), rows_with([[1, 2, 0], [0, 0, 0]]))
        np.testing.assert_array_equal(values(store.rows_of(np.array([3, 11]))), [1, 2])


def test_a_saved_state_does_not_change_with_the_store(on_host):
    """A checkpoint may be written while the next round runs."""
    store = make_store(on_host=on_host)
    cohort = jobs(3, 4)
    store.scatter(zeros(cohort), cohort, rows_with(cohort))
    saved = store.state()
    before = jax.tree.map(np.array, saved)
    store.scatter(zeros(cohort), cohort, rows_with(cohort + 100))
    jax.tree.map(np.testing.assert_array_equal, saved, before)


def test_forgotten_rows_leave_their_places_to_others(on_host):
    store = make_store(trials=3, on_host=on_host)
    cohort = jobs(8, 9, 1, 8, 9, 1)
    for trial in range(3):
        trials = np.full_like(cohort, trial)
        store.scatter(trials, cohort, rows_with(100 * trial + cohort))
    held = jax.tree.map(lambda leaf: leaf.shape, store._rows)
    fresh = default(3) | {"n": np.int32([90, 91, 92])}
    for _ in range(4):
        store.forget(np.array([0, 2]), fresh)
        assert store.num_rows == 3
        everyone = np.arange(CLIENTS)
        for trial in (0, 2):
            rows = jax.device_get(store.rows_of(everyone, trial))
            np.testing.assert_array_equal(rows["n"], np.full(CLIENTS, 90 + trial))
        np.testing.assert_array_equal(values(store.rows_of(np.array([1, 8]), 1)), [101, 108])
        cohort = jobs(5, 7, 8, 5, 7, 8)
        for trial in (2, 0):
            store.scatter(np.full_like(cohort, trial), cohort, rows_with(100 * trial + cohort))
        np.testing.assert_array_equal(values(store.rows_of(np.array([5, 8]), 2)), [205, 208])
        assert np.isnan(values(store.rows_of(np.array([1, 9]), 2))).all()
    assert store.num_rows == len(store.state()["owners"]) == 9
    assert jax.tree.map(lambda leaf: leaf.shape, store._rows) == held


def test_the_most_bytes_are_never_exceeded():
    """Rows come, are saved and forgotten again; arrays grow and are gathered beside them."""
    trials, each = 3, 20
    row = {"w": np.zeros((trials, 1000), np.float32)}
    store = ClientStore(row, CLIENTS, make_mesh(DEVICES), most_rows=trials * each)
    grow, peaks = store._moves.grow, []

    def size(*trees):
        return sum(leaf.nbytes for leaf in jax.tree.leaves(trees))

    def growing(rows, *arguments):
        larger = grow(rows, *arguments)
        peaks.append(size(rows, larger, store._room))
        return larger

    store._moves = store._moves._replace(grow=growing)
    generator = np.random.default_rng(0)
    for trial in range(5):
        order = generator.permuted(np.tile(np.arange(CLIENTS), (trials, 1)), axis=1)[:, :each]
        active = [trial % trials] if trial else range(trials)
        for two in np.split(order, each // 2, axis=1):
            # one of the two clients of a trial on each device
            cohort, of = jobs(), zeros(jobs())
            cohort[:, : len(active)], of[:, : len(active)] = two[active].T, active
            store.scatter(of, cohort, store.gather(of, cohort))
            peaks.append(size(store._rows, store._room))
        assert store.num_rows == trials * each
        held, saved = size(store._rows), size(store.state()["rows"])
        peaks.append(size(store._room) + held + saved)
        store.forget(np.array([(trial + 1) % trials]), row)
        assert size(store._rows) == held
        assert store.num_rows == (trials - 1) * each
    bound = most_bytes(store.row_bytes, trials * each, DEVICES * JOBS, DEVICES, copies=1)
    assert bound / 1.5 < max(peaks) <= bound


def test_an_empty_store_round_trips(on_host):
    store = make_store(on_host=on_host)
    other = make_store(on_host=on_host)
    other.load(store.state())
    assert other.num_rows == 0
    assert np.isnan(values(other.rows_of(np.arange(4)))).all()


def test_memory_follows_the_participants(on_host):
    """A million clients with rows of 4 kB would take 4 GB; a thousand that took part take 4 MB."""
    row = {"w": np.zeros((1, 1000), np.float32)}
    before = sum(array.nbytes for array in jax.live_arrays())
    tracemalloc.start()
    store = ClientStore(row, 1_000_000, make_mesh(DEVICES), on_host=on_host)
    assert store.row_bytes == 4000
    clients = np.random.default_rng(0).choice(1_000_000, 1000, replace=False)
    for part in np.split(clients.astype(np.int32), 10):
        cohort = part.reshape(DEVICES, -1)
        ones = np.ones((*cohort.shape, 1000), np.float32)
        store.scatter(zeros(cohort), cohort, {"w": jax.device_put(ones)})
    del ones
    held = sum(array.nbytes for array in jax.live_arrays()) - before
    held += tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert store.num_rows == 1000
    table = 4 * 1_000_000
    assert 1000 * store.row_bytes < held < table + 3 * 1000 * store.row_bytes
    assert store.state()["rows"]["w"].shape == (1000, 1000)
    assert np.asarray(store.rows_of(clients[:5])["w"]).all()


def test_nothing_is_kept_for_algorithms_without_client_state():
    store = ClientStore((), CLIENTS, make_mesh(DEVICES))
    cohort = jobs(1, 2)
    assert store.gather(zeros(cohort), cohort) == ()
    store.scatter(zeros(cohort), cohort, ())
    # of however many trials
    store.forget(np.array([0, 3]), ())
    assert store.num_rows == store.row_bytes == 0

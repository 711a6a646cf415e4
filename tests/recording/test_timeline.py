"""Records of who worked when are kept, go on after a resumption, and are drawn."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from fljax.core.schedule import FATES, Spans
from fljax.recording import timeline
from fljax.recording.npz import load_arrays, write_arrays
from fljax.recording.participation_plots import plot_participation
from fljax.recording.runs import load_run
from fljax.recording.timeline import Timeline, forget_after
from fljax.recording.timeline_plots import places, plot_timeline, window_of

CLIENTS = 9
COLUMNS = ("client", "begin", "end", "fate")


def jobs(round, count=None):
    """Returns made-up jobs of a round: up to 6 of them, or so many."""
    generator = np.random.default_rng(round)
    count = generator.integers(0, 7) if count is None else count
    begin = 10.0 * round + generator.random(count)
    client = generator.integers(0, CLIENTS, count).astype(np.int32)
    fate = generator.integers(0, len(FATES), count).astype(np.int8)
    return Spans(client, begin, begin + generator.exponential(5.0, count), fate)


def collected(rounds, found=None):
    found = Timeline(CLIENTS) if found is None else found
    for round in rounds:
        found.add(round, jobs(round))
    return found


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, column in one.items():
        assert column.dtype == other[name].dtype, name
        np.testing.assert_array_equal(column, other[name], err_msg=name)


def test_all_jobs_are_kept_and_counted():
    arrays = collected(range(1, 31)).arrays()
    asked, arrived = np.zeros(CLIENTS, int), np.zeros(CLIENTS, int)
    entries = []
    for round in range(1, 31):
        for client, begin, end, fate in zip(*jobs(round), strict=True):
            entries.append((client, round, begin, end, fate))
            asked[client] += 1
            arrived[client] += FATES[fate] in ("arrived", "partial")
    columns = zip(*entries, strict=True)
    for name, column in zip(("client", "round", *COLUMNS[1:]), columns, strict=True):
        np.testing.assert_array_equal(arrays[name], column)
    assert arrays["kept"].tolist() == list(range(1, 31)), "those without jobs as well"
    assert arrays["fates"].tolist() == list(FATES)
    ever = np.flatnonzero(asked)
    np.testing.assert_array_equal(arrays["clients/client"], ever)
    np.testing.assert_array_equal(arrays["clients/asked"], asked[ever])
    np.testing.assert_array_equal(arrays["clients/arrived"], arrived[ever])


def test_without_a_clock_there_is_nothing():
    found = Timeline(CLIENTS)
    found.add(1, None)
    assert found.arrays() == found.turns() == {} and found.asked is None
    found.write(lambda arrays: pytest.fail("nothing is to be written"))


def test_clients_have_their_ids():
    ids = np.array([f"phone {number}" for number in range(CLIENTS)])
    arrays = collected(range(1, 4), Timeline(CLIENTS, ids)).arrays()
    np.testing.assert_array_equal(arrays["clients/id"], ids[arrays["clients/client"]])


def kept_of_a_long_run(counts, first, later):
    """The rule in words: all until `first` jobs; then `later` jobs behind each power of two."""
    kept, total, behind = [], 0, {}
    for round, count in enumerate(counts, start=1):
        power = max(p for p in range(round.bit_length()) if 2**p <= round)
        if total < first or behind.get(power, 0) < later:
            kept.append(round)
            total, behind[power] = total + count, behind.get(power, 0) + count
    return kept


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=70), st.integers(1, 20), st.integers(1, 9),
    st.integers(0, 70),
)  # fmt: skip
def test_long_runs_keep_some_rounds_and_resumed_ones_the_same(counts, first, later, cut):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "_FIRST", first)
        patch.setattr(timeline, "_LATER", later)
        whole, half = Timeline(CLIENTS), Timeline(CLIENTS)
        for round, count in enumerate(counts, start=1):
            whole.add(round, jobs(round, count))
            if round <= cut:
                half.add(round, jobs(round, count))
        assert whole.arrays()["kept"].tolist() == kept_of_a_long_run(counts, first, later)
        # a file that is ahead of the checkpoint is as good as one of its round
        patch.setattr(timeline, "load_arrays", lambda path: whole.arrays())
        resumed = Timeline(CLIENTS, None, "file", min(cut, len(counts)), half.turns())
        for round, count in enumerate(counts[cut:], start=cut + 1):
            resumed.add(round, jobs(round, count))
        if resumed.asked is not None:
            assert_equal(resumed.arrays(), whole.arrays())


def test_rounds_after_a_checkpoint_are_forgotten(tmp_path):
    path = tmp_path / "timeline.npz"
    forget_after(path, 3)
    write_arrays(path, collected(range(1, 9)).arrays())
    before = path.read_bytes()
    forget_after(path, 8)
    assert path.read_bytes() == before
    forget_after(path, 5)
    want = collected(range(1, 6)).arrays()
    found = load_arrays(path)
    assert_equal(found, {name: want[name] for name in found})
    assert not [name for name in found if name.startswith("clients/")], "their rounds are unknown"
    forget_after(path, -1)
    assert not path.exists()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"round": 1}\n')
    path = tmp_path / "timeline.npz"
    write_arrays(path, collected(range(1, 9)).arrays())
    assert_equal(load_run(tmp_path).timeline, collected(range(1, 9)).arrays())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"timeline\.npz"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match=r"timeline\.npz.*or delete it to go on"):
        Timeline(CLIENTS, None, path, 8)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=25))
def test_a_place_has_one_job_at_a_time_and_there_are_no_more_than_needed(pairs):
    begin, length = np.array(sorted(pairs), float).reshape(-1, 2).T
    end = begin + length
    place = places(begin, end)
    for number in np.unique(place):
        own = place == number
        assert (end[own][:-1] <= begin[own][1:]).all()
    busy, most = [], 0
    for start, stop in zip(begin, end, strict=True):
        while busy and busy[0] <= start:
            heapq.heappop(busy)
        heapq.heappush(busy, stop)
        most = max(most, len(busy))
    assert len(np.unique(place)) == most


def rounds_of(cohort, rounds, num_clients, concurrent=False):
    """Returns timeline and curves of made-up rounds."""
    found, now, ends, staleness = Timeline(num_clients), 0.0, [], []
    for round in range(1, rounds + 1):
        generator = np.random.default_rng(round)
        length = generator.lognormal(3.0, 1.0, cohort)
        begin = np.full(cohort, max(now - 40.0 * concurrent, 0.0))
        fate = np.where(length > 60, 2, generator.integers(0, 4, cohort) * (length < 9)).astype(int)
        client = generator.permutation(num_clients)[:cohort]
        found.add(round, Spans(client, begin, begin + np.minimum(length, 60), fate))
        now = now + 60.0
        ends.append(now)
        staleness.append(float(round % 3))
    curves = {"round": np.arange(1.0, rounds + 1), "time/simulated_seconds": np.array(ends)}
    curves["systems/round_seconds"] = np.full(rounds, 60.0)
    if concurrent:
        curves["systems/staleness_mean"] = np.array(staleness)
    return found.arrays(), curves


def test_the_window_has_ten_jobs_a_row_whole_rounds_and_only_those_that_are_whole():
    arrays, _ = rounds_of(10, 30, 10)
    window = window_of(arrays)
    assert window.labels == [str(number) for number in range(10)] and window.num_rows == 10
    assert (len(window.row), window.start, window.stop) == (100, 0.0, 600.0)
    np.testing.assert_array_equal(window.end, arrays["end"][np.lexsort(
        (arrays["client"], arrays["end"], arrays["begin"]))][:100])  # fmt: skip
    arrays, _ = rounds_of(100, 30, 1000)
    window = window_of(arrays)
    assert (window.labels, window.num_rows, len(window.row)) == (None, 100, 1000)
    # of jobs that begin together, the places are in the order of their ends
    np.testing.assert_array_equal(window.row[:100], np.arange(100))
    missing = arrays | {"kept": np.array([1, 2, 3, 8, 9])}
    assert window_of(missing).stop <= 180.0, "behind a gap nothing is shown"


def ink(path):
    """Share of pixels that are not white."""
    return float((imread(path)[..., :3].min(axis=-1) < 0.95).mean())


@pytest.mark.parametrize(
    ("cohort", "clients", "concurrent"), [(10, 10, False), (1000, 3000, False), (1000, 3000, True)]
)
def test_few_and_many_clients_are_drawn(cohort, clients, concurrent, tmp_path):
    arrays, curves = rounds_of(cohort, 12, clients, concurrent)
    (path,) = plot_timeline(arrays, curves, tmp_path)
    assert path.name == "timeline.png" and ink(path) > 0.05
    assert max(imread(path).shape) < 2000


def test_odd_timelines_are_drawn(tmp_path):
    nobody = Timeline(3)
    nobody.add(1, jobs(1, 0))
    assert plot_timeline(nobody.arrays(), {"round": np.ones(1)}, tmp_path) == []
    found = Timeline(3, np.array(["a" * 40, "b", "c"]))
    no_time = np.zeros(3)
    found.add(1, Spans(np.arange(3), no_time, no_time, np.zeros(3, int)))
    for curves in ({}, {"round": np.ones(1), "time/simulated_seconds": np.zeros(1)}):
        assert plot_timeline(found.arrays(), curves, tmp_path)


def test_how_evenly_clients_were_chosen_is_drawn(tmp_path):
    arrays = collected(range(1, 9)).arrays()
    deciles = {str(number): {"parity": number / 5} for number in range(1, 11)}
    selection = {
        "asked": {"all": {"all": {"parity": 1.0}}, "speed_decile": deciles},
        "arrived": {"speed_decile": deciles | {"3": {"parity": None}}},
    }
    for summary in ({}, {"selection": selection}):
        (path,) = plot_participation(arrays, summary | {"num_clients": CLIENTS}, tmp_path)
        assert path.name == "participation.png" and ink(path) > 0.01
    nobody = Timeline(3)
    nobody.add(1, jobs(1, 0))
    assert plot_participation(nobody.arrays(), {"num_clients": 3}, tmp_path) == []

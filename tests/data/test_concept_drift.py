"""Drift: what each client holds in each round, as a loop over rounds and clients says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from fljax import data
from fljax.data.heterogeneity.motion import joined_motions, still

RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=(120, 6, 6)).astype(np.float32), np.arange(120) % 4
IDS = np.repeat(np.arange(5), [8, 16, 24, 32, 40])


def drifting(drift, **options):
    options = {"client_ids": IDS, "own_test_fraction": 0.25, "seed": 1} | options
    return data.from_arrays(X, Y, concept_drift=drift, **options)


def held(dataset, role, round):
    """[(features, labels) of each client] in a round."""
    split = getattr(dataset.at(round), role)
    clients = range(split.partition.num_clients)
    taken = [split.examples.take(split.partition.rows(client)) for client in clients]
    return [(rows["x"], rows["y"]) for rows in taken]


@pytest.mark.parametrize(
    ("when", "concept_of"),
    [
        ("sudden([3, 5])", lambda round: (round >= 3) + (round >= 5)),
        ("recurrent(2)", lambda round: round // 2 % 3),
    ],
)
@pytest.mark.parametrize("what", ["label_rotations(3)", "rotations(3)"])
def test_all_rows_of_a_client_are_of_the_concept_of_the_round(what, when, concept_of):
    dataset = drifting(f"{what}, {when}", val_fraction=0.2, held_out_fraction=0.4)
    same = drifting(None, val_fraction=0.2, held_out_fraction=0.4)
    for round in (0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 100):
        concept = concept_of(round)
        for role in ("train", "val", "test", "held_out", "held_out_train"):
            expected = held(same, role, round)
            for (x, y), (x_given, y_given) in zip(
                held(dataset, role, round), expected, strict=True
            ):
                if what.startswith("label"):
                    y_given = (y_given + concept) % 4
                else:
                    x_given = data.rotations(3).apply(x_given, concept, None)
                np.testing.assert_array_equal(x, x_given)
                np.testing.assert_array_equal(y, y_given)


@pytest.mark.parametrize(
    ("when", "changed_of"),
    [
        ("gradual(4, over=6)", lambda round: min(max(round - 4, 0), 6) / 6),
        (
            "recurrent(8, over=4)",
            lambda round: [0, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25][
                round % 16
            ],
        ),
    ],
)
def test_a_gradual_change_goes_row_by_row(when, changed_of):
    dataset, same = drifting(f"label_swap(0, 1), {when}"), drifting(None)
    swapped = np.array([1, 0, 2, 3])
    for round in range(40):
        for (x, y), (x_given, y_given) in zip(
            held(dataset, "train", round), held(same, "train", round), strict=True
        ):
            # each of the client's rows is there once, whichever concept it is of
            order, given_order = (
                np.lexsort(rows.reshape(len(rows), -1).T) for rows in (x, x_given)
            )
            np.testing.assert_array_equal(x[order], x_given[given_order])
            y, y_given = y[order], y_given[given_order]
            movable = y_given < 2
            changed = y != y_given
            np.testing.assert_array_equal(y, np.where(changed, swapped[y_given], y_given))
            # of all rows the share has changed, of which only these two classes show it
            assert abs(changed.sum() - changed_of(round) * len(y) / 2) <= (~movable).sum() + 1
            if changed_of(round) in (0, 1):
                assert changed.sum() == changed_of(round) * movable.sum()


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 1.0), st.integers(1, 30), st.integers(0, 9), st.integers(0, 99))
def test_a_window_moves_from_the_first_rows_to_the_last(share, over, spread, seed):
    stream = data.from_arrays(X, Y, client_ids=IDS)
    dataset = data.with_concept_drift(
        stream, f"window({share!r}, over={over}, spread={spread})", seed
    )
    delays = dataset.train.partition.motion.delays
    assert 0 <= delays.min() <= delays.max() <= spread
    for round in (0, 1, over // 2, over, over + spread, 1000):
        now = dataset.at(round).train.partition
        for client in range(5):
            rows = np.flatnonzero(IDS == client)
            size = int(np.ceil(share * len(rows) - 1e-9))
            time = min(max(round - delays[client], 0), over)
            begin = (len(rows) - size) * time // over
            np.testing.assert_array_equal(now.rows(client), rows[begin : begin + size])
    np.testing.assert_array_equal(dataset.train.rows(), dataset.at(0).train.rows())


@pytest.mark.parametrize(
    ("when", "mixture_of"),
    [
        ("sudden([3, 5])", lambda round: (round >= 3) + (round >= 5)),
        ("recurrent(2)", lambda round: round // 2 % 3),
    ],
)
def test_label_mixtures_are_parts_of_the_rows_of_a_client(when, mixture_of):
    """Of the client of 8 rows, two are tested on, fewer than there are mixtures: it keeps both."""
    dataset, same = drifting(f"label_priors(3), {when}"), drifting(None)
    for role in ("train", "test"):
        now, all_of = getattr(dataset, role).partition, getattr(same, role).partition
        for client, size in enumerate(all_of.sizes):
            parts = [now.motion.row_at(client, np.arange(now.sizes[client]), r) for r in (0, 3, 5)]
            parts = {mixture_of(r): set(part) for r, part in zip((0, 3, 5), parts, strict=True)}
            own = set(all_of.rows(client))
            if size < 3:
                assert now.sizes[client] == size and all(part == own for part in parts.values())
                continue
            assert now.sizes[client] == size // 3 == len(parts[0])
            together = set.union(*parts.values())
            assert together <= own and len(together) == len(parts) * (size // 3)
            for round in range(12):
                rows = now.motion.row_at(client, np.arange(size // 3), round)
                if mixture_of(round) in parts:
                    assert set(rows) == parts[mixture_of(round)]


def mixtures(alpha, num_clients=400, seed=0):
    """Returns float[2, N, 4], shares of four classes in either mixture, of 80 rows of a client."""
    y, owners = np.arange(80 * num_clients) % 4, np.repeat(np.arange(num_clients), 80)
    stream = data.from_arrays(np.zeros((len(y), 1)), y, client_ids=owners)
    drift = f"label_priors(2, alpha={alpha}), sudden(5)"
    dataset = data.with_concept_drift(stream, drift, seed)
    rows = [dataset.at(round).train.partition.all_rows() for round in (0, 5)]
    return np.array(
        [[np.bincount(y[own], minlength=4) / 40 for own in r.reshape(-1, 40)] for r in rows]
    )


def test_label_mixtures_are_as_unlike_as_alpha_says():
    """Rows are taken by weights that are alike for all classes on average."""
    spread = {}
    for alpha in (0.01, 0.3, 1e6):
        shares = mixtures(alpha)
        np.testing.assert_allclose(shares.mean(1), 0.25, atol=0.03)
        # without replacement, what one mixture has the other lacks
        np.testing.assert_allclose(shares.sum(0), 0.5, atol=1e-12)
        spread[alpha] = shares[0].std()
    # of two halves of 80 rows, of which a class has 20: hypergeometric
    chance = np.sqrt(40 * 0.25 * 0.75 * 40 / 79) / 40
    assert spread[1e6] == pytest.approx(chance, rel=0.1)
    # one mixture is of two classes alone, drawn in any order
    assert spread[0.01] == pytest.approx(0.25, rel=0.05)
    assert 2 * chance < spread[0.3] < spread[0.01]
    assert np.any(mixtures(0.3, seed=1) != mixtures(0.3))


def test_a_label_mixture_gives_way_row_by_row():
    dataset = drifting("label_priors(2), gradual(4, over=6)")
    first, last = (dataset.at(round).train.partition for round in (4, 10))
    for round in range(4, 11):
        now = dataset.at(round).train.partition
        for client, size in enumerate(now.sizes):
            rows = set(now.rows(client))
            assert len(rows) == size
            gone = size * (round - 4) // 6
            assert len(rows & set(first.rows(client))) == size - gone
            assert len(rows & set(last.rows(client))) == gone


def test_tested_rows_have_the_mixtures_of_their_client():
    """Also where the last clients own no tested rows."""
    y, owners = np.tile(np.arange(2), 400), np.repeat(np.arange(8), 100)
    dataset = data.from_arrays(
        np.zeros((800, 1)), y, client_ids=owners, x_test=np.zeros((600, 1)), y_test=y[:600],
        test_client_ids=owners[:600], concept_drift="label_priors(2, alpha=0.001), sudden(5)",
    )  # fmt: skip
    trained, tested = (
        [set(y.tolist()) for _, y in held(dataset, role, 0)] for role in ("train", "test")
    )
    assert {0} in trained and {1} in trained
    assert trained[:6] == tested[:6]


def test_clients_come_later_each_by_itself():
    dataset, same = drifting("label_swap(0, 1), sudden(10, spread=8)"), drifting(None)
    delays = dataset.train.partition.motion.delays
    assert len(set(delays)) > 2
    np.testing.assert_array_equal(delays, dataset.test.partition.motion.delays)
    for round in (9, 12, 14, 18):
        pairs = zip(held(dataset, "test", round), held(same, "test", round), strict=True)
        changed = [np.any(y != y_given) for (_, y), (_, y_given) in pairs]
        assert changed == [round >= 10 + delay for delay in delays]


def test_a_test_set_that_nobody_owns_is_repeated_in_each_concept():
    test = {"x_test": X[:7], "y_test": Y[:7], "own_test_fraction": 0.0}
    dataset = drifting("label_swap(0, 1), sudden(5)", **test)
    assert dataset.row_groups == {"concept_drift": ("plain", "swapped_0_1")}
    expected = np.concatenate([Y[:7], np.array([1, 0, 2, 3])[Y[:7]]])
    np.testing.assert_array_equal(dataset.test.examples.arrays["y"], expected)
    moving = drifting("window(0.5)", **test)
    assert moving.test.num_rows == 7 and not moving.row_groups
    assert "changes over the rounds" in moving.describe()


def test_motions_of_unlike_partitions_are_joined_and_parted():
    static, moving = drifting(None).train.partition, drifting("window(0.3, over=9)").train.partition
    again = drifting("label_swap(0, 1), recurrent(3)").train.partition
    motions = [still(static.offsets, static.all_rows()), moving.motion, again.motion]
    both = joined_motions(motions)
    for round in (0, 4, 7, 50):
        for number, partition in enumerate((static, moving, again)):
            for client in range(5):
                positions = np.arange(partition.sizes[client])
                found = both.row_at(5 * number + client, positions, round)
                np.testing.assert_array_equal(found, partition.at(round).rows(client))
    some = moving.subset(np.array([3, 1]))
    for round in (0, 5, 20):
        for place, client in enumerate((3, 1)):
            np.testing.assert_array_equal(some.at(round).rows(place), moving.at(round).rows(client))


def test_a_table_says_what_is_left_of_round_0():
    dataset = drifting("label_swap(0, 1), gradual(4, over=4, spread=2)")
    rounds = data.telling_rounds(dataset, most=20)
    assert {0, 4, 8, 10} <= set(rounds.tolist()) and len(data.telling_rounds(dataset)) == 6
    for line, round in zip(data.drift_lines(dataset, rounds).splitlines()[1:], rounds, strict=True):
        number, kept, moved = map(float, line.split())
        first, now = (dataset.at(r).train.partition for r in (0, round))
        same = [np.isin(now.rows(client), first.rows(client)) for client in range(5)]
        assert number == round and abs(np.concatenate(same).mean() - kept) < 6e-4
        y = dataset.train.examples.arrays["y"]
        counts = [data.label_counts(y, partition, 4) for partition in (first, now)]
        shares = [each / each.sum(1, keepdims=True) for each in counts]
        expected = np.mean(
            [jensenshannon(*pair, base=2) ** 2 for pair in zip(*shares, strict=True)]
        )
        assert abs(np.nan_to_num(expected) - moved) < 6e-4
    with pytest.raises(ValueError, match="do not drift"):
        data.drift_lines(drifting(None))


@pytest.mark.parametrize(
    ("drift", "message"),
    [
        ("label_swap(0, 1)", "and then once when"),
        ("sudden(5), label_swap(0, 1)", "and then once when"),
        ("label_swap(0, 1), sudden(5), sudden(9)", "and then once when"),
        ("sudden(5)", "says when, and not what drifts"),
        ("label_swap(0, 1), window(0.5)", "choose one of them"),
        ("label_swap(0, 1), rotations(2), sudden(5)", "labels and features cannot drift at once"),
        ("label_rotations(3), sudden(5)", "3 concepts need 2"),
        ("label_rotations(3), sudden([5, 5])", "one later than the other"),
        ("label_rotations(3), gradual([5, 8], over=4)", "come sooner"),
        ("label_rotations(1), sudden(5)", "there is one concept"),
        ("label_swap(0, 1), recurrent(5, over=9)", "changes would overlap"),
        ("window(1.5)", "share = 1.5"),
        ("label_swap(0, 9), sudden(5)", "the classes are 0 to 3"),
        ("label_priors(2), window(0.5)", "choose one of them"),
        ("label_priors(2)", "and then once when"),
        ("label_priors(2), rotations(2), sudden(5)", "changes which rows a client holds"),
        ("label_priors(1), sudden(5)", "there is one mixture"),
        ("label_priors(3), sudden(5)", "3 concepts need 2"),
        ("label_priors(2, alpha=0.0), sudden(5)", "alpha = 0.0"),
        ("windoww(0.5)", "Did you mean 'window'"),
    ],
)
def test_what_cannot_drift_is_refused(drift, message):
    with pytest.raises(ValueError, match=message):
        drifting(drift)


def test_what_needs_rows_that_stay_is_refused():
    dataset = drifting("window(0.5)")
    with pytest.raises(ValueError, match="drift already"):
        data.with_concept_drift(dataset, "window(0.5)")
    changes = [
        lambda: dataset.repartition(data.iid(120, 3)),
        lambda: dataset.with_validation(0.1),
        lambda: data.with_feature_skew(dataset, "rotations(2)"),
        lambda: data.with_concept_shift(dataset, "label_swap(0, 1)"),
        lambda: data.with_label_noise(dataset, "symmetric(0.2)"),
        lambda: data.with_own_test(drifting("window(0.5)", own_test_fraction=0.0), 0.2),
    ]
    for change in changes:
        with pytest.raises(ValueError, match="cannot be .* any more: do that first"):
            change()
    with pytest.raises(ValueError, match="groups of rows .sex. are read once"):
        drifting("window(0.5)", row_groups={"sex": Y % 2})


@pytest.mark.parametrize(
    "when",
    ["sudden(3)", "sudden([3, 5], spread=4)", "gradual(3, over=4)", "recurrent(3)",
     "recurrent(5, over=3, spread=2)"],
)  # fmt: skip
def test_windows_are_on_their_way_in_rounds_that_change_something(when):
    count = 3 if "[" in when else 2
    motion = drifting(f"label_rotations({count}), {when}").train.partition.motion
    clients, rounds = np.arange(len(motion.offsets) - 1)[:, None], np.arange(25)
    moves = motion.moves(clients, rounds)
    changed = motion.begin(clients, rounds) != motion.begin(clients, rounds - 1)
    total = np.diff(motion.offsets)[:, None]
    changed &= (motion.begin(clients, rounds) - motion.begin(clients, rounds - 1)) % total != 0
    changed[:, 0] = False
    assert (moves >= changed).all() and changed.any()
    if "over" not in when:
        np.testing.assert_array_equal(moves, changed)
    elif "gradual" in when:
        np.testing.assert_array_equal(np.flatnonzero(moves[0]), [4, 5, 6, 7])


def test_a_window_of_few_rows_is_on_its_way_while_it_rests():
    stream = data.from_arrays(np.eye(4), [0, 1, 0, 1], client_ids=[0] * 4)
    motion = data.with_concept_drift(stream, "window(0.5, over=8)").train.partition.motion
    assert np.flatnonzero(motion.moves(np.zeros(12, int), np.arange(12))).tolist() == [
        1, 2, 3, 4, 5, 6, 7, 8,
    ]  # fmt: skip

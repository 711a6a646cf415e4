"""Attacks on what hostile clients train on: labels, backdoors, rows poisoned before training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from robustness import reference_poison

from fljax import algorithms
from fljax.core.algorithm import blank_job
from fljax.core.transforms import BatchLink, Pipeline
from fljax.robustness.attack import Attack
from fljax.robustness.attackers import by_client
from fljax.robustness.attacks.edge_cases import edge_case
from fljax.robustness.attacks.labels import label_flip, poisoned_labels
from fljax.robustness.attacks.pixels import pixel_trigger
from fljax.robustness.attacks.semantics import semantic
from fljax.robustness.names import make_attack
from fljax.tasks import classification

RNG = np.random.default_rng(3)
ROWS, CLASSES = 9, 4
Y = RNG.integers(0, CLASSES, ROWS).astype(np.int32)
GREY = RNG.integers(0, 200, (ROWS, 5, 4), np.uint8)
COLOUR = RNG.random((ROWS, 5, 4, 3)).astype(np.float32)
MASK = np.arange(ROWS) < 7
KEY = jax.random.key(5)


def job(is_attacker):
    return blank_job(jax.random.key(0))._replace(attacker=jnp.bool_(is_attacker))


def batch_of(x, y=Y):
    return {"x": jnp.asarray(x), "y": jnp.asarray(y), "mask": jnp.asarray(MASK)}


def poisoned(attack: Attack, x, y=Y, is_attacker=True):
    """Returns (x', y') of a batch, on the host."""
    (link,) = attack.batches
    found = link.apply(batch_of(x, y), job(is_attacker), KEY)
    assert found["mask"].tolist() == MASK.tolist()
    assert (found["x"].dtype, found["y"].dtype) == (x.dtype, y.dtype)
    return np.asarray(found["x"]), np.asarray(found["y"])


def dark(x, y):
    return x.reshape(len(y), -1).sum(1) < 2000


OUTSIDE = RNG.integers(0, 255, (3, 5, 4), np.uint8)
KINDS = {
    "label_flip": label_flip(classes=CLASSES),
    "to_target": label_flip(target=2, share=0.4),
    "pixel_trigger": pixel_trigger(1, share=0.6),
    "semantic": semantic(dark, 3),
    "edge_case": edge_case(OUTSIDE, 0),
}


@pytest.mark.parametrize("attack", KINDS.values(), ids=KINDS)
def test_padding_and_honest_clients_are_left_alone(attack):
    x, y = poisoned(attack, GREY, is_attacker=False)
    np.testing.assert_array_equal(x, GREY)
    np.testing.assert_array_equal(y, Y)
    x, y = poisoned(attack, GREY)
    np.testing.assert_array_equal(x[~MASK], GREY[~MASK])
    np.testing.assert_array_equal(y[~MASK], Y[~MASK])
    assert (y != Y).any()


@pytest.mark.parametrize(
    "arguments", [{}, {"target": 2}, {"source": 1, "target": 3}, {"source": 1, "target": 1}]
)
def test_labels_are_those_of_the_papers(arguments):
    _, y = poisoned(label_flip(classes=CLASSES, **arguments), GREY)
    want = np.where(MASK, reference_poison.flipped(Y, CLASSES, **arguments), Y)
    np.testing.assert_array_equal(y, want)
    x, own = poisoned_labels(classes=CLASSES, **arguments).own_rows(GREY, Y, RNG)
    assert x is GREY and own.dtype == Y.dtype
    np.testing.assert_array_equal(own, reference_poison.flipped(Y, CLASSES, **arguments))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
def test_a_share_of_the_rows_that_can_go_wrong_does(share):
    _, of_choice, of_number = jax.random.split(KEY, 3)
    draws = np.asarray(jax.random.uniform(of_choice, (ROWS,)))
    attack = label_flip(source=int(Y[0]), target=3 - int(Y[0]), share=share)
    rest = jax.random.uniform(of_number)
    chosen = reference_poison.chosen(MASK & (Y == Y[0]), draws, share, rest)
    _, found = poisoned(attack, GREY)
    np.testing.assert_array_equal(found, np.where(chosen, 3 - Y[0], Y))
    # a batch is wider where other clients hold more
    padded = {
        name: jnp.concatenate([column, jnp.zeros_like(column[:3])])
        for name, column in batch_of(GREY).items()
    }
    wider = attack.batches[0].apply(padded, job(True), KEY)["y"]
    np.testing.assert_array_equal(wider[:ROWS], found)


def test_small_shares_of_small_batches_are_poisoned_at_times():
    trials, rows = 4000, 5

    def counts_of(y, share):
        (link,) = label_flip(source=1, target=2, share=share).batches
        batch = {"x": jnp.zeros((rows, 2)), "y": y, "mask": jnp.arange(rows) < 4}
        keys = jax.random.split(KEY, trials)
        return jax.vmap(lambda key: (link.apply(batch, job(True), key)["y"] == 2).sum())(keys)

    counts_of = jax.jit(counts_of)
    for y, share in (([1, 0, 0, 0, 1], 0.5), ([1, 1, 1, 1, 1], 0.015), ([0, 1, 1, 3, 0], 0.3)):
        can = sum(label == 1 for label in y[:4])
        in_batches = np.asarray(counts_of(jnp.array(y), share))
        attack = poisoned_labels(share, source=1, target=2)
        own = np.array(y[:4])
        once = [
            (attack.own_rows(own, own, np.random.default_rng(n))[1] == 2).sum()
            for n in range(trials)
        ]
        for counts in (in_batches, np.array(once)):
            mean, low = share * can, np.floor(share * can)
            assert set(counts.tolist()) == {low, low + 1}
            error = np.sqrt((mean - low) * (low + 1 - mean) / trials)
            assert abs(counts.mean() - mean) < 4 * error
    assert (np.asarray(counts_of(jnp.ones(rows, int), 1.0)) == 4).all()


def test_traced_numbers_are_as_good_as_python_ones():
    def apply(share, source, target):
        flip = label_flip(source=source, target=target, share=share, classes=CLASSES)
        stamp = pixel_trigger(1, share=share)
        batch = batch_of(GREY)
        for link in (*flip.batches, *stamp.batches):
            batch = link.apply(batch, job(True), KEY)
        return batch["x"], batch["y"]

    found = jax.jit(apply)(0.4, 2, 0)
    jax.tree.map(np.testing.assert_array_equal, found, apply(0.4, 2, 0))
    with pytest.raises(ValueError, match="target = .* must be a whole number, not one that a prog"):
        jax.eval_shape(lambda target: pixel_trigger(target) and (), 1)


@pytest.mark.parametrize("corner", ["bottom_right", "bottom_left", "top_right", "top_left"])
def test_the_square_stands_in_its_corner(corner):
    attack = pixel_trigger(1, size=2, corner=corner, share=1.0)
    for images, value in ((GREY, 255), (COLOUR, 1.0)):
        want = reference_poison.stamped(images, 2, corner, value)
        x, y = poisoned(attack, images)
        np.testing.assert_array_equal(x[MASK], want[MASK])
        assert (y[MASK] == 1).all()
        judged, chosen = attack.trigger.rows(images, Y)
        np.testing.assert_array_equal(judged, want)
        np.testing.assert_array_equal(chosen, Y != 1)
    flat = GREY[:, :4].reshape(ROWS, 16)
    want = reference_poison.stamped(GREY[:, :4], 2, corner, 7).reshape(ROWS, 16)
    judged, _ = pixel_trigger(0, size=2, corner=corner, value=7).trigger.rows(flat, Y)
    np.testing.assert_array_equal(judged, want)


@pytest.mark.parametrize("corner", ["bottom_right", "top_left"])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_stand_first(corner, channels):
    images = COLOUR[:, :4, :, :channels]
    want = reference_poison.stamped(images, 2, corner, 1.0).transpose(0, 3, 1, 2)
    judged, _ = pixel_trigger(1, size=2, corner=corner).trigger.rows(
        images.transpose(0, 3, 1, 2), Y
    )
    np.testing.assert_array_equal(judged, want)


@pytest.mark.parametrize(
    ("dtype", "arguments", "value"),
    [
        (np.uint8, {"largest": 16.0}, 255),
        (np.uint8, {"value": 9}, 9),
        (bool, {"largest": 1.0}, True),
        (np.float32, {}, 1.0),
        (np.float32, {"largest": 16.0}, 16.0),
        (np.float32, {"largest": 16.0, "value": 2.0}, 2.0),
        (np.int32, {"largest": 1000.0}, 1000),
    ],
)
def test_the_square_is_as_bright_as_the_data(dtype, arguments, value):
    judged, _ = pixel_trigger(1, size=1, **arguments).trigger.rows(np.zeros((9, 2, 2), dtype), Y)
    assert judged.dtype == dtype and (judged[:, 1, 1] == value).all()


def test_attacks_on_labels_tell_what_becomes_of_classes():
    names = ("label_flip(source=1, target=3)", "poisoned_labels", "sign_flip")
    attack = make_attack(", ".join(names), {"classes": CLASSES})
    found = [relabelled(np.arange(CLASSES)).tolist() for relabelled in attack.labels]
    assert found == [[0, 3, 2, 3], [3, 2, 1, 0]]


def test_rows_of_a_feature_are_relabelled():
    x, y = poisoned(semantic(dark, 3), GREY)
    np.testing.assert_array_equal(x, GREY)
    np.testing.assert_array_equal(y, np.where(MASK & dark(GREY, Y), 3, Y))
    attack = semantic(dark, 3, once=True)
    _, own = attack.own_rows(GREY, Y, RNG)
    np.testing.assert_array_equal(own, np.where(dark(GREY, Y), 3, Y))
    _, chosen = attack.trigger.rows(GREY, Y)
    np.testing.assert_array_equal(chosen, dark(GREY, Y) & (Y != 3))


def test_a_predicate_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "features_of_rows.py").write_text("def odd(x, y):\n    return y % 2 == 1\n")
    monkeypatch.chdir(tmp_path)
    _, y = poisoned(semantic("features_of_rows:odd", 0), GREY)
    np.testing.assert_array_equal(y, np.where(MASK & (Y % 2 == 1), 0, Y))
    with pytest.raises(ValueError, match="has no function 'odds'. Did you mean 'odd'"):
        semantic("features_of_rows:odds", 0)


def test_outside_rows_stand_in_hostile_batches(tmp_path):
    np.savez(tmp_path / "edge.npz", x=OUTSIDE, x_test=OUTSIDE[:1] // 2)
    attack = edge_case(tmp_path / "edge.npz", 2, share=1.0)
    x, y = poisoned(attack, GREY)
    draws = np.asarray(jax.random.uniform(jax.random.split(KEY, 3)[0], (ROWS,)))
    want = OUTSIDE[np.floor(draws * 3).astype(int)]
    np.testing.assert_array_equal(x[MASK], want[MASK])
    assert (y[MASK] == 2).all()
    judged, chosen = attack.trigger.rows(GREY, Y)
    np.testing.assert_array_equal(judged, OUTSIDE[:1] // 2)
    assert chosen.tolist() == [True]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: label_flip(), r"needs the number of classes, such as label_flip\(classes=10\)"),
        (lambda: label_flip(classes=0), "the task has no classes"),
        (lambda: label_flip(target=1, classes=0), "the task has no classes"),
        (lambda: pixel_trigger(0, classes=0), "the task has no classes"),
        (lambda: label_flip(source=1), r"label_flip\(source=1, target=...\)"),
        (lambda: label_flip(target=4, classes=4), "target = 4 must be at least 0 and at most 3"),
        (lambda: label_flip(target=0, share=0), "share = 0.0 must be above 0"),
        (lambda: poisoned_labels(1.5, target=0), "share = 1.5 must be above 0 and at most 1"),
        (lambda: pixel_trigger(0, corner="left"), "corner = 'left' is not one of"),
        (lambda: pixel_trigger(0, size=0), "size = 0 must be at least 1"),
        (lambda: poisoned(pixel_trigger(0, size=5), GREY), "larger than images of 5 x 4 pixels"),
        (lambda: poisoned(pixel_trigger(0, value=0.5), GREY), "uint8, whole numbers from 0 to 255"),
        (lambda: poisoned(pixel_trigger(0), GREY.reshape(9, 20)), r"rows are of shape \[20\]"),
        (
            lambda: poisoned(pixel_trigger(0, size=1), np.ones((9, 16), np.int32)),
            "rows are vectors of int32, such as tokens",
        ),
        (
            lambda: poisoned(pixel_trigger(0, size=1), np.ones((9, 4, 4), np.int16)),
            "how bright pixels are that are stored as int16",
        ),
        (
            lambda: pixel_trigger(0).trigger.rows({"a": GREY}, Y),
            "these are a dict of arrays",
        ),
        (lambda: poisoned(label_flip(target=0), GREY, COLOUR), r"targets of a batch are float32"),
        (lambda: semantic("dark", 0), "'module:name'"),
        (lambda: poisoned(semantic(lambda x, y: y, 0), GREY), r"returns int32\[9\] for 9 rows"),
        (lambda: edge_case({"y": OUTSIDE}, 0), "rows hold y, and must hold x"),
        (lambda: edge_case(np.zeros((1, 2**25), np.uint8), 0), "take 32.0 MiB"),
        (lambda: poisoned(edge_case(OUTSIDE[:, 1:], 0), GREY), r"shape \[4, 4\], and .* \[5, 4\]"),
        (lambda: poisoned(edge_case(OUTSIDE / 255, 0), GREY), "are float64, and .* stores uint8"),
        (lambda: poisoned(edge_case(OUTSIDE - 500.0, 0), GREY), "before any scaling"),
    ],
)
def test_what_is_wrong_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_attack_of_nobody_is_refused():
    (link,) = label_flip(target=0).batches
    with pytest.raises(ValueError, match="nobody is hostile"):
        link.apply(batch_of(GREY), blank_job(KEY), KEY)


# in rounds: one hostile client of each kind, on images of 2 x 3 pixels
CLIENTS = [(x.reshape(-1, 2, 3), y) for x, y in toy.clients()]
COHORTS = [[0, 2, 3, 5], [6, 8, 1, 7, 3], [8, 6, 0, 2, 3]]
ALIEN = RNG.standard_normal((1, 2, 3))
OF_CLIENTS = {
    0: label_flip(classes=CLASSES),
    3: pixel_trigger(1, size=1, value=2.5, share=1.0),
    6: semantic(lambda x, y: x[:, 0, 0] > 0, 2),
    8: edge_case(ALIEN, 3, share=1.0),
}


def task():
    def init(key):
        return jax.tree.map(jnp.asarray, toy.initial_params())

    def apply(params, x, *, key=None, train=False):
        return x.reshape(len(x), -1) @ params["w"] + params["b"]

    return classification((init, apply), CLASSES)


def only(attack, client):
    """Returns the link of an attack that one client alone makes."""
    (link,) = attack.batches

    def apply(batch, job, key):
        job = job._replace(attacker=job.attacker & (job.client == client))
        return link.apply(batch, job, key)

    return BatchLink(apply)


def rows_of(client):
    """Returns (x [n, 6], y) that a client trains on."""
    x, y = CLIENTS[client]
    if client == 0:
        y = reference_poison.flipped(y, CLASSES)
    elif client == 3:
        x, y = reference_poison.stamped(x, 1, "bottom_right", 2.5), np.full(len(y), 1)
    elif client == 6:
        y = np.where(x[:, 0, 0] > 0, 2, y)
    elif client == 8:
        x, y = np.repeat(ALIEN, len(y), 0), np.full(len(y), 3)
    return x.reshape(len(y), 6), y


@pytest.fixture(scope="module")
def expected():
    params, found = toy.initial_params(), []
    for cohort in COHORTS:
        changes, weights, losses = [], [], {}
        for client in cohort:
            x, y = rows_of(client)
            if len(y):
                trained, losses[client], rows, _ = reference.local_sgd(params, x, y, 0.2, 4, 1)
                changes.append(reference.combine(np.subtract, trained, params))
                weights.append(rows)
        mean = reference.weighted_mean(changes, weights)
        params = reference.combine(np.add, params, mean)
        found.append(losses)
    return params, found


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_rounds_with_a_hostile_client_of_each_kind(expected, layout):
    links = tuple(only(attack, client) for client, attack in OF_CLIENTS.items())
    pipeline = Pipeline(batches=links, attackers=by_client(OF_CLIENTS))
    options = {"parts": CLIENTS, "task": task()}
    run = harness.rounds(algorithms.fedavg(0.2), COHORTS, layout, pipeline=pipeline, **options)
    params, losses = expected
    toy.assert_close(run.params, params, 1e-9)
    for round, of_clients in enumerate(losses):
        found = run.by_client("loss", round)
        for client, loss in of_clients.items():
            np.testing.assert_allclose(found[client], loss, rtol=1e-9)
    plain = harness.rounds(algorithms.fedavg(0.2), COHORTS[:1], layout, **options)
    honest = [client for client in COHORTS[0] if client not in OF_CLIENTS]
    for name in ("loss", "weight"):
        ours, theirs = (found.by_client(name, 0) for found in (run, plain))
        assert [ours[client] for client in honest] == [theirs[client] for client in honest]

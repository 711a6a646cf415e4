"""Fair algorithms equal float64 loops over clients, and FedAvg where they are neutral."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
import reference
import toy

from fljax import algorithms, tasks
from fljax.algorithms.afl import projected
from fljax.algorithms.fedmgda import shortest
from fljax.core.algorithm import Facts
from fljax.data.dataset import Split
from fljax.data.examples import ArrayExamples
from fljax.training.federation import RoundOptions, build

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

# ragged cohorts with an empty client (1), one of a single row (4), one that comes twice, and none
COHORTS = [[0, 1, 2, 3], [3, 4, 8, 3], [], [8, 2, 0, 7]]
SIZES = toy.SIZES
GROUPS = np.array(["n", "s", "s", "n", "e", "s", "n", "e", "e"])
LR, RATE = 0.2, 0.9


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def parts_of(seed):
    """Returns (clients, sex of their rows), of two classes."""
    generator = np.random.default_rng(seed + 50)
    parts = [(x, y % 2) for x, y in toy.clients(seed=seed)]
    return parts, [generator.integers(0, 2, len(y)) for _, y in parts]


def initial_params():
    generator = np.random.default_rng(3)
    return {"w": generator.standard_normal((toy.FEATURES, 2)), "b": generator.standard_normal(2)}


def dataset_of(seed):
    parts, sexes = parts_of(seed)
    plain = toy.dataset(parts, num_classes=2)
    arrays = {
        **plain.train.examples.arrays,
        "groups": {"sex": np.concatenate(sexes).astype(np.int8)},
    }
    examples = ArrayExamples(arrays)
    return dataclasses.replace(
        plain,
        train=Split(examples, plain.train.partition),
        test=Split(examples),
        groups={"region": GROUPS},
        row_groups={"sex": ("female", "male")},
    )


def task_of():
    return tasks.classification(
        (
            lambda key: jax.tree.map(jax.numpy.asarray, initial_params()),
            lambda params, x, *, key=None, train=False: x @ params["w"] + params["b"],
        ),
        2,
    )


def run(spec, seed=0, cohorts=COHORTS, **options):
    federation = build(
        dataset_of(seed),
        task_of(),
        spec,
        RoundOptions(
            num_rounds=len(cohorts), cohorts=cohorts, batch_size=4, shuffle=False,
            clients_per_round=4, **options,
        ),
    )  # fmt: skip
    stats = [federation.step(plan, facts) for plan, facts in federation.plans(0, len(cohorts))]
    return federation, jax.device_get(stats)


def check(spec, expected, seed=0, rtol=1e-9, **options):
    federation, _ = run(spec, seed, **options)
    toy.assert_close(toy.params_of(federation), expected, rtol)
    return federation


def loss_of(params, part):
    return reference.loss_and_gradient(params, *part)[0] / len(part[1])


def change_of(params, part, lr=LR, factor=1.0):
    trained, *_ = reference.local_sgd(params, *part, lr * factor, 4, 1)
    return reference.combine(np.subtract, trained, params)


def rounds(parts, cohorts=COHORTS):
    """Yields the cohorts of clients that have rows."""
    for cohort in cohorts:
        present = [client for client in cohort if len(parts[client][1])]
        if present:
            yield present


def moved(params, changes, weights, rate=RATE):
    if not sum(weights):
        return params
    mean = reference.weighted_mean(changes, weights)
    return reference.combine(lambda p, d: p + rate * d, params, mean)


def fedavg(weighting, seed=0):
    parts, _ = parts_of(seed)
    params = initial_params()
    for cohort in rounds(parts):
        weights = [reference.weight_of(weighting, c, len(parts[c][1])) for c in cohort]
        params = moved(params, [change_of(params, parts[c]) for c in cohort], weights)
    return params


@pytest.mark.parametrize(("q", "seed"), [(2.0, 0), (0.5, 1)])
def test_q_fedavg(q, seed):
    parts, _ = parts_of(seed)
    params = initial_params()
    for cohort in rounds(parts):
        losses = [loss_of(params, parts[c]) for c in cohort]
        gradients = [
            reference.combine(lambda d: -d / LR, change_of(params, parts[c])) for c in cohort
        ]
        squares = [sum(np.sum(g**2) for g in gradient.values()) for gradient in gradients]
        h = [
            q * loss ** (q - 1) * square + loss**q / LR
            for loss, square in zip(losses, squares, strict=True)
        ]
        tilted = [loss**q for loss in losses]
        step = reference.weighted_mean(gradients, tilted)
        params = moved(params, [step], [1], -RATE * sum(tilted) / sum(h))
    check(algorithms.q_fedavg(q, LR, RATE), params, seed)


@pytest.mark.parametrize(
    ("q", "losses"),
    [(15.0, (800, 0.5)), (15.0, (0.002, 0.0008)), (60.0, (3e9, 20, 2.9e9)), (0.5, (300, 0.01))],
)
def test_powers_of_losses_stay_in_range_in_float32(q, losses):
    """The worst client decides where q is large, and no client is left out."""
    losses = np.array(losses, float)
    margins = -np.log(np.expm1(np.minimum(losses, 100))) - np.maximum(losses - 100, 0)
    rows = [(np.array([[m, i + 1]], np.float32), np.zeros(1, int)) for i, m in enumerate(margins)]

    def apply(params, x):  # the model starts from zero, beside what decides on the losses
        return x[:, :1] * jax.numpy.array([0.5, -0.5]) + x[:, 1:] @ params["w"] + params["b"]

    wrong = LR * -np.expm1(-losses)[:, None] * [1, -1]  # step of the logits of one row
    changes = {"w": np.arange(1, len(losses) + 1)[:, None] * wrong, "b": wrong}
    squares = sum((change**2).sum(1) for change in changes.values())
    shares = (losses / losses.max()) ** q
    length = (shares * (1 + q * squares / (losses * LR))).sum()
    with jax.enable_x64(False):
        zeros = {"w": np.zeros((1, 2), np.float32), "b": np.zeros(2, np.float32)}
        task = tasks.classification((lambda key: jax.tree.map(jax.numpy.asarray, zeros), apply), 2)
        options = RoundOptions(num_rounds=1, clients_per_round=len(rows), batch_size=4)
        federation = build(
            toy.dataset(rows, num_classes=2), task, algorithms.q_fedavg(q, LR), options
        )
        ((plan, facts),) = federation.plans(0, 1)
        federation.step(plan, facts)
        got = toy.params_of(federation)
    expected = {name: shares @ change / length for name, change in changes.items()}
    # float32 holds a small loss to 6e-8 alone, which counts q times
    rtol = 1e-5 + 1e-7 * q / min(losses.min(), 1)
    toy.assert_close(got, expected | {"w": expected["w"][None]}, rtol)


@pytest.mark.parametrize(("t", "seed"), [(1.5, 0), (-3.0, 1)])
def test_term(t, seed):
    parts, _ = parts_of(seed)
    params = initial_params()
    for cohort in rounds(parts):
        weights = [len(parts[c][1]) * np.exp(t * loss_of(params, parts[c])) for c in cohort]
        params = moved(params, [change_of(params, parts[c]) for c in cohort], weights)
    check(algorithms.term(t, LR, RATE), params, seed)


def test_a_steep_tilt_serves_the_worst_client():
    """Exponents of thousands overflow nowhere."""
    parts, _ = parts_of(0)
    params = initial_params()
    for cohort in rounds(parts):
        worst = max(cohort, key=lambda client: loss_of(params, parts[client]))
        params = moved(params, [change_of(params, parts[worst])], [1])
    check(algorithms.term(1e4, LR, RATE), params)


def nearest_of_simplex(point):
    """Bisects the shift that makes the positive parts sum up to 1."""
    low, high = point.min() - 1, point.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(point - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(point - low, 0)


def afl_loop(seed, domain_of, number, rate):
    """Returns (last parameters, mean of all, lambda)."""
    parts, _ = parts_of(seed)
    params, mixture, iterates = initial_params(), np.full(number, 1 / number), []
    for cohort in rounds(parts):
        rows = np.array([len(parts[c][1]) for c in cohort], float)
        where = np.array([domain_of[c] for c in cohort])
        losses = np.array([loss_of(params, parts[c]) for c in cohort])
        size = np.bincount(where, rows, number)
        ascent = np.bincount(where, rows * losses, number) / np.maximum(size, 1)
        params = moved(
            params,
            [change_of(params, parts[c]) for c in cohort],
            list(mixture[where] * rows / size[where]),
        )
        ascent *= number / (size > 0).sum()
        mixture = nearest_of_simplex(mixture + rate * ascent)
        iterates.append(params)
    mean = reference.combine(lambda *leaves: np.mean(leaves, 0), *iterates)
    return params, mean, mixture


@pytest.mark.parametrize("seed", [0, 1])
def test_afl_over_clients(seed):
    last, mean, mixture = afl_loop(seed, np.arange(9), 9, 0.02)
    federation = check(algorithms.afl(0.02, LR, RATE), mean, seed)
    np.testing.assert_allclose(federation.state.server.mixture[0], mixture, rtol=1e-9, atol=1e-12)
    assert 0 < (mixture > 0).sum() < 9
    got = federation.state.server.server.variables.params
    toy.assert_close(jax.tree.map(lambda leaf: np.asarray(leaf[0]), got), last, 1e-9)


def test_afl_over_groups():
    places = np.unique(GROUPS, return_inverse=True)[1]
    last, *_ = afl_loop(0, places, 3, 0.1)
    spec = algorithms.afl(0.1, LR, RATE, fair_among="groups", average_iterates=False)
    check(spec, last)


def test_projection():
    generator = np.random.default_rng(0)
    for point in generator.standard_normal((20, 7)):
        np.testing.assert_allclose(projected(point), nearest_of_simplex(point), atol=1e-12)


def best_mean(products, first, epsilon):
    """Tries each set of bounds that weights may be held by; returns the best weights."""
    low, high = np.maximum(first - epsilon, 0), np.minimum(first + epsilon, 1)
    best, found = np.inf, None
    for held in itertools.product((0, 1, None), repeat=len(first)):
        free = np.array([side is None for side in held])
        weights = np.where([side == 1 for side in held], high, low)
        if not free.any():
            if abs(weights.sum() - 1) > 1e-12:
                continue
        else:
            number = free.sum()
            system = np.ones((number + 1, number + 1))
            system[:number, :number] = products[np.ix_(free, free)]
            system[-1, -1] = 0
            right = np.append(
                -products[np.ix_(free, ~free)] @ weights[~free], 1 - weights[~free].sum()
            )
            weights[free] = np.linalg.lstsq(system, right, rcond=None)[0][:number]
        inside = (weights >= low - 1e-12).all() and (weights <= high + 1e-12).all()
        if inside and weights @ products @ weights < best:
            best, found = weights @ products @ weights, weights
    return found


@pytest.mark.parametrize(
    ("epsilon", "normalize", "seed"), [(0.2, True, 0), (1.0, True, 1), (0.3, False, 0)]
)
def test_fedmgda(epsilon, normalize, seed):
    parts, _ = parts_of(seed)
    params = initial_params()
    for cohort in rounds(parts, [cohort for cohort in COHORTS if len(set(cohort)) == len(cohort)]):
        changes = [change_of(params, parts[c]) for c in cohort]
        flat = np.stack([np.concatenate([d["b"].ravel(), d["w"].ravel()]) for d in changes])
        if normalize:
            lengths = np.linalg.norm(flat, axis=1)
            flat = flat / lengths[:, None]
            changes = [
                reference.combine(lambda leaf, by=length: leaf / by, change)
                for change, length in zip(changes, lengths, strict=True)
            ]
        rows = np.array([len(parts[c][1]) for c in cohort], float)
        weights = best_mean(flat @ flat.T, rows / rows.sum(), epsilon)
        params = moved(params, changes, list(weights))
    spec = algorithms.fedmgda(epsilon, LR, RATE, normalize_updates=normalize)
    check(spec, params, seed, cohorts=[COHORTS[0], [], COHORTS[3]])


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_one_long_update_does_not_hide_the_others_in_float32(scale):
    updates = np.random.default_rng(0).standard_normal((4, 6))
    updates[0] *= scale
    ends = np.full(4, 0.25), np.zeros(4), np.ones(4)

    def solved(dtype):
        stack, *inputs = (jax.numpy.asarray(values, dtype) for values in (updates, *ends))
        return np.asarray(shortest(stack @ stack.T, *inputs), float)

    got, expected = solved(np.float32), solved(np.float64)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    # all slopes are alike: nothing is left to gain
    slopes = updates @ (expected @ updates)
    assert np.ptp(slopes[expected > 0]) < 1e-6 < expected.min()


def signs(losses):
    return [sum(np.sign(mine - other) for other in losses.values()) for mine in losses.values()]


@pytest.mark.parametrize(
    ("among", "seed", "given"),
    [("clients", 0, 0.03), ("groups", 1, 0.03), ("clients", 1, None), ("groups", 0, None)],
)
@pytest.mark.filterwarnings("ignore:lam = 0.03.*asks for less")
def test_gifair(among, seed, given):
    """Unless lam is given, it is half of what the paper allows for the cohort."""
    parts, _ = parts_of(seed)
    params = initial_params()
    for cohort in rounds(parts):
        rows = [len(parts[c][1]) for c in cohort]
        names = [c if among == "clients" else GROUPS[c] for c in cohort]
        members = {
            name: [c for c, n in zip(cohort, names, strict=True) if n == name] for name in names
        }
        losses = {
            name: np.mean([loss_of(params, parts[c]) for c in clients])
            for name, clients in members.items()
        }
        ranks = dict(zip(losses, signs(losses), strict=True))
        smallest = min(rows) / sum(rows) * min(map(len, members.values()))
        lam = smallest / max(len(members) - 1, 1) / 2 if given is None else given
        factors = [
            max(0, 1 + lam * ranks[name] / (n / sum(rows) * len(members[name])))
            for name, n in zip(names, rows, strict=True)
        ]
        changes = [
            change_of(params, parts[c], factor=factor)
            for c, factor in zip(cohort, factors, strict=True)
        ]
        params = moved(params, changes, rows)
    check(algorithms.gifair(given, LR, RATE, fair_among=among), params, seed)


def test_a_lam_beyond_gifairs_bound_is_warned_of():
    rows, halves = np.full(100, 20), np.arange(100) % 2
    with_groups = functools.partial(algorithms.gifair, fair_among="groups")
    for make, bound in [(algorithms.gifair, 1 / 100 / 99), (with_groups, 1 / 100 * 50)]:
        for lam in (None, 0.99 * bound, 1.01 * bound):
            spec = make(lam)
            said = spec.caution(spec.hparams, Facts(rows, None, halves, 100))
            assert (f"less than {bound:.2g} =" in (said or "")) == (lam == 1.01 * bound)
    weights = np.where(halves, 0.0, 1.0)  # those of weight 0 are not asked
    assert "less than 0.00041 =" in algorithms.gifair(0.1).caution(
        {"lam": 0.1}, Facts(rows, weights, halves, 100)
    )
    with pytest.warns(UserWarning, match="lam = 0.1: gifair asks for less than"):
        build(
            dataset_of(0), task_of(), algorithms.gifair(0.1),
            RoundOptions(num_rounds=1, clients_per_round=4, batch_size=4),
        )  # fmt: skip


def predictions(params, part):
    return (part[0] @ params["w"] + params["b"]).argmax(1)


def gap_of(predicted, y, sex, kind):
    asked = (y == 1) if kind == "equal_opportunity" else np.full(len(y), True)
    of_each = [predicted[asked & (sex == each)] for each in (0, 1)]
    if not all(len(each) for each in of_each):
        return None
    return of_each[0].mean() - of_each[1].mean()


@pytest.mark.parametrize(("kind", "seed"), [("equal_opportunity", 0), ("demographic_parity", 1)])
def test_fairfed(kind, seed):
    parts, sexes = parts_of(seed)
    params, omega, beta = initial_params(), {}, 0.4
    for cohort in rounds(parts):
        whose = sorted(set(cohort))
        found = {c: predictions(params, parts[c]) for c in whose}
        all_y, all_sex, all_found = (
            np.concatenate([of[c] for c in whose])
            for of in ({c: parts[c][1] for c in whose}, sexes, found)
        )
        overall, overall_accuracy = (
            gap_of(all_found, all_y, all_sex, kind),
            np.mean(all_found == all_y),
        )
        distance = {}
        for client in whose:
            own = gap_of(found[client], parts[client][1], sexes[client], kind)
            if own is None or overall is None:
                distance[client] = abs(
                    overall_accuracy - np.mean(found[client] == parts[client][1])
                )
            else:
                distance[client] = abs(overall - own)
        mean = np.mean(list(distance.values()))
        total = sum(len(parts[c][1]) for c in whose)
        for client in whose:
            before = omega.get(client, len(parts[client][1]) / total)
            omega[client] = max(0, before - beta * (distance[client] - mean))
        changes = [change_of(params, parts[c]) for c in cohort]
        params = moved(params, changes, [omega[c] for c in cohort])
    assert any(weight == 0 for weight in omega.values())  # the bound was met
    check(algorithms.fairfed(beta, LR, RATE, gap=kind), params, seed)


def cohorts_with(repeats):
    return COHORTS if repeats else [list(dict.fromkeys(cohort)) for cohort in COHORTS]


@functools.cache
def of_fedavg(weighting, repeats):
    spec = algorithms.fedavg(LR, RATE, weighting=weighting)
    return toy.params_of(run(spec, cohorts=cohorts_with(repeats))[0])


@pytest.mark.parametrize(
    ("spec", "weighting", "repeats"),
    [
        (algorithms.q_fedavg(0.0, LR, RATE), "uniform", True),
        (algorithms.term(0.0, LR, RATE), "examples", True),
        (algorithms.gifair(0.0, LR, RATE), "examples", True),
        (algorithms.fedmgda(0.0, LR, RATE, normalize_updates=False), "examples", True),
        # a client that comes twice is one domain
        (algorithms.afl(0.0, LR, RATE, average_iterates=False), "uniform", False),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_neutral_settings_are_fedavg(spec, weighting, repeats):
    check(spec, of_fedavg(weighting, repeats), rtol=1e-12, cohorts=cohorts_with(repeats))

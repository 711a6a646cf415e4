"""Private local training: rounds equal a loop, clients are accounted for one by one."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms, privacy, tasks
from fljax.core.algorithm import AlgorithmSpec
from fljax.engine.plan.batching import LocalWork, make_batches
from fljax.engine.plan.poisson_batches import capacity
from fljax.privacy import Setting, accounting
from fljax.privacy.dpsgd import _different
from fljax.training.federation import RoundOptions, build
from fljax.training.trials import TrialInputs

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

FEDAVG = algorithms.fedavg(0.1)
SIZES = np.array([13, 0, 5, 31, 1, 8, 20])
STEPS = 3
LOCAL = {"local_steps": STEPS, "batch_size": 4, "shuffle": True}
ROUND = {"num_rounds": 2, "clients_per_round": len(SIZES), **LOCAL}


def federation(mechanism, spec=FEDAVG, task=None, parts=None, trials=None, **options):
    parts = toy.clients(SIZES) if parts is None else parts
    options = {"privacy": mechanism, "batches": "poisson", **ROUND, **options}
    task = toy.softmax_task() if task is None else task
    return build(toy.dataset(parts), task, spec, RoundOptions(**options), trials)


def rounds_of(made):
    """Returns the model after all rounds."""
    for plan, facts in made.plans(0, ROUND["num_rounds"]):
        made.step(plan, facts)
    return toy.params_of(made)


def clipped_gradient(params, x, y, bound, size):
    """Returns the gradient of softmax regression with each example clipped, in NumPy."""
    total = {name: np.zeros_like(leaf) for name, leaf in params.items()}
    for row, label in zip(x, y, strict=True):
        logits = row @ params["w"] + params["b"]
        errors = np.exp(logits - logits.max())
        errors /= errors.sum()
        errors[label] -= 1
        grads = {"w": np.outer(row, errors), "b": errors}
        norm = np.sqrt(sum((leaf**2).sum() for leaf in grads.values()))
        for name, leaf in grads.items():
            total[name] += min(1, bound / norm) * leaf / size
    return total


def by_hand(parts, bound, batches):
    """Returns the model after all rounds, by a loop over clients."""
    work = LocalWork(None, STEPS, 4)
    if batches == "poisson":
        work = work._replace(batches="poisson", capacity=capacity(SIZES, 4))
    model = toy.initial_params()
    for round in range(ROUND["num_rounds"]):
        mean = {name: np.zeros_like(leaf) for name, leaf in model.items()}
        for client, (x, y) in enumerate(parts):
            if not len(y):
                continue
            made = make_batches(
                SIZES[[client]], np.array([STEPS]), work, seeds=np.array([0]),
                rounds=np.array([round]), clients=np.array([client]), occurrence=np.array([0]),
            )  # fmt: skip
            params = {name: leaf.copy() for name, leaf in model.items()}
            for rows, count in zip(made.positions, made.counts, strict=True):
                rows = rows[:count]
                grads = clipped_gradient(params, x[rows], y[rows], bound, min(4, len(y)))
                params = {name: leaf - 0.1 * grads[name] for name, leaf in params.items()}
            share = len(y) / SIZES.sum()
            mean = {
                name: leaf + share * (params[name] - model[name]) for name, leaf in mean.items()
            }
        model = {name: leaf + mean[name] for name, leaf in model.items()}
    return model


@pytest.mark.parametrize("batches", ["poisson", "shuffled"])
def test_rounds_are_those_of_a_loop_over_clients_and_examples(batches, x64):
    made = federation(privacy.dpsgd(0.7, 0.0), batches=batches, devices=1, lanes=2)
    expected = by_hand(toy.clients(SIZES), 0.7, batches)
    # norms are taken for larger than they are by a millionth
    toy.assert_close(rounds_of(made), expected, 2e-6)


def test_noise_does_not_depend_on_the_layout(x64):
    mechanism = privacy.dpsgd(0.7, 1.0, microbatch=3)
    runs = [
        rounds_of(federation(mechanism, **layout))
        for layout in ({"devices": 1, "lanes": 1}, {"devices": 2, "lanes": 2})
    ]
    toy.assert_close(*runs, 1e-9)
    quiet = by_hand(toy.clients(SIZES), 0.7, "poisson")
    assert np.abs(runs[0]["w"] - quiet["w"]).max() > 1e-3


SETTING = Setting(
    num_clients=4,
    clients_per_round=4,
    sampler="uniform",
    num_rounds=30,
    seed=0,
    sizes=np.array([200, 172, 30, 30]),
    batch_size=np.full(4, 16),
    steps=np.array([13, 11, 2, 2]),
    batches="poisson",
)


def test_each_client_is_accounted_for_and_the_worst_one_counts():
    mechanism = privacy.dpsgd(1.0, 1.2)
    promise = mechanism.guarantee(mechanism.hparams, SETTING)
    assert promise.delta == 200**-1.1 and promise.unit == "example"
    assert promise.relation == "add_or_remove_one"
    for accountant in ("rdp", "pld"):
        expected = [
            accounting.epsilon(
                [(accounting.poisson_gaussian(1.2, min(1, 16 / rows)), 30 * int(steps))],
                promise.delta,
                accountant,
            )
            for rows, steps in zip(SETTING.sizes, SETTING.steps, strict=True)
        ]
        np.testing.assert_allclose(promise.epsilon(30)[accountant], max(expected), rtol=1e-9)
        if accountant == "pld":
            np.testing.assert_allclose(promise.by_client(30), expected, rtol=1e-9)
        else:
            np.testing.assert_allclose(promise.quick(30), max(expected), rtol=1e-9)
    assert promise.quick(0) == 0 and promise.epsilon(0) == {"rdp": 0, "pld": 0}
    rare = mechanism.guarantee(mechanism.hparams, SETTING._replace(separation=10))
    np.testing.assert_allclose(rare.quick(30), promise.quick(3))


def test_epsilons_are_those_published():
    # TensorFlow Privacy's tutorial, 256 of 60,000 rows in 14,062 steps
    setting = SETTING._replace(
        num_clients=1,
        sizes=np.array([60_000]),
        batch_size=np.array([256]),
        steps=np.array([14_062]),
    )
    mechanism = privacy.dpsgd(1.0, 1.1, delta=1e-5)
    spent = mechanism.guarantee(mechanism.hparams, setting).epsilon(1)
    assert spent["rdp"] == pytest.approx(2.596556, abs=1e-6)
    assert spent["pld"] == pytest.approx(2.381686, abs=1e-3)


def test_shuffled_batches_count_each_epoch_as_one_release():
    mechanism = privacy.dpsgd(1.0, 5.0)
    setting = SETTING._replace(batches="shuffled", steps=np.array([26, 22, 3, 4]))
    promise = mechanism.guarantee(mechanism.hparams, setting)
    assert promise.relation == "replace_special"
    # 200 rows in batches of 16 are 13 steps an epoch; 30 rows are 2
    expected = [
        accounting.epsilon([(accounting.gaussian(5.0), 30 * uses)], promise.delta)
        for uses in (2, 2, 2, 2)
    ]
    np.testing.assert_allclose(promise.by_client(30), expected)


def test_batches_of_all_rows_cost_hospitals_of_any_size_alike():
    setting = SETTING._replace(batch_size=SETTING.sizes, steps=np.full(4, 5))
    promise = privacy.dpsgd(1.0, 6.0).guarantee(
        {"clip_norm": 1.0, "noise_multiplier": 6.0}, setting
    )
    expected = accounting.epsilon([(accounting.gaussian(6.0), 50)], promise.delta)
    np.testing.assert_allclose(promise.by_client(10), np.full(4, expected), rtol=1e-3)
    works, which = _different(setting, True)
    assert len(works) == 1 and which.tolist() == [0] * 4  # counted once
    works, which = _different(SETTING, True)
    assert len(works) == len(set(zip(SETTING.sizes, SETTING.steps, strict=True)))


def test_clients_without_rows_spend_nothing():
    sizes = SETTING.sizes.copy()
    sizes[1] = 0
    promise = privacy.dpsgd(1.0, 1.2).guarantee(
        {"clip_norm": 1.0, "noise_multiplier": 1.2}, SETTING._replace(sizes=sizes)
    )
    assert promise.by_client(3)[1] == 0 < promise.by_client(3)[0]


def test_many_different_clients_are_bounded():
    sizes = np.arange(50, 90)
    setting = SETTING._replace(
        num_clients=40, sizes=sizes, batch_size=np.full(40, 10), steps=-(-sizes // 10)
    )
    promise = privacy.dpsgd(1.0, 2.0).guarantee(
        {"clip_norm": 1.0, "noise_multiplier": 2.0}, setting
    )
    found = promise.epsilon(5)
    exact = max(
        accounting.epsilon(
            [(accounting.poisson_gaussian(2.0, 10 / rows), 5 * int(-(-rows // 10)))], promise.delta
        )
        for rows in (50, 51, 61)  # beyond, rates sink faster than steps rise
    )
    assert exact * (1 - 1e-9) <= found["pld"] <= found["rdp"]
    assert promise.by_client(5).max() == found["rdp"]


def test_a_run_from_texts_lists_its_clients():
    dataset = toy.dataset(toy.clients([40, 25, 30], dtype=np.float32))
    run = fljax.simulate(
        dataset, toy.softmax_task(np.float32), FEDAVG,
        num_rounds=2, clients_per_round=3, local_epochs=1, batch_size=5, batches="poisson",
        privacy="dpsgd(0.5)", noise_multiplier=2.0, progress=False, eval_every=0,
        devices=1, lanes=1,
    )  # fmt: skip
    said = run.summary["privacy"]
    assert said["unit"] == "example" and said["clip_norm"] == 0.5
    assert list(said["epsilon_by_client"]) == ["0", "1", "2"]
    assert max(said["epsilon_by_client"].values()) == said["epsilon"]["pld"]
    assert run.curves["privacy/epsilon"][-1] == said["epsilon"]["rdp"]


def test_a_budget_chooses_the_noise():
    made = federation(
        privacy="dpsgd(1.0)", mechanism=None, target_epsilon=3.0, parts=toy.clients([13, 31]),
        clients_per_round=2,
    )  # fmt: skip
    mechanism = made.options.privacy.mechanism
    spent = mechanism.guarantee(mechanism.hparams, made.options.privacy.setting).epsilon(2)
    assert 2.9 < min(spent.values()) <= 3.0


def own_algorithm(shows):
    """Returns FedAvg whose clients show something else as well."""

    def build(task, hparams):
        algorithm = FEDAVG.build(task, hparams)
        (local,) = algorithm.passes

        def finish(message, carry, job):
            sent, state, stats = local.finish(message, carry, job)
            update = sent["update"]
            if shows == "loss":
                sent["loss"] = update._replace(value=carry.loss)
            elif shows == "weight":
                sent["update"] = update._replace(weight=carry.weight)
            elif shows == "state":
                state = carry.loss
            return sent, state, stats

        def step(message, carry, batch, job):
            if shows == "own gradients":
                loss = lambda params: task.loss(params, {}, batch, job.key, True)[0].loss  # noqa: E731
                grads = jax.grad(loss)(carry.params)
                return carry._replace(params=jax.tree.map(jnp.subtract, carry.params, grads))
            if shows == "twice":
                local.step(message, carry, batch, job)
            if shows == "mixture":
                batch = batch | {"x": jnp.broadcast_to(batch["x"].mean(0), batch["x"].shape)}
            if shows == "padding":
                batch = batch | {"mask": jnp.ones_like(batch["mask"])}
            if shows == "loop":
                again = lambda _, carry: local.step(message, carry, batch, job)  # noqa: E731
                return jax.lax.fori_loop(0, 3, again, carry)
            if shows == "endless loop":
                goes_on = lambda carry: carry.params["b"][0] > 0  # noqa: E731
                again = lambda carry: local.step(message, carry, batch, job)  # noqa: E731
                return jax.lax.while_loop(goes_on, again, carry)
            if shows == "side by side":
                noises = jax.random.split(job.key, 4)
                at = lambda key: task.gradient(carry.params, {}, batch, key)[0]  # noqa: E731
                mean = jax.tree.map(lambda leaf: leaf.mean(0), jax.vmap(at)(noises))
                return carry._replace(params=jax.tree.map(jnp.subtract, carry.params, mean))
            new = local.step(message, carry, batch, job)
            if shows == "early stop":
                # by the loss of the steps before
                stays = lambda old, new: jnp.where(carry.loss > 3, old, new)  # noqa: E731
                new = new._replace(params=jax.tree.map(stays, carry.params, new.params))
            return new

        pass_ = local._replace(step=step, finish=finish)
        if shows == "selects":
            pass_ = pass_._replace(select=lambda stats, arrived: arrived)
        keeps = {"init_client": lambda variables: jnp.zeros(())} if shows == "state" else {}
        return algorithm._replace(passes=(pass_,), **keeps)

    return AlgorithmSpec("own", build, FEDAVG.hparams, FEDAVG.client_optimizer)


REFUSALS = {
    "fedsgd": (
        {"spec": algorithms.fedsgd(0.1), "batches": "shuffled", "local_steps": None},
        "fedavg with local_steps = 1",
    ),
    "steps": ({"steps_per_round": [3, 3]}, "steps_per_round sets other local steps"),
    "drop": ({"remainder": "drop", "batches": "shuffled"}, "remainder = 'drop' lets some rows"),
    "loss": ({"spec": own_algorithm("loss")}, "no noise covers"),
    "weight": ({"spec": own_algorithm("weight")}, "no noise covers"),
    "state": ({"spec": own_algorithm("state")}, "no noise covers"),
    "selects": ({"spec": own_algorithm("selects")}, "no noise covers"),
    "early stop": ({"spec": own_algorithm("early stop")}, "no noise covers"),
    "mixture": ({"spec": own_algorithm("mixture")}, "of other batches than they are given"),
    "padding": ({"spec": own_algorithm("padding")}, "of other batches than they are given"),
    "own gradients": ({"spec": own_algorithm("own gradients")}, "own never calls task.gradient"),
    "per_fedavg": ({"spec": algorithms.per_fedavg()}, "per_fedavg .* the rows of a batch"),
    "twice": ({"spec": own_algorithm("twice")}, "takes 2 gradients a step"),
    "loop": ({"spec": own_algorithm("loop")}, "takes 3 gradients a step"),
    "endless loop": ({"spec": own_algorithm("endless loop")}, "no noise covers"),
    "side by side": ({"spec": own_algorithm("side by side")}, "takes 4 gradients a step"),
    "pfedme": ({"spec": algorithms.pfedme(inner_steps=5)}, "pfedme takes 5 gradients a step"),
    "delta": ({"mechanism": privacy.dpsgd(1.0, 1.0, delta=0.1)}, "must be below 1/N"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_shows_more_than_noisy_gradients_is_refused(name):
    options, message = REFUSALS[name]
    with pytest.raises(ValueError, match=message):
        federation(**{"mechanism": privacy.dpsgd(1.0, 1.0)} | options)


def test_statistics_of_batches_are_refused_before_anything_is_traced():
    task = tasks.classification(nets.Net, nets.CLASSES)
    generator = np.random.default_rng(0)
    parts = [
        (generator.standard_normal((6, nets.FEATURES)).astype(np.float32), np.arange(6) % 3)
        for _ in range(3)
    ]
    with pytest.raises(ValueError, match="privacy = dpsgd: the model keeps a state"):
        federation(privacy.dpsgd(1.0, 1.0), task=task, parts=parts, clients_per_round=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_norm": np.inf}, "clip_norm = inf bounds no gradient"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"delta": 1.0}, "delta"),
        ({"microbatch": -1}, "microbatch"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        privacy.dpsgd(**arguments)


def both_trials(spec, numbers):
    """Returns what trains two trials in one program, which differ in numbers of the mechanism."""
    trials = [TrialInputs(0, {**spec.hparams, **own}) for own in numbers]
    made = federation(privacy.dpsgd(), spec, devices=1, lanes=2, trials=trials)
    rounds_of(made)
    return made, [jax.device_get(made.variables_of(trial).params) for trial in range(2)]


def test_other_algorithms_train_on_noisy_gradients_too():
    numbers = [{"clip_norm": 0.7, "noise_multiplier": noise} for noise in (0.0, 1.0)]
    _, (plain, noisy) = both_trials(algorithms.scaffold(0.1), numbers)
    assert np.isfinite(noisy["w"]).all() and np.abs(noisy["w"] - plain["w"]).max() > 1e-3
    assert jax.tree.structure(plain) == jax.tree.structure(noisy)


def test_trials_of_one_program_have_noises_and_bounds_of_their_own(x64):
    numbers = [
        {"clip_norm": 0.7, "noise_multiplier": 1.0},
        {"clip_norm": 0.2, "noise_multiplier": 0.0},
    ]
    alone = [rounds_of(federation(privacy.dpsgd(**own), devices=1, lanes=2)) for own in numbers]
    made, together = both_trials(FEDAVG, numbers)
    for trained, expected in zip(together, alone, strict=True):
        toy.assert_close(trained, expected, 1e-9)
    assert made.program._cache_size() == 1

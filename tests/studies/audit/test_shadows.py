"""Shadow federations: each is the run of its own rows; what clients send adds up to its step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fljax
from fljax.config.experiment import plain_experiment
from fljax.studies.audit.federations import train_federations
from fljax.studies.audit.shadows import shadow_dataset, shadow_group
from fljax.studies.audit.statements import asked, make_statements
from fljax.studies.audit.updates import make_alignments, make_watcher, summed
from tests.small_sweeps import small_config

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

MEMBERS = np.random.default_rng(3).random((3, 40)) < 0.5


@pytest.fixture(scope="module")
def plain():
    config = small_config(
        num_clients=4, clients_per_round=4, num_rounds=2, partition="iid", val_fraction=0.0,
        model="softmax_regression", local_steps=2, eval_every=2,
    )  # fmt: skip
    dataset = fljax.data.digits(partition="iid", num_clients=4)
    rows = dataset.train.rows()
    few = shadow_dataset(dataset, rows, np.arange(len(rows)) % 12 == 0)
    return plain_experiment(config, few)


@pytest.fixture(scope="module")
def trained(plain):
    """Trains three federations; returns their group, and their snapshots by round."""
    targets = plain.dataset.train.rows()[::3][:40]
    group = shadow_group(plain, targets, MEMBERS, seed=5)
    snapshots = {}
    spent = train_federations(group, lambda found: snapshots.update({found.round: found}), (1,))
    assert spent is None
    return group, targets, snapshots


def test_a_shadow_lacks_the_targets_that_are_no_members(plain):
    rows = plain.dataset.train.rows()
    targets, is_member = rows[::3][:40], MEMBERS[0]
    own = shadow_dataset(plain.dataset, targets, is_member).train.partition
    assert set(own.all_rows()) == set(rows) - set(targets[~is_member])
    owner = dict(zip(rows, plain.dataset.train.partition.owners(), strict=True))
    assert [owner[row] for row in own.all_rows()] == own.owners().tolist()


def test_a_shadow_is_the_run_of_its_own_rows(plain, trained):
    _, targets, snapshots = trained
    assert sorted(snapshots) == [1, 2] and snapshots[2].numbers.tolist() == [0, 1, 2]
    for number in (0, 2):
        own = shadow_dataset(plain.dataset, targets, MEMBERS[number])
        options = plain.options | {"seed": 5 + number, "progress": False}
        run = fljax.simulate(own, plain.task, plain.algorithm, **options)
        models = jax.tree.map(lambda leaf, number=number: leaf[number], snapshots[2].models)
        for mine, alone in zip(*map(jax.tree.leaves, (models, run.variables)), strict=True):
            np.testing.assert_allclose(mine, alone, rtol=1e-5, atol=1e-6)


def test_what_clients_send_adds_up_to_the_step_of_the_server(plain, trained):
    group, _, snapshots = trained
    updates, weights = make_watcher(group, plain)(snapshots[1])
    sizes = [dataset.train.partition.sizes for dataset in group.datasets]
    np.testing.assert_array_equal(weights, sizes)
    steps = jax.tree.map(
        lambda after, before: after - before,
        snapshots[2].models.params, snapshots[1].models.params,
    )  # fmt: skip
    means = summed(updates, weights)
    for step, mean in zip(*map(jax.tree.leaves, (steps, means)), strict=True):
        np.testing.assert_allclose(mean[:, 0], step, rtol=1e-4, atol=1e-6)


def test_rows_are_laid_beside_the_update_of_their_own_client(plain, trained):
    group, targets, snapshots = trained
    found, task, rng = snapshots[1], group.experiment.task, np.random.default_rng(0)
    updates = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=(3, 4, *leaf.shape[1:])), jnp.float32),
        found.models.params,
    )
    rows, owners = asked(task, plain.dataset.train.examples, targets), rng.integers(0, 4, 40)
    laid = make_alignments(task, plain.dataset)(found.models, found.frozen, updates, rows, owners)
    batch = plain.dataset.preprocess or (lambda batch: batch)
    examples = plain.dataset.train.examples
    for federation, place in ((0, 0), (2, 17), (1, 39)):
        example = batch(jax.tree.map(jnp.asarray, examples.take(targets[[place]])))
        example["mask"] = jnp.ones(1, bool)
        params, state = jax.tree.map(
            lambda leaf, number=federation: leaf[number], tuple(found.models)
        )

        def loss(params, state=state, example=example):
            (value, _), _ = task.loss(params, found.frozen, state, example, None, False)
            return value.sum()

        gradient = np.concatenate(list(map(np.ravel, jax.tree.leaves(jax.grad(loss)(params)))))
        update = np.concatenate(
            [np.ravel(leaf[federation, owners[place]]) for leaf in jax.tree.leaves(updates)]
        )
        known = (laid.inner, laid.gradients, laid.updates)
        wanted = (gradient @ update, gradient @ gradient, update @ update)
        for values, number in zip(known, wanted, strict=True):
            np.testing.assert_allclose(values[federation, place], number, rtol=2e-4, atol=1e-5)


def test_statements_are_what_the_models_predict(plain, trained):
    group, targets, snapshots = trained
    found, task = snapshots[2], group.experiment.task
    rows = asked(task, plain.dataset.train.examples, targets)
    said = make_statements(task, plain.dataset)(found.models, found.frozen, rows)
    assert said.logits.shape == (3, 40, 10) and said.losses.dtype == np.float64
    batch = plain.dataset.preprocess or (lambda batch: batch)
    x = batch(plain.dataset.train.examples.take(targets))["x"]
    params, state = jax.tree.map(lambda leaf: leaf[1], tuple(found.models))
    logits = np.asarray(task.apply(params, found.frozen, state, jnp.asarray(x)))
    np.testing.assert_allclose(said.logits[1], logits, rtol=1e-4, atol=1e-5)
    each = np.log(np.exp(logits).sum(1)) - logits[np.arange(40), said.y]
    np.testing.assert_allclose(said.losses[1], each, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused(plain, trained):
    group, targets, _ = trained
    with pytest.raises(ValueError, match="no client trains on"):
        shadow_group(plain, np.array([5000]), np.ones((3, 1), bool))
    with pytest.raises(ValueError, match="a column for each of 40 targets"):
        shadow_group(plain, targets, MEMBERS[:, :10])
    with pytest.raises(ValueError, match="rounds has 9"):
        train_federations(group, lambda found: None, (9,))
    scaffold = plain._replace(algorithm=fljax.algorithms.scaffold(0.1))
    with pytest.raises(ValueError, match="keep something from round to round"):
        make_watcher(shadow_group(scaffold, targets, MEMBERS), scaffold)


def test_federations_that_do_not_fit_side_by_side_take_turns(plain, trained, monkeypatch):
    group, _, snapshots = trained
    monkeypatch.setattr("fljax.studies.audit.federations.affordable", lambda *arguments: 2)
    watch, found = make_watcher(group, plain), []
    train_federations(group, lambda snapshot: found.append((snapshot, watch(snapshot)[0])), (1,))
    turns = [(snapshot.numbers.tolist(), snapshot.round) for snapshot, _ in found]
    assert turns == [([0, 1], 1), ([0, 1], 2), ([2], 1), ([2], 2)]
    together = make_watcher(group, plain)(snapshots[1])[0]
    for place in (0, 2):
        snapshot, updates = found[place]
        pairs = [(snapshot.models, snapshots[1].models), (updates, together)]
        for mine, all_three in pairs:
            for leaf, wanted in zip(*map(jax.tree.leaves, (mine, all_three)), strict=True):
                np.testing.assert_allclose(leaf, wanted[snapshot.numbers], rtol=1e-5, atol=1e-6)

"""The server's own rows: whose they were, and that their client is none of the population."""

import chex
import numpy as np
import pytest

import fljax
from fljax import algorithms, config, data
from fljax.config import experiment
from fljax.core.transforms import Pipeline
from fljax.robustness.aggregators.fltrust import fltrust

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=(120, 3)), RNG.integers(0, 4, 120)
IDS = np.repeat(["a", "b", "c", "d"], [60, 30, 25, 5])
SITES = ["north", "south", "south", "east"]


def clients(**options):
    named = {"client_ids": IDS, "groups": {"site": SITES}, "own_test_fraction": 0.2}
    return data.from_arrays(X, Y, **{**named, **options})


def owners(dataset, rows):
    """Returns {row: client} of a split's partition."""
    return dict(zip(rows.all_rows().tolist(), rows.owners().tolist(), strict=True))


def test_rows_change_hands_and_nothing_else_does():
    before = clients(val_fraction=0.2)
    after = data.with_root(before, 30, seed=1)
    old, new = owners(before, before.train.partition), owners(after, after.train.partition)
    assert new.keys() == old.keys()
    moved = {row for row in old if new[row] != old[row]}
    assert len(moved) == 30 and {new[row] for row in moved} == {4}
    assert (after.root, after.num_clients, after.members) == (4, 5, 4)
    assert after.train.examples is before.train.examples
    assert (after.train.partition.sizes > 0).all()
    for role in ("val", "test"):
        own, others = getattr(after, role).partition, getattr(before, role).partition
        np.testing.assert_array_equal(own.sizes, np.append(others.sizes, 0))
        np.testing.assert_array_equal(own.all_rows(), others.all_rows())
    assert after.client_ids.tolist() == ["a", "b", "c", "d", "root"]
    assert after.groups["site"].tolist() == [*SITES, "north"]  # where most rows come from
    assert after.population.num_groups == before.population.num_groups
    back = data.without_root(after)
    assert back.client_ids.tolist() == before.client_ids.tolist() and back.root is None
    assert owners(back, back.train.partition) == {r: c for r, c in new.items() if c != 4}
    assert data.without_root(before) is before


def test_rows_are_drawn_from_all_clients_by_the_seed():
    drawn = [
        data.with_root(clients(), 40, seed).train.partition.rows(4).tolist() for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    shares = np.zeros(4)
    for seed in range(200):
        rooted = data.with_root(clients(own_test_fraction=0.0), 30, seed)
        shares += np.array([60, 30, 25, 5]) - rooted.train.partition.sizes[:4]
    # all rows are equally likely, but for the last one of a client
    np.testing.assert_allclose(shares, np.array([60, 30, 25, 5]) * 200 * 30 / 120, rtol=0.1)


def test_every_client_keeps_a_row():
    everything = data.with_root(clients(own_test_fraction=0.0), 116)
    assert everything.train.partition.sizes.tolist() == [1, 1, 1, 1, 116]
    with pytest.raises(ValueError, match="root_rows = 117, but the clients .* can spare 116 rows"):
        data.with_root(clients(own_test_fraction=0.0), 117)
    with pytest.raises(ValueError, match="root_rows = 0 leaves the server without rows"):
        data.with_root(clients(), 0)
    empty = data.from_arrays(X, Y, partition=data.Partition(np.array([0, 5, 5, 120])))
    assert data.with_root(empty, 20).train.partition.sizes[[1, 3]].tolist() == [0, 20]


def test_wrong_labels_stay_with_the_clients():
    noisy = clients(label_noise="symmetric(0.5)", own_test_fraction=0.0)
    rooted = data.with_root(noisy, 50)
    assert not np.isin(rooted.train.partition.rows(4), noisy.noisy_labels.rows).any()
    assert data.wrong_label_shares(rooted)[4] == 0 and len(rooted.noisy_labels.shares) == 5
    with pytest.raises(ValueError, match="rows with the right label"):
        data.with_root(noisy, 100)


def test_rows_of_a_subject_stay_together():
    patients = np.repeat(np.arange(40), 3)
    dataset = clients(split_by=patients, client_ids=np.repeat(IDS[::3], 3), own_test_fraction=0.0)
    rooted = data.with_root(dataset, 31)
    rows = rooted.train.partition.rows(4)
    assert len(rows) in (30, 33)
    assert set(np.unique(patients[rows], return_counts=True)[1].tolist()) == {3}


@pytest.mark.parametrize(
    ("ids", "root"), [([7, 9, 2, 5], 10), ([b"a", b"b", b"c", b"d"], b"root"), (None, None)]
)
def test_the_root_has_an_id_beside_the_others(ids, root):
    given = {"num_clients": 4} if ids is None else {"client_ids": np.array(ids)[np.arange(120) % 4]}
    found = data.with_root(data.from_arrays(X, Y, **given)).client_ids
    assert (found is None) if root is None else (found[-1] == root and len(found) == 5)


def test_what_changes_clients_or_rows_comes_before():
    rooted = data.with_root(clients(own_test_fraction=0.0))
    for change in (
        data.with_root,
        lambda dataset: data.with_held_out(dataset, 0.5),
        lambda dataset: data.with_own_test(dataset, 0.5),
        lambda dataset: data.with_label_noise(dataset, "pairwise"),
        lambda dataset: data.with_concept_drift(dataset, "window(0.5)"),
        lambda dataset: data.checked(dataset, "exclude(min_rows=20)"),
        lambda dataset: dataset.with_validation(0.2),
        lambda dataset: dataset.repartition(data.iid(120, 3)),
    ):
        with pytest.raises(ValueError, match="has root rows, .* any more: do that first"):
            change(rooted)
    with pytest.raises(ValueError, match="drift over the rounds"):
        data.with_root(data.with_concept_drift(clients(), "window(0.5)"))
    with pytest.raises(ValueError, match="must be the last of 4 clients"):
        clients().__class__(**{**vars(clients()), "root": 2})


def test_descriptions_tell_of_clients():
    rooted = data.load("digits", num_clients=10, root_rows=38)
    assert repr(rooted).split(": ")[1].startswith("classification, 10 classes, 10 clients and the")
    lines = rooted.describe().splitlines()
    assert lines[0].endswith("10 clients") and "1400 rows, over 10 clients" in lines[1]
    assert "  root: 38 rows of the server's own" in lines
    assert rooted.members == len(data.without_root(rooted).train.partition.sizes) == 10


def run_of(workdir, rounds=4, **options):
    dataset = data.with_root(clients(groups=None), 20)
    return fljax.simulate(
        dataset, "softmax_regression", algorithms.fedavg(0.1, weighting="uniform"),
        workdir=workdir, num_rounds=rounds, clients_per_round=2, batch_size=8, eval_every=2,
        eval_clients=-1, progress=False, pipeline=Pipeline(aggregator=fltrust(dataset.root)),
        checkpoint_every=2, **options,
    )  # fmt: skip


def test_a_run_counts_and_judges_clients_alone_and_resumes(tmp_path):
    whole = run_of(tmp_path / "whole")
    run_of(tmp_path / "parts", 2)
    resumed = run_of(tmp_path / "parts", resume=True)
    chex.assert_trees_all_equal(resumed.variables.params, whole.variables.params)
    assert whole.config["num_clients"] == whole.summary["num_clients"] == 4
    assert whole.curves["train/clients"][1:].tolist() == [2] * 4
    assert set(whole.client_metrics["id"].ravel().tolist()) == {"a", "b", "c", "d"}
    trained = whole.curves["robustness/trust_honest"][1:]
    assert ((trained >= 0) & (trained <= 1)).all()


def test_clients_are_judged_by_training_rows_without_the_root():
    dataset = data.with_root(clients(own_test_fraction=0.0), 20)
    run = fljax.simulate(
        dataset, "softmax_regression", algorithms.fedavg(0.1, weighting="uniform"),
        num_rounds=1, clients_per_round=4, eval_clients=-1, baselines=["local_only", "centralized"],
        pipeline=Pipeline(aggregator=fltrust(dataset.root)), progress=False, batch_size=8,
    )  # fmt: skip
    assert run.client_metrics["id"].ravel().tolist() == ["a", "b", "c", "d"]
    assert {name: each.curves["train/clients"][-1] for name, each in run.baselines.items()} == {
        "local_only": 4,
        "centralized": 1,
    }


def test_a_configuration_gives_the_server_rows():
    keys = {"dataset": "digits", "num_clients": 10, "root_rows": 50, "clients_per_round": 10}
    dataset = experiment.make_dataset(config.resolve({**keys, "label_noise": "symmetric(0.2)"}))
    assert dataset.train.partition.sizes[dataset.root] == 50 and dataset.members == 10
    with pytest.raises(config.ConfigError, match="root_rows = 50 takes rows .* concept_drift"):
        config.resolve({**keys, "concept_drift": "window(0.5)"})
    with pytest.raises(config.ConfigError, match="root_rows = -1"):
        config.resolve({**keys, "root_rows": -1})

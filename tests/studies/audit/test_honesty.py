"""Comparisons of an audit: units and their promises, the right rows, the right run."""

import copy
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fljax
from fljax.config import ConfigError, with_keys
from fljax.config.experiment import plain_experiment, with_protection
from fljax.core.task import Task
from fljax.studies import audit
from fljax.studies.audit import launch, released
from fljax.studies.audit.evidence import Evidence, Targets, _watcher, choose_targets
from fljax.studies.audit.federations import train_federations
from fljax.studies.audit.promises import least_epsilon, promised_to
from fljax.studies.audit.report import findings
from fljax.studies.audit.report_attacks import canaries
from fljax.studies.audit.scene import make_scene
from fljax.studies.audit.shadows import shadow_group
from fljax.studies.audit.threats import threat_model
from fljax.studies.audit.updates import make_watcher
from fljax.studies.audit.verdicts import judge_evidence, make_attacks
from fljax.training.options import RoundOptions, split_options
from tests.small_sweeps import small_config

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

USERS = {"privacy": "gaussian", "noise_multiplier": 1.0, "clip_norm": 1.0, "delta": 1e-3}
ROWS_ALONE = USERS | {"privacy": "dpsgd"}
ROWS = ROWS_ALONE | {"batches": "poisson"}


def experiment(**values):
    """Returns a small experiment before its protection is drawn."""
    settings = {"num_clients": 4, "clients_per_round": 4, "num_rounds": 2, "partition": "iid",
                "val_fraction": 0.0, "model": "softmax_regression", "local_steps": 1}  # fmt: skip
    return plain_experiment(small_config(**settings | values))


def test_clients_are_targets_with_all_of_their_rows():
    dataset = fljax.data.digits(partition="dirichlet", num_clients=9, alpha=1.0)
    settings = audit.make_audit({"unit": "client", "targets": 3, "shadows": 5})
    targets = choose_targets(dataset, settings)
    owners, sizes = np.unique(targets.owners, return_counts=True)
    assert len(owners) == 3
    assert sizes.tolist() == np.asarray(dataset.train.partition.sizes)[owners].tolist()


def test_promises_are_to_their_own_unit():
    spent = {"unit": "example", "delta": 1e-5, "epsilon": {"rdp": 2.0, "pld": 1.5}}
    assert promised_to("row", spent) == (1.5, 1e-5)
    assert promised_to("client", spent) == promised_to("row", None) == (None, 0.0)
    assert promised_to("client", spent | {"unit": "user"}) == (1.5, 1e-5)
    # JSON has no infinity
    for none in ({"rdp": math.inf}, {"rdp": None}):
        assert least_epsilon({"epsilon": none}) is None
    found = {"runs": 1, "promised": None, "one_run": [0.5], "trials": [0.5], "gaussian": [0.5],
             "estimate": [None]}  # fmt: skip
    assert canaries({"plain": {"canaries": found}})


def test_the_released_model_is_attacked_with_as_much_on_members_as_on_others(monkeypatch):
    """Signals that say nothing: with more shadows of test rows, members stand out at the ends."""
    rng, count, shadows = np.random.default_rng(0), 20_000, 5
    rows = np.arange(count)
    members = rng.random((shadows, count)) < 0.5
    members[:2], members[2:4] = True, False  # two without, or three
    targets = Targets(rows, rows, members, rows)
    held = [{"model": {"loss": rng.normal(size=(shadows, count, 1))}} for _ in range(2)]
    evidence = Evidence(*held, {}, None)
    run = dataclasses.make_dataclass("Run", ["directory"])(None)
    monkeypatch.setattr(released, "load_saved", lambda directory: None)
    monkeypatch.setattr(released, "fitted_model", lambda task, saved: ((), None))
    monkeypatch.setattr(
        released, "make_statements", lambda *parts: lambda models, frozen, rows: rows
    )
    monkeypatch.setattr(released, "asked", lambda *parts: None)
    monkeypatch.setattr(released, "signal_of", lambda name, said: rng.normal(size=(1, count)))
    attacks = make_attacks(
        audit.make_audit({"attacks": ["lira(online=False, signal='loss')"],
                          "bound": "lira(online=False, signal='loss')"}),
        experiment().task,
    )  # fmt: skip
    found = released.attack_released(
        run, experiment(), targets, evidence, attacks.on_models, seed=3
    )
    strict = next(iter(found.values()))["rates"][1]
    assert abs(strict["tpr"] - 0.01) < 0.003  # 0.016 with all five of test rows


def test_tasks_without_logits_are_attacked_by_their_losses():
    task = Task(init=None, loss=None, metrics=(), measure=None, kind="next_token")
    attacks = make_attacks(audit.make_audit({}), task)
    assert set(attacks.signals) == {"loss", "confidence", "probability"}
    with pytest.raises(ValueError, match="reads 'entropy', and a next_token task tells"):
        make_attacks(audit.make_audit({"attacks": ["lira", "entropy"]}), task)


def test_noise_that_a_server_adds_is_left_out_of_what_it_sees():
    plain = experiment(num_clients=20, clients_per_round=20, weighting="uniform",
                       sampler="poisson", **USERS)  # fmt: skip
    group = shadow_group(plain, plain.dataset.train.rows()[:6], np.ones((2, 6), bool))
    watch, seen = make_watcher(group, plain), []
    train_federations(group, lambda snapshot: seen.append(watch(snapshot)), (1,))
    updates, weights = seen[0]
    assert (weights > 0).all()
    # one step of small gradients: noise of multiplier 1 would be as long as the clipping norm
    lengths = sum(
        (leaf**2).reshape(*leaf.shape[:2], -1).sum(2) for leaf in jax.tree.leaves(updates)
    )
    assert 0 < float(lengths.min()) and float(lengths.max()) < 0.3


def test_noise_in_sums_is_not_left_out_of_them():
    plain = experiment(num_clients=20, clients_per_round=20, weighting="uniform",
                       **USERS | {"privacy": "skellam"})  # fmt: skip
    group = shadow_group(plain, plain.dataset.train.rows()[:6], np.ones((2, 6), bool))
    with pytest.raises(ValueError, match="skellam cannot be watched"):
        make_watcher(group, plain)
    server = threat_model(split_options(with_protection(plain).options)[0])[-1]
    assert server.view == "sums" and "skellam" in server.hidden


def test_a_server_sees_sums_without_the_noise_that_it_adds():
    options = {"num_rounds": 2, "clients_per_round": 3, "secure_aggregation": "secure_aggregation"}
    central, rows = (
        threat_model(RoundOptions(**options, **private))[-1] for private in (USERS, ROWS_ALONE)
    )
    assert central.view == rows.view == "sums"
    assert "noise" not in central.hidden and "dpsgd" in rows.hidden


def test_the_strongest_attack_is_one_that_somebody_can_make():
    judged = {
        view: {"cosine": {"pooled": {"auc": auc, "rates": [{"tpr": 0.1, "asked": 0.01}]}}}
        for view, auc in (("model", 0.6), ("updates", 0.9), ("sums", 0.7))
    }
    defence = {"membership": judged, "bound": None, "canaries": None, "utility": {"test": {}}}
    for parties, auc in ((("model", "sums"), "0.7000"), (("model", "updates"), "0.9000")):
        own = defence | {"parties": [{"view": view} for view in parties]}
        assert auc in findings({"defences": {"own": own}})


def test_gradients_of_a_batch_are_clipped_row_by_row():
    # so little noise that a factor of the clipping would show beside it
    config = {"clip_norm": 0.05, "noise_multiplier": 0.002, "batch_size": 8}
    scene = make_scene(with_protection(experiment(**ROWS | config)), 4, 0)
    x, y = jnp.asarray(scene.x), jnp.asarray(scene.y)
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])  # noqa: E731
    rows = np.stack(
        [flat(scene.client(scene.params, x[k : k + 1], y[k : k + 1])) for k in range(4)]
    )
    lengths = np.linalg.norm(rows, axis=1)
    assert lengths.min() > 0.05
    mean = (rows * 0.05 / lengths[:, None]).mean(0)
    noise = np.stack([flat(scene.sent(x, y, seed)) - mean for seed in range(5)])
    # of the sum it is 0.002 x 0.05, of the mean of four rows a quarter
    np.testing.assert_allclose(noise.std(), 2.5e-5, rtol=0.05)
    assert abs(noise.mean()) < 2e-6


def test_what_would_be_compared_with_something_else_is_refused(tmp_path, monkeypatch):
    config = small_config(num_clients=4, clients_per_round=4, num_rounds=1, val_fraction=0.0,
                          partition="iid", model="softmax_regression", local_steps=1)  # fmt: skip
    settings = {"defences": {"a": {}}, "reconstructed": 0, "views": ()}
    audit.audit(config, tmp_path, audit.make_audit(settings))
    monkeypatch.setattr("fljax.studies.audit.launch.simulate_config", None)
    other = with_keys(copy.deepcopy(config), {"client_lr": 0.2})
    with pytest.raises(ValueError, match=r"another configuration: client_lr is 0.1 there, and 0.2"):
        audit.audit(other, tmp_path, audit.make_audit(settings))
    longer = with_keys(copy.deepcopy(config), {"num_rounds": 2})
    with pytest.raises(ValueError, match=r"another configuration: num_rounds is 1 there, and 2"):
        audit.audit(longer, tmp_path, audit.make_audit(settings))
    (tmp_path / "a" / "run" / "model" / "final.npz").unlink()
    with pytest.raises(ValueError, match="a run without its model"):
        audit.audit(config, tmp_path, audit.make_audit(settings))
    settings["defences"] = {"a b": {}, "a_b": {"client_lr": 0.3}}
    with pytest.raises(ConfigError, match="would have one folder, a_b"):
        audit.audit(config, tmp_path, audit.make_audit(settings))


def test_an_audit_goes_on_where_the_data_say_how_many_clients_there_are(tmp_path, monkeypatch):
    lines = [f"{'abc'[n % 3]},{n % 7},{n % 5},{n % 2}" for n in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["site,first,second,label", *lines]))
    config = small_config(num_clients=None, clients_per_round=3, num_rounds=1, val_fraction=0.0,
                          partition="natural", model="softmax_regression",
                          local_steps=1)  # fmt: skip
    config.dataset = "csv(client='site')"
    config.dataset_options = {"path": str(tmp_path / "rows.csv"), "label": "label"}
    settings = audit.make_audit({"reconstructed": 0, "views": ()})
    found = audit.audit(config, tmp_path / "audit", settings)
    monkeypatch.setattr("fljax.studies.audit.launch.simulate_config", None)
    assert audit.audit(config, tmp_path / "audit", settings) == found


def test_why_nothing_was_looked_at_is_said():
    settings = audit.make_audit({"shadows": 5})
    watch, skipped = _watcher(None, None, settings, [1])
    assert watch is None and set(skipped) == {"updates", "sums"}
    # models that diverged: an attack that needs more than the models' own word cannot be made
    rng, rows = np.random.default_rng(0), np.arange(30)
    targets = Targets(rows, rows % 3, rng.random((5, 30)) < 0.5, rows)
    signals = {name: np.full((5, 30, 1), np.nan) for name in ("loss", "confidence")}
    attacks = make_attacks(audit.make_audit({"attacks": ["loss", "lira"]}), experiment().task)
    evidence = Evidence({"model": signals}, {"model": {}}, {}, None)
    verdicts = judge_evidence(evidence, targets, attacks, settings, None, {})
    assert list(verdicts.judged["model"]) == ["loss"] and verdicts.scores is None
    assert verdicts.skipped["model"].startswith("`lira`: lira needs")


def test_each_defence_has_targets_of_its_own_data(tmp_path):
    config = small_config(num_clients=4, clients_per_round=4, partition="iid", val_fraction=0.0)
    settings = audit.make_audit({"shadows": 5, "targets": 20})
    owners = []
    for changes in ({}, {"num_clients": 3, "clients_per_round": 3}):
        defence = launch._defence(config, "own", changes, tmp_path, None)
        targets = launch._prepared(defence, settings).targets
        partition = defence.plain.dataset.train.partition
        owner = dict(zip(partition.all_rows(), partition.owners(), strict=True))
        assert [owner[row] for row in targets.rows] == targets.owners.tolist()
        owners.append(set(targets.owners))
    assert owners == [{0, 1, 2, 3}, {0, 1, 2}]


def test_a_budget_that_ends_before_the_last_round_is_refused():
    plain = experiment(num_rounds=50, target_epsilon=1.0, **ROWS)
    with pytest.raises(ValueError, match="is spent after"):
        shadow_group(plain, plain.dataset.train.rows()[:6], np.ones((2, 6), bool))

"""Robust and attacked runs: named in options, checked before the first round, swept and resumed."""

import json

import jax
import numpy as np
import pytest
from small_sweeps import small_config

import fljax
from fljax import algorithms
from fljax.config import ConfigError
from fljax.config.experiment import make_experiment
from fljax.core.transforms import Aggregator, Pipeline
from fljax.robustness import names
from fljax.robustness.aggregators.norm_bounding import norm_bound
from fljax.robustness.attackers import by_round, by_share
from fljax.studies.groups import from_config, grouped
from fljax.studies.study import Study, listed_trials
from fljax.training.resume import check_identity

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

CLIENTS, COHORT = 12, 8


def config_of(**values):
    settings = {"num_clients": CLIENTS, "clients_per_round": COHORT, "num_rounds": 4}
    settings |= {"partition": "iid", "val_fraction": 0.0, "weighting": "uniform", "local_steps": 2}
    return small_config(**settings | values)


def run_of(config, **options):
    made = make_experiment(config)
    given = {**made.options, "progress": False, "devices": 1, **options}
    return fljax.simulate(made.dataset, made.task, made.algorithm, **given)


def same_params(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.variables.params, other.variables.params)


def hostile(run):
    """Returns how many clients attacked in each round."""
    return run.curves["robustness/attackers"][1:].tolist()


def lines(run):
    """Returns the records of a run without what depends on the clock."""
    rows = map(json.loads, (run.directory / "metrics.jsonl").read_text().splitlines())
    clock = ("time/", "throughput/")
    return [{key: row[key] for key in row if not key.startswith(clock)} for row in rows]


def test_nobody_attacks_and_the_mean_are_plain_fedavg_bit_for_bit():
    plain = run_of(config_of())
    none = run_of(config_of(attack="none", attackers=0.25, aggregator="multi_krum(1)"))
    assert "robustness/attackers" not in none.curves
    assert "robustness/false_positives" not in none.curves
    same_params(plain, run_of(config_of(attack="none", attackers=0.25)))
    same_params(plain, run_of(config_of(aggregator="mean", worker_momentum=0.0)))


@pytest.mark.parametrize(
    ("attack", "drawn"),
    [("sign_flip", "once"), ("sign_flip", "each_round"), ("poisoned_labels", "once")],
)
def test_a_share_of_zero_makes_nobody_hostile_and_counts_so(attack, drawn):
    run = run_of(config_of(attack=attack, attackers=0, attackers_drawn=drawn))
    assert hostile(run) == [0] * 4
    same_params(run_of(config_of()), run)


def test_a_share_of_the_population_is_hostile_for_good():
    attacked = config_of(attack="sign_flip", attackers=0.25, clients_per_round=CLIENTS)
    run = run_of(attacked)
    assert hostile(run) == [3] * 4
    found = make_experiment(attacked).options["pipeline"].attackers
    clients = np.arange(CLIENTS)
    who = [found.among(clients, clients >= 0, round, jax.random.key(5)) for round in (0, 3)]
    np.testing.assert_array_equal(*who)
    for share, count in ((0.2, 2), (0.21, 3)):  # 2.4 and 2.52 of 12
        found = by_share(share, CLIENTS).among(clients, clients >= 0, 0, jax.random.key(5))
        assert found.sum() == count


def test_a_share_of_each_cohort_is_drawn_anew():
    config = config_of(attack="sign_flip", attackers=0.25, attackers_drawn="each_round")
    assert hostile(run_of(config)) == [2] * 4
    found = make_experiment(config).options["pipeline"].attackers
    clients = np.arange(COHORT)
    who = [found.among(clients, clients >= 0, round, jax.random.key(5)) for round in range(4)]
    assert len({tuple(np.asarray(each).tolist()) for each in who}) > 1
    for share, count in ((0.4, 2), (0.42, 3)):  # 2.4 and 2.52 of the 6 who are there
        found = by_round(share).among(clients, clients >= 2, 0, jax.random.key(5))
        assert found.sum() == count and not found[:2].any()


def test_named_clients_attack_in_named_rounds():
    config = config_of(
        attack="sign_flip(10.0)", attacker_clients="1, 3-4", attack_rounds="2-3",
        clients_per_round=CLIENTS,
    )  # fmt: skip
    run = run_of(config)
    assert hostile(run) == [0, 3, 3, 0]
    same = fljax.simulate(
        make_experiment(config).dataset, make_experiment(config_of()).task,
        algorithms.fedavg(0.1, weighting="uniform"),
        attack="sign_flip(10.0)", attacker_clients=[4, 1, 3], attack_rounds="2-3", num_rounds=4,
        clients_per_round=CLIENTS, local_steps=2, batch_size=16, progress=False, devices=1, lanes=1,
        matmul_precision="highest", eval_every=2,
    )  # fmt: skip
    same_params(run, same)


REFUSED = {
    "nobody": ({"attack": "sign_flip"}, "nobody is hostile"),
    "no attack": ({"attackers": 0.2}, "attackers = 0.2 has no effect without attack"),
    "twice": (
        {"attack": "alie", "attackers": 0.2, "attacker_clients": "1"},
        "both say who is hostile",
    ),
    "twice with nobody": (
        {"attack": "alie", "attackers": 0, "attacker_clients": "1"},
        "both say who is hostile",
    ),
    "unknown client": (
        {"attack": "alie", "attacker_clients": "3, 99"},
        "names client 99, and the clients are 0 to 11",
    ),
    "no number": ({"attack": "alie", "attacker_clients": "3; 4"}, "write numbers and ranges"),
    "nobody of few": (
        {"attack": "alie", "attackers": 0.01},
        "attackers = 0.01 of 12 clients are nobody",
    ),
    "nobody of a cohort": (
        {"attack": "alie", "attackers": 0.05, "attackers_drawn": "each_round"},
        "attackers = 0.05 of 8 a round are nobody",
    ),
    "nobody honest": ({"attack": "alie", "attackers": 0.96}, "nobody is honest"),
    "nobody honest named": ({"attack": "alie", "attacker_clients": "0-11"}, "nobody is honest"),
    "no such attack": (
        {"attack": "one_of(2, ('alie', 'ipm'))", "attackers": 0.2}, "at least 0 and at most 1"
    ),
    "too late": (
        {"attack": "alie", "attackers": 0.2, "attack_rounds": "5-"},
        "begin after the last of 4 rounds",
    ),
    "backwards": ({"attack": "alie", "attacker_clients": "5-3"}, "5-3 ends before it begins"),
    "no end": ({"attack": "alie", "attacker_clients": "5-"}, "names all from one on"),
    "a long range": ({"attack": "alie", "attacker_clients": "1-9999999999"}, "client 9999999999"),
    "undone": ({"attack": "sign_flip, sign_flip", "attackers": 0.2}, "has sign_flip twice"),
    "replaced": ({"attack": "alie, ipm", "attackers": 0.2}, "has alie and ipm"),
    "clusters": ({"aggregator": "median", "algorithm": "ifca"}, "as one cohort"),
    "colluders of clusters": (
        {"attack": "alie", "attackers": 0.2, "algorithm": "ifca"},
        "attack = alie must see all updates as one cohort",
    ),
    "round 0": (
        {"attack": "alie", "attackers": 0.2, "attack_rounds": "0"},
        "from 1, such as",
    ),
    "drawn": ({"attackers_drawn": "each_round"}, "has no effect without attackers"),
    "dampened": ({"worker_dampened": False}, "has no effect without worker_momentum"),
    "unknown rule": ({"aggregator": "kurm(2)"}, "Did you mean 'krum'"),
    "rows drawn each round": (
        {"attack": "poisoned_labels", "attackers": 0, "attackers_drawn": "each_round"},
        "Leave out attackers_drawn",
    ),
    "mistyped argument": (
        {"attack": "alie(of='gradient')", "attackers": 0.1}, "Did you mean 'gradients'?"
    ),
    "unknown attack": ({"attack": "aile", "attackers": 0.1}, "Did you mean 'alie'"),
    "argument": ({"aggregator": "krum(g=2)"}, "krum has no argument 'g'"),
    "two rules": ({"aggregator": "median, krum(1)"}, "only the last one makes one update of all"),
    "too few": ({"aggregator": "krum(3)"}, "3 = 9 updates"),
    "too few at a time": ({"aggregator": "median", "schedule": "fedasync"}, "there may be 1"),
    "too few that arrive": ({"aggregator": "krum(2)", "dropout": 0.3}, "there may be 5"),
    "one client": ({"aggregator": "foolsgold", "clients_per_round": 1}, "at least 2 updates"),
    "two clients": ({"aggregator": "rfa", "clients_per_round": 2}, "at least 3 updates"),
    "chosen in the round": (
        {"aggregator": "median", "algorithm": "optimal_sampling"}, "are chosen in the round"
    ),
    "scaled": (
        {"aggregator": "median", "sampler": "importance(probabilities='uniform')"},
        "compares updates of clients that count alike",
    ),
    "too few buckets": ({"aggregator": "bucketing(2), krum(1)"}, "3 = 5 updates"),
    "weights": (
        {"aggregator": "median", "weighting": "examples", "partition": "dirichlet"},
        "Set weighting = 'uniform'",
    ),
    "messages": (
        {"aggregator": "median", "algorithm": "scaffold"},
        "guards updates alone, and the clients of scaffold send 'control",
    ),
    "own rule": ({"aggregator": "median", "algorithm": "fedmgda"}, "has an aggregator"),
    "privacy": (
        {"aggregator": "median", "privacy": "gaussian(0.5)", "noise_multiplier": 1.0,
         "num_clients": 24, "sampler": "poisson"},
        "noise is enough for a sum alone",
    ),
    "one bucket": ({"aggregator": "bucketing(100), median"}, "leaves a single bucket"),
    "all of them": ({"aggregator": "multi_krum(1, m=100)"}, "m = 100 are more than 7"),
    "nobody between": ({"aggregator": "signguard(upper=0.05)"}, "must be below upper = 0.05"),
    "no filter": ({"aggregator": "dnc(2, filter=0.0)"}, "filter = 0.0 must be above 0"),
    "masks": ({"aggregator": "median", "secure_aggregation": "secure_aggregation"}, "their sum"),
    "changes": (
        {"aggregator": "median", "uplink": "top_k(0.1)", "uplink_memory": "ef21"},
        "Set uplink_memory = 'error_feedback'",
    ),
    "sketch": ({"aggregator": "median", "uplink": "fetch_sgd"}, "decodes nothing but sums"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_promises_nothing_or_has_no_effect_is_refused(case):
    values, message = REFUSED[case]
    with pytest.raises((ConfigError, ValueError), match=".*") as caught:
        run_of(config_of(**values))
    assert message in str(caught.value) and "?." not in str(caught.value)


def test_python_hears_the_same():
    made = make_experiment(config_of(partition="dirichlet"))
    options = {"num_rounds": 1, "clients_per_round": COHORT, "progress": False, "devices": 1}
    with pytest.raises(ValueError, match="Set weighting = 'uniform'"):
        fljax.simulate(
            made.dataset, made.task, algorithms.fedavg(0.1), aggregator="median", **options
        )
    with pytest.raises(ValueError, match="both given"):
        fljax.simulate(
            made.dataset, made.task, algorithms.fedavg(0.1, weighting="uniform"),
            aggregator="median", pipeline=Pipeline(aggregator=names.AGGREGATORS["median"]()),
            **options,
        )  # fmt: skip


def test_a_mixing_alone_is_a_rule_from_python_as_from_a_text():
    own = run_of(config_of(), aggregator=norm_bound(0.01), num_rounds=2)
    same_params(own, run_of(config_of(aggregator="norm_bound(0.01)"), num_rounds=2))
    assert own.curves["robustness/clipped"][-1] == 1


def test_a_rule_of_ones_own_is_checked_alike():
    def first(stack, cohort, state):
        return stack[0], state

    made = make_experiment(config_of(partition="dirichlet"))
    own = Aggregator(
        "stack", first, weighs=False, problem=lambda n: f"{n} are few" if n < 9 else None
    )
    with pytest.raises(ValueError, match="8 are few"):
        fljax.simulate(
            made.dataset, made.task, algorithms.fedavg(0.1, weighting="uniform"), aggregator=own,
            num_rounds=1, clients_per_round=COHORT, progress=False, devices=1,
        )  # fmt: skip


def test_cohorts_that_may_become_too_small_are_warned_of():
    config = config_of(aggregator="krum(2)", sampler="poisson", num_clients=40, num_rounds=2)
    with pytest.warns(UserWarning, match="3 = 7 updates"):
        run_of(config)


def test_compressed_noised_messages_meet_a_robust_rule():
    config = config_of(
        aggregator="trimmed_mean(0.25)", attack="alie", attackers=0.25, worker_momentum=0.5,
        uplink="qsgd(8)", uplink_memory="error_feedback", privacy="local_gaussian(0.5)",
        noise_multiplier=0.1, delta=1e-3,
    )  # fmt: skip
    run = run_of(config)
    assert np.isfinite(run.curves["eval/test/loss"]).any()


STATEFUL = {
    "aggregator": "centered_clipping(0.1)", "worker_momentum": 0.9, "attack": "mimic",
    "attackers": 0.25,
}  # fmt: skip


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = run_of(config_of(**STATEFUL), workdir=tmp_path / "whole")
    run_of(config_of(**STATEFUL, num_rounds=2), workdir=tmp_path / "part", checkpoint_every=1)
    resumed = run_of(config_of(**STATEFUL), workdir=tmp_path / "part", resume=True)
    same_params(whole, resumed)
    assert lines(whole) == lines(resumed)
    with pytest.raises(ValueError, match="aggregator"):
        other = STATEFUL | {"aggregator": "median"}
        run_of(config_of(**other, num_rounds=6), workdir=tmp_path / "part", resume=True)


def test_unset_attackers_are_the_none_of_older_checkpoints():
    check_identity({"attackers": None}, {"attackers": 0.0}, "it")
    for share in (None, 0.0):
        with pytest.raises(ValueError, match="attackers was"):
            check_identity({"attackers": 0.2}, {"attackers": share}, "it")


def groups_of(config, **axes):
    study = Study(axes=axes, seeds=(0, 1))
    return grouped(listed_trials(study), from_config(config))


def test_numbers_of_rules_and_attacks_are_arguments_of_one_program():
    config = config_of(attack="alie(z=1.0)", attackers=0.25, aggregator="krum(1)")
    (group,) = groups_of(config, attackers=[0, 0.1, 0.25])
    assert {inputs.hparams["attackers"] for inputs in group.inputs.values()} == {0, 0.1, 0.25}
    assert len(groups_of(config, attack=["alie(z=1.0)", "alie(z=2.0)"])) == 1
    assert len(groups_of(config, aggregator=["krum(1)", "krum(2)"])) == 1
    assert len(groups_of(config, aggregator=["krum(1)", "median"])) == 2
    with pytest.raises(ValueError, match="3 = 9 updates"):
        groups_of(config, aggregator=["krum(1)", "krum(3)"])

"""FLTrust: updates that agree with the server's own count, and at its length."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import reference
import toy
from contracts import harness as rounds
from robustness.harness import applied
from robustness.reference_fltrust import fltrust as by_hand

from fljax import algorithms
from fljax.core.transforms import Attackers, Pipeline
from fljax.engine.plan.round_plan import job_table
from fljax.robustness.aggregators.fltrust import TRUST, fltrust
from fljax.robustness.aggregators.mixing import bucketing, chain
from fljax.robustness.reports import REJECTIONS
from fljax.training.divergence import check_diverged
from fljax.training.federation import RoundOptions, build
from fljax.training.round_records import LinkSpeeds, training_record
from fljax.training.totals import RoundTotals

RULE = fltrust(root=6)
CLIENTS = np.array([6, 2, 0, 5, 1, 3])  # the root comes first here
RNG = np.random.default_rng(4)
STACK = RNG.standard_normal((6, 5))
STACK[1:4] += 2 * STACK[0]  # some who agree with it


def expected(stack, valid):
    server = stack[0] if valid[0] else None
    return by_hand([row for row, there in zip(stack[1:], valid[1:], strict=True) if there], server)


def variants():
    yield "plain", STACK, np.ones(6, bool)
    yield "others", STACK, np.array([1, 0, 1, 1, 0, 1], bool)
    yield "root lost", STACK, np.array([0, 1, 1, 1, 1, 1], bool)
    yield "root alone", STACK, np.array([1, 0, 0, 0, 0, 0], bool)
    yield "nobody agrees", np.r_[STACK[:1], -STACK[:1].repeat(5, 0)], np.ones(6, bool)
    yield "all equal", STACK[:1].repeat(6, 0), np.ones(6, bool)
    yield "zeros", STACK * np.array([1, 0, 1, 0, 1, 1])[:, None], np.ones(6, bool)
    yield "root of zeros", STACK * np.array([0, 1, 1, 1, 1, 1])[:, None], np.ones(6, bool)


@pytest.mark.parametrize("devices", [1, 2])
def test_as_by_hand_on_any_number_of_devices(devices):
    for name, stack, valid in variants():
        found = applied(RULE, stack, valid, devices=devices, clients=CLIENTS)
        value, scores = expected(stack, valid)
        np.testing.assert_allclose(found.value, value, rtol=1e-9, atol=1e-14, err_msg=name)
        trust, weight = found.reports["robustness/trust_honest"]
        judged = valid[1:] & valid[0]
        np.testing.assert_array_equal(weight, np.r_[0, judged], err_msg=name)
        if valid[0]:
            np.testing.assert_allclose(trust[1:][judged], scores, atol=1e-12, err_msg=name)


def test_neither_places_nor_weights_count():
    order, valid = RNG.permutation(6), np.array([1, 1, 1, 0, 1, 1], bool)
    plain = applied(RULE, STACK, valid, clients=CLIENTS)
    moved = applied(
        RULE, STACK[order], valid[order], clients=CLIENTS[order], weights=np.arange(1.0, 7)
    )
    np.testing.assert_allclose(moved.value, plain.value, rtol=1e-12)
    for name, (value, weight) in plain.reports.items():
        np.testing.assert_allclose(moved.reports[name][0], value[order], atol=1e-14)
        np.testing.assert_array_equal(moved.reports[name][1], weight[order])


def test_lengths_do_not_count_however_large():
    value, _ = expected(STACK, np.ones(6, bool))
    for most in (1e30, 3e38 / abs(STACK).max()):
        stack = STACK * np.array([1, most, 1e-6, 1, most, 1])[:, None]
        with jax.enable_x64(False):
            found = applied(RULE, stack.astype(np.float32), clients=CLIENTS).value
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


def test_reports_who_is_trusted():
    stack = STACK.copy()
    stack[4], stack[5] = -STACK[0], STACK[0]
    hostile = np.array([0, 0, 0, 0, 1, 1], bool)
    found = applied(RULE, stack, clients=CLIENTS, attackers=hostile).reports
    assert set(found) == {*TRUST, *REJECTIONS} == set(RULE.reports)
    means = {name: value.sum() / weight.sum() for name, (value, weight) in found.items()}
    _, scores = expected(stack, np.ones(6, bool))
    assert means["robustness/trust_honest"] == pytest.approx(np.mean(scores[:3]))
    assert means["robustness/trust_attackers"] == pytest.approx(0.5)
    assert [means[name] for name in REJECTIONS] == pytest.approx([0.2, 0, 0.5])


def test_the_rule_needs_rows_of_the_server():
    with pytest.raises(ValueError, match="root_rows, such as 100"):
        fltrust()
    with pytest.raises(ValueError, match="root = -1"):
        fltrust(-1)
    with pytest.raises(ValueError, match="judges updates by the server's own"):
        chain(bucketing(2), RULE)
    assert chain(RULE).root == RULE.root


ROOT, HOSTILE = len(toy.SIZES), (0, 3, 6)
COHORTS = [[0, 1, 2, 3], [6, 8, 5], [7, 3, 2]]
LOST = 1  # the round in which the server's update is


def parts():
    (root,) = toy.clients((14,), seed=3)
    return [*toy.clients(), root]


def rooted():
    return dataclasses.replace(toy.dataset(parts()), root=ROOT)


def pipeline(root=ROOT):
    def among(clients, present, round, key):
        return jax.numpy.isin(clients, jax.numpy.array(HOSTILE)) & present

    return Pipeline(aggregator=fltrust(root), attackers=Attackers(among))


def options(layout, **more):
    named = {"batch_size": 4, "shuffle": False, "clients_per_round": 4, "num_rounds": 3}
    return RoundOptions(**{**named, "pipeline": pipeline(), **layout._asdict(), **more})


def flat(tree):
    return np.concatenate([tree["b"].ravel(), tree["w"].ravel()])


def loop():
    """Returns the parameters, and each round's trust scores by client."""
    params, told = toy.initial_params(), []
    for round, cohort in enumerate(COHORTS):
        changes = {}
        for client in [*cohort, ROOT]:
            x, y = parts()[client]
            if len(y):
                trained, *_ = reference.local_sgd(params, x, y, 0.2, 4, 1)
                changes[client] = flat(reference.combine(np.subtract, trained, params))
        server = changes.pop(ROOT)
        value, scores = by_hand(list(changes.values()), None if round == LOST else server)
        told.append(dict(zip(changes, scores, strict=True)))
        params = {
            "b": params["b"] + 0.9 * value[: toy.CLASSES],
            "w": params["w"] + 0.9 * value[toy.CLASSES :].reshape(params["w"].shape),
        }
    return params, told


@pytest.mark.parametrize("layout", rounds.LAYOUTS)
def test_rounds_with_a_root_of_their_own(layout):
    params, told = loop()
    spec = algorithms.fedavg(0.2, server_lr=0.9)
    federation = build(rooted(), toy.softmax_task(), spec, options(layout, cohorts=COHORTS))
    tables = [
        job_table([*cohort, ROOT], accepted=[True] * len(cohort) + [round != LOST])
        for round, cohort in enumerate(COHORTS)
    ]
    run = rounds.drive(federation, tables)
    toy.assert_close(run.params, params, 1e-9)
    totals = RoundTotals()
    for round, scores in enumerate(told):
        facts, stats = run.facts[round], run.stats[round]
        record = training_record(facts, stats, totals, LinkSpeeds(), root=ROOT)
        # the server's own client is none, and sends nothing
        assert record["train/clients"] == len(scores) and record["train/clients_lost"] == 0
        assert record["comm/round_uplink_bytes"] == 28 * 8 * len(scores)
        if round == LOST:
            assert not {*TRUST, *REJECTIONS} & set(record)
            continue
        by_side = {
            name: [score for client, score in scores.items() if (client in HOSTILE) == hostile]
            for name, hostile in zip(TRUST, (False, True), strict=True)
        }
        for name, each in by_side.items():
            assert record[name] == pytest.approx(np.mean(each), rel=1e-9)
        rejected = np.mean([score == 0 for score in scores.values()])
        assert record["robustness/rejected"] == pytest.approx(rejected)


def test_samplers_draw_clients_and_the_root_comes_to_all_of_them():
    federation = build(
        rooted(), toy.softmax_task(), algorithms.fedavg(0.2), options(rounds.ONE, num_rounds=8)
    )
    for _, facts in federation.plans(0, 8):
        clients = facts.clients[facts.clients >= 0]
        assert (clients == ROOT).sum() == 1 and len(set(clients)) == len(clients) <= 5


def test_root_rows_and_rules_go_together():
    task, spec = toy.softmax_task(), algorithms.fedavg(0.2)
    for dataset, links, said in (
        (rooted(), Pipeline(), "has root rows, and the aggregator would count them"),
        (rooted(), pipeline(root=3), "has client 9 for them"),
        (toy.dataset(toy.clients()), pipeline(), "has no root rows"),
    ):
        with pytest.raises(ValueError, match=said):
            build(dataset, task, spec, options(rounds.ONE, pipeline=links))
    with pytest.raises(ValueError, match="names client 9, but the population has clients 0 to 8"):
        build(rooted(), task, spec, options(rounds.ONE, cohorts=[[1, ROOT]]))


def test_it_is_said_when_the_server_own_update_is_not_finite():
    record = {"round": 3, "train/clients": 2, "train/clients_nonfinite": 0}
    with pytest.warns(
        UserWarning, match="Round 3: the server's own update on its root rows is not"
    ):
        check_diverged(record, np.array([ROOT]), SimpleNamespace(dataset=rooted()))

"""Survival: concordance and partial likelihood against loops over pairs and risk sets."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fljax
from fljax import data, privacy, tasks
from fljax.core import metrics
from fljax.tasks.concordance import TIES, cox_loss

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

IDENTITY = (lambda key: {}, lambda params, x: x)
EXAMPLES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 1), st.sampled_from([-2.0, 0.0, 0.5, 1e30])),
    max_size=14,
)


def by_pairs(times, events, risks):
    """Returns Harrell's concordance: each pair that lifelines compares, one by one."""
    agree = pairs = 0
    for first in range(len(times)):
        for other in range(len(times)):
            outlives = times[other] > times[first]
            outlives |= times[other] == times[first] and not events[other]
            if first != other and events[first] and outlives:
                pairs += 1
                agree += (risks[first] > risks[other]) + (risks[first] == risks[other]) / 2
    return agree / pairs if pairs else math.nan


def by_risk_sets(times, events, risks, ties):
    """Returns the terms of the partial likelihood of those with an event, by their definition."""
    found, seen = [], {}
    risks = np.float64(risks)
    for time, event, risk in zip(times, events, risks, strict=True):
        if not event:
            continue
        whole = np.exp(risks[times >= time]).sum()
        tied = np.exp(risks[(times == time) & (events > 0)])
        before = seen[time] = seen.get(time, -1) + 1
        if ties == "efron":
            whole -= before / len(tied) * tied.sum()
        found.append(np.log(whole) - risk)
    return np.array(found)


@settings(max_examples=40)
@given(examples=EXAMPLES)
def test_concordance_counts_pairs(examples):
    columns = [np.array(column) for column in zip(*examples, strict=True)] or [np.zeros(0)] * 3
    np.testing.assert_allclose(tasks.concordance(*columns), by_pairs(*columns), rtol=1e-12)


def test_concordance_of_many_is_that_of_all_pairs():
    generator = np.random.default_rng(0)
    times, events = generator.integers(0, 200, 1500), generator.integers(0, 2, 1500)
    risks = generator.integers(0, 300, 1500).astype(np.float32)
    outlives = (times > times[:, None]) | ((times == times[:, None]) & (events == 0))
    compared = outlives & (events > 0)[:, None]
    agrees = (risks[:, None] > risks) + (risks[:, None] == risks) / 2
    expected = agrees[compared].mean()
    assert tasks.concordance(times, events, risks) == pytest.approx(expected, rel=1e-12)
    assert math.isnan(tasks.concordance(times, events, np.where(times == 3, np.nan, risks)))


def batch_of(seed, rows=9):
    generator = np.random.default_rng(seed)
    y = {"time": generator.integers(1, 5, rows), "event": generator.integers(0, 2, rows)}
    x = generator.standard_normal((rows, 1)).astype(np.float32)
    mask = np.arange(rows) < rows - 2
    x[~mask], y["time"][~mask], y["event"][~mask] = np.nan, 99, 1
    return {"x": x, "y": y, "mask": mask}


@pytest.mark.parametrize("ties", TIES)
def test_losses_are_those_of_risk_sets(ties):
    batch, task = batch_of(1), tasks.survival(IDENTITY, ties=ties)
    real = batch["mask"]
    times, events, risks = (
        each[real] for each in (batch["y"]["time"], batch["y"]["event"], batch["x"][:, 0])
    )
    (value, weight), _ = jax.jit(task.loss, static_argnums=5)({}, {}, {}, batch, None, True)
    np.testing.assert_array_equal(weight, np.r_[events, 0, 0])
    terms = by_risk_sets(times, events, risks, ties)
    np.testing.assert_allclose(value[weight > 0], terms, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(value)[weight == 0], 0)
    assert cox_loss(times, events, risks, ties) == pytest.approx(terms.mean(), rel=1e-12)
    # far beyond where exp overflows, and of other order
    order = np.random.default_rng(2).permutation(len(times))
    far = [times[order], events[order], np.float64(risks)[order] + 1e4]
    assert cox_loss(*far, ties) == pytest.approx(terms.mean(), rel=1e-9)


def test_gradients_of_batches_without_events_are_zero():
    task = tasks.survival((lambda key: 1.0, lambda params, x: params * x))
    batch = batch_of(3)
    total = jax.jit(
        jax.grad(lambda scale, batch: task.loss(scale, {}, {}, batch, None, True)[0][0].sum())
    )
    assert np.isfinite(total(1.0, batch)) and total(1.0, batch) != 0
    batch["y"]["event"][:] = 0
    assert total(1.0, batch) == 0


def test_evaluations_do_not_depend_on_batches():
    task, batches = tasks.survival(IDENTITY), [batch_of(4), batch_of(5)]
    parts = [jax.device_get(jax.jit(task.measure)({}, {}, {}, each).sums) for each in batches]
    sums = {
        name: metrics.Sum(*(np.concatenate(each) for each in zip(*found, strict=True)))
        for name, found in ((name, [part[name] for part in parts]) for name in parts[0])
    }
    real = np.concatenate([each["mask"] for each in batches])
    times, events = (
        np.concatenate([each["y"][name] for each in batches])[real] for name in ("time", "event")
    )
    risks = np.concatenate([each["x"][:, 0] for each in batches])[real]
    owners = np.arange(18) % 3
    found = metrics.global_metrics(task.metrics, sums)
    expected = {
        "concordance": by_pairs(times, events, risks),
        "loss": by_risk_sets(times, events, risks, "breslow").mean(),
    }
    assert found == pytest.approx(expected, rel=1e-12)
    table = metrics.client_metrics(task.metrics, sums, owners, 3)
    for row, client in enumerate(table["client"]):
        own = [each[owners[real] == client] for each in (times, events, risks)]
        assert table["weight"][row] == own[1].sum()
        np.testing.assert_allclose(table["concordance"][row], by_pairs(*own), rtol=1e-12)


def test_what_does_not_fit_is_refused():
    batch, task = batch_of(0), tasks.survival(IDENTITY)
    for change, message in (
        ({"y": batch["y"]["time"]}, r"these data have int32\[9\]"),
        ({"y": {"time": batch["y"]["time"], "died": batch["y"]["event"]}}, "have died, time"),
        ({"x": np.ones((9, 2), np.float32)}, r"shape \[9, 2\]; \[9\] is wanted.*hazard"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(task.measure, {}, {}, {}, batch | change)
    with pytest.raises(ValueError, match="ties = 'exact'"):
        tasks.survival(IDENTITY, ties="exact")


def test_hazards_are_learned_by_name_and_judged_for_clients_and_groups():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((90, 3)).astype(np.float32)
    times = generator.exponential(np.exp(-2 * x[:, 0]))
    censored = generator.exponential(2.0, 90)
    y = {"time": np.minimum(times, censored), "event": (times <= censored).astype(np.int32)}
    first, rest = slice(0, 60), slice(60, 90)
    hospitals = data.from_arrays(
        x[first], {name: values[first] for name, values in y.items()}, kind="targets",
        client_ids=np.arange(60) % 4, x_test=x[rest],
        y_test={name: values[rest] for name, values in y.items()},
        test_client_ids=np.arange(30) % 4, groups={"country": ["a", "a", "b", "b"]},
    )  # fmt: skip
    run = fljax.simulate(
        hospitals, "softmax_regression", "fedavg(client_lr=0.5)", task="survival(ties='efron')",
        num_rounds=8, clients_per_round=4, batch_size=0, eval_every=8, eval_batch_size=7,
        eval_clients=-1, progress=False,
    )  # fmt: skip
    (layer,) = run.variables.params["layers"].values()
    risks = np.float32(x[rest] @ layer["kernel"])[:, 0]
    times, events = np.float32(y["time"][rest]), y["event"][rest]
    assert run.curves["eval/test/concordance"][-1] == pytest.approx(by_pairs(times, events, risks))
    assert run.curves["eval/test/concordance"][-1] > 0.7
    expected = by_risk_sets(times, events, risks, "efron").mean()
    assert run.curves["eval/test/loss"][-1] == pytest.approx(expected, rel=1e-5)
    for client in range(4):
        own = by_pairs(*(each[client::4] for each in (times, events, risks)))
        np.testing.assert_allclose(run.client_metrics["concordance"][client], own, rtol=1e-12)
    in_b = np.arange(30) % 4 > 1
    found = run.curves["eval/groups/country/b/concordance"][-1]
    assert found == pytest.approx(by_pairs(*(each[in_b] for each in (times, events, risks))))


def test_events_that_are_no_events_are_refused():
    x, y = np.ones((6, 2), np.float32), {"time": np.arange(6), "event": [0, 1, 2, 0, 1, 1]}
    dataset = data.from_arrays(x, y, kind="targets", client_ids=[0, 0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match=r"an event is 2 \(row 2\)"):
        fljax.simulate(
            dataset, "softmax_regression", task="survival", num_rounds=1, clients_per_round=2
        )


def test_examples_that_are_compared_are_not_hidden_one_by_one():
    y = {"time": np.arange(6), "event": np.ones(6, int)}
    dataset = data.from_arrays(
        np.ones((6, 2), np.float32), y, kind="targets", client_ids=[0, 0, 0, 1, 1, 1]
    )
    with pytest.raises(ValueError, match="the task 'survival' compares the examples of a batch"):
        fljax.simulate(
            dataset, "softmax_regression", task="survival", num_rounds=1, clients_per_round=2,
            local_steps=1, privacy=privacy.dpsgd(1.0, 1.0),
        )  # fmt: skip


def test_times_and_events_may_be_columns():
    batch, task = batch_of(6), tasks.survival(IDENTITY)
    columns = np.stack([batch["y"]["time"], batch["y"]["event"]], 1).astype(np.float32)
    measure = jax.jit(task.measure)
    found = [measure({}, {}, {}, {**batch, "y": y}).sums for y in (batch["y"], columns)]
    jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, found))
    dataset = data.from_arrays(
        batch["x"][:6], columns[:6] + 1, kind="targets", client_ids=[0, 0, 0, 1, 1, 1]
    )
    with pytest.raises(ValueError, match=r"an event is 2 \(row"):
        fljax.simulate(
            dataset, "softmax_regression", task="survival", num_rounds=1, clients_per_round=2
        )

"""Metrics against plain loops, with sums that 32 bits cannot hold, and what is said of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.core import metrics
from fljax.core.metrics import ACCURACY, LOSS, Metric
from fljax.core.spread import SPREAD, lorenz

BOTH = (ACCURACY, LOSS)


def test_without_targets_metrics_are_nan():
    none = np.zeros(3, np.int32)
    result = metrics.global_metrics(BOTH, {"loss": (none, none), "accuracy": (none, none)})
    assert result.keys() == {"accuracy", "loss"}
    assert all(math.isnan(value) for value in result.values())


def test_global_metrics_are_means_over_targets():
    weight = np.array([4, 1, 0], np.int32)
    sums = {
        "loss": (np.array([3.0, 1.0, 0.0], np.float32), weight),
        "accuracy": (np.array([1, 1, 0], np.int32), weight),
    }
    assert metrics.global_metrics(BOTH, sums) == {"loss": 0.8, "accuracy": 0.4}
    assert metrics.global_metrics([LOSS], sums) == {"loss": 0.8}


def test_global_sums_are_exact_where_32_bits_are_not():
    largest = np.iinfo(np.int32).max
    # float32 cannot hold 2^24 + 1, nor int32 the sum of three largest numbers
    loss = np.array([2**24, 1, 1], np.float32)
    weight = np.full(3, largest, np.int32)
    correct = np.array([largest, 1, 0], np.int32)
    sums = {"loss": (loss, weight), "accuracy": (correct, weight)}
    result = metrics.global_metrics(BOTH, sums)
    assert result["loss"] == (2**24 + 2) / (3 * largest)
    assert result["accuracy"] == (largest + 1) / (3 * largest)


@given(
    st.integers(1, 6).flatmap(
        lambda num_clients: st.tuples(
            st.just(num_clients),
            st.lists(
                st.tuples(
                    st.integers(0, num_clients - 1), st.integers(0, 3), st.floats(0, 9, width=32)
                ),
                min_size=1,
            ),
        )
    )
)
def test_client_metrics_equal_a_loop_over_clients(case):
    num_clients, rows = case
    owners, weight, loss = (np.array(column) for column in zip(*rows, strict=True))
    correct = weight // 2
    sums = {"loss": (loss, weight), "accuracy": (correct, weight)}
    result = metrics.client_metrics(BOTH, sums, owners, num_clients)
    position = 0
    for client in range(num_clients):
        mine = [number for number in range(len(rows)) if owners[number] == client]
        targets = sum(int(weight[number]) for number in mine)
        if not targets:
            assert client not in result["client"]
            continue
        assert result["client"][position] == client
        assert result["examples"][position] == len(mine)
        assert result["weight"][position] == targets
        expected = math.fsum(loss[number] for number in mine) / targets
        assert result["loss"][position] == pytest.approx(expected, rel=1e-12)
        hits = sum(int(correct[number]) for number in mine)
        assert result["accuracy"][position] == hits / targets
        position += 1
    assert all(len(column) == position for column in result.values())
    assert all(result[name].dtype == np.int64 for name in ("client", "examples", "weight"))


def test_a_diverged_loss_stays_with_its_client():
    sums = {"loss": (np.array([np.nan, 1.0]), np.ones(2, np.int32))}
    result = metrics.client_metrics([LOSS], sums, np.array([0, 2]), 3)
    np.testing.assert_array_equal(result["client"], [0, 2])
    np.testing.assert_array_equal(result["loss"], [np.nan, 1.0])


def spread(values, metric=ACCURACY, losses=0.0):
    table = {"loss": np.broadcast_to(losses, np.shape(values)), metric.name: values}
    return metrics.client_summary(table, metric)


def test_client_summary_describes_the_spread():
    accuracy = np.arange(21)[::-1] / 20
    shares = accuracy / accuracy.sum()
    variance = sum((value / 20 - 0.5) ** 2 for value in range(21)) / 21
    expected = {
        "mean": 0.5,
        "std": math.sqrt(variance),
        "p10": 0.1,
        "p50": 0.5,
        "p90": 0.9,
        "worst": 0.05,  # the mean of the lowest 3 of 21: 0, 0.05 and 0.1
        "best": 0.95,
        "variance": variance,
        "jain": 0.25 / (0.25 + variance),
        "gini": sum(abs(a - b) for a in shares for b in shares) / (2 * 21),
        "entropy": -sum(share * math.log(share) for share in shares if share) / math.log(21),
    }
    assert spread(accuracy) == pytest.approx(expected)
    turned = expected | {"worst": 0.95, "best": 0.05}
    assert spread(accuracy, LOSS, accuracy) == pytest.approx(turned)
    assert lorenz(accuracy)[1][10] == pytest.approx(sum(range(10)) / sum(range(21)))


def test_client_summary_of_one_client_and_of_none():
    alone = spread(np.array([0.25], np.float32))
    even = {"std": 0, "variance": 0, "jain": 1, "gini": 0, "entropy": 1}
    assert alone == dict.fromkeys(SPREAD, 0.25) | even
    nobody = spread(np.array([]))
    assert nobody.keys() == alone.keys()
    assert all(math.isnan(value) for value in nobody.values())


def test_indices_of_shares_are_not_defined_below_zero():
    found = spread(np.array([-1.0, 2.0]))
    assert found["variance"] == 2.25
    assert all(math.isnan(found[name]) for name in ("jain", "gini", "entropy"))


def test_clients_without_a_value_are_left_out_of_the_spread_and_diverged_ones_are_not():
    skill = Metric("skill")
    values = np.array([0.5, np.nan, 1.0])
    assert spread(values, skill)["mean"] == 0.75
    diverged = spread(values, skill, [0, np.nan, 0])
    assert math.isnan(diverged["mean"]) and math.isnan(diverged["worst"])


def test_an_infinite_value_is_a_value():
    perplexity = Metric("perplexity", "lower")
    found = spread(np.array([2.0, np.inf, 3.0]), perplexity, [0.7, 800.0, 1.1])
    assert found["mean"] == found["worst"] == np.inf and found["p50"] == 3


def test_a_metric_may_follow_from_several_sums_and_from_histograms():
    """The median's bin and a coefficient of variation, of all rows, of clients and of groups."""
    generator = np.random.default_rng(0)
    x, owners = generator.random(40), generator.integers(0, 5, 40)
    owners[owners == 3] = 0
    one, bins = np.ones(40, np.int32), (x[:, None] < (np.arange(8) + 1) / 8).astype(np.int32)
    sums = {"loss": (x, one), "square": (x**2, one), "below": (bins, one)}

    def variation(sums):
        mean = sums["loss"].value / sums["loss"].weight
        return np.sqrt(sums["square"].value / sums["square"].weight - mean**2) / mean

    def median_bin(sums):
        below, count = sums["below"]
        return np.argmax(2 * below >= np.asarray(count)[..., None], -1)

    described = (Metric("variation", "lower", variation), Metric("median", value=median_bin))
    everything = metrics.global_metrics(described, sums)
    clients = metrics.client_metrics(described, sums, owners, 5)
    groups = metrics.group_metrics(described, sums, owners, np.array(["a", "b", "a", "c", "b"]))
    assert clients["client"].tolist() == [0, 1, 2, 4]
    assert groups.keys() == {"a", "b"}
    cases = [(everything, x)]
    cases += [
        ({name: clients[name][place] for name in everything}, x[owners == client])
        for place, client in enumerate(clients["client"])
    ]
    cases += [(groups["a"], x[np.isin(owners, (0, 2))]), (groups["b"], x[np.isin(owners, (1, 4))])]
    for found, rows in cases:
        assert found["variation"] == pytest.approx(np.std(rows) / np.mean(rows), rel=1e-9)
        assert found["median"] == np.sort(rows)[-(-len(rows) // 2) - 1] // 0.125


def test_counts_make_metrics_of_all_rows_alone():
    share = Metric("share", value=lambda counts: counts["hits"] / counts["all"], of_counts=True)
    sums, owners = {"loss": (np.ones(3), np.ones(3, int))}, np.array([0, 0, 1])
    counts = {"hits": np.int32(1), "all": np.int32(4)}
    assert metrics.global_metrics([share, LOSS], sums, counts) == {"share": 0.25, "loss": 1.0}
    assert metrics.global_metrics([share, LOSS], sums) == {"loss": 1.0}
    assert "share" not in metrics.client_metrics([share, LOSS], sums, owners, 2)
    assert metrics.group_metrics([share, LOSS], sums, owners, np.array([7, 7])) == {7: {"loss": 1}}


def test_what_is_written_of_metrics_is_read_back():
    skill = Metric("skill", "higher", lambda sums: 0.0, label="Skill", unit="%")
    read = metrics.from_plain(metrics.plain((skill, LOSS)))
    assert read == (skill._replace(value=None), LOSS)
    assert [metric.title for metric in read] == ["Skill (%)", "Loss"]
    assert metrics.from_plain(None) == (ACCURACY, LOSS)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("eval/val/skill", "skill"),
        ("eval/groups/hospital/3/loss", "loss"),
        ("eval/clients/worst", "skill"),
        ("train/loss", "loss"),
        ("eval/val/other", None),
        ("train/skill", None),
        ("skill", None),
    ],
)
def test_a_key_of_records_tells_its_metric(key, name):
    found = metrics.metric_of(key, (Metric("skill"), LOSS))
    assert (found and found.name) == name

"""The benchmark measures what it says; its figures are never judged here."""

import json

import numpy as np
import pytest

from fljax.benchmarks import measure as benchmark


@pytest.fixture(scope="module")
def result():
    tiny = benchmark.WORKLOADS["softmax_100"]._replace(population=12, cohort=5, shape=(7,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(benchmark.WORKLOADS, "tiny", tiny)
        return benchmark.run("tiny", rounds=3, devices=2)


def test_figures_belong_together(result):
    assert result["seconds_min"] <= result["seconds_median"] <= result["seconds_max"]
    assert result["clients_per_second"] == pytest.approx(5 / result["seconds_median"])
    assert 0 < result["utilization"] <= 1
    assert result["execution"]["devices"] == 2
    assert result["versions"]["jax"] and result["date"]


def test_a_table_and_a_comparison(result, tmp_path):
    assert result["title"] in benchmark.table([result])
    slower = {**result, "seconds_median": 2 * result["seconds_median"]}
    for name, one in {"before": slower, "after": result}.items():
        (tmp_path / name).write_text(json.dumps([one]))
    assert benchmark.compare(tmp_path / "before", tmp_path / "after").endswith("| 2.00 |")


@pytest.mark.parametrize(
    ("sizes", "mean", "low", "high"),
    [(benchmark.power_law, 60, 10, 1000), (benchmark.writers, 200, 10, 500)],
)
def test_sizes_are_those_of_the_workload(sizes, mean, low, high):
    drawn = sizes(np.random.default_rng(0), 20_000)
    assert drawn.min() >= low and drawn.max() <= high
    assert drawn.mean() == pytest.approx(mean, rel=0.15)

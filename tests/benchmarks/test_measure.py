"""The benchmark measures what it says; its figures are never judged here."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax.benchmarks import machine, measure, workload_table
from fljax.benchmarks.workloads import (
    SWEEPS,
    WORKLOADS,
    equal,
    find,
    flops_per_example,
    generate,
    power_law,
    roles,
    writers,
)

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


@pytest.fixture(scope="module")
def result():
    tiny = dataclasses.replace(WORKLOADS["softmax_100"], population=12, cohort=5, shape=(7,))
    figures = measure.run("tiny", tiny, rounds=3, devices=2)
    return measure.with_share_of_peak(figures, machine.matrix_peak([256], repeats=1))


def test_figures_belong_together(result):
    assert result["seconds_min"] <= result["seconds_median"] <= result["seconds_max"]
    assert result["clients_per_second"] == pytest.approx(5 / result["seconds_median"])
    assert 0 < result["utilization"] <= 1 and 0 < result["plan_seconds"]
    assert 0 < result["compile_seconds"] and 0 <= result["calibration_seconds"]
    assert result["execution"]["devices"] == 2
    assert result["versions"]["jax"] and result["date"]
    # 7 features, 10 classes, no gradient of the inputs
    assert result["flops_per_second"] == pytest.approx(280 * result["examples_per_second"])
    share = result["flops_per_second"] / result["peak_flops"]
    assert result["share_of_peak"] == pytest.approx(share)


def test_a_table_says_what_failed(result):
    failed = {"workload": "other", "title": "another one", "error": "out of memory"}
    text = workload_table.table([failed, result])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert "| another one | *not measured*: out of memory |" in text
    assert f"| {result['title']} |" in text and result["versions"]["jax"] in text
    heads, cells = ([cell.strip() for cell in rows[place].split("|")] for place in (0, -1))
    assert cells[heads.index("plan s")] == f"{result['plan_seconds']:.4f}"


def test_a_comparison_warns_and_keeps_what_only_one_file_has(result, tmp_path):
    slower = {**result, "seconds_median": 2 * result["seconds_median"], "processor": "an abacus"}
    gone = {**slower, "workload": "gone", "title": "gone since"}
    new = {**result, "workload": "new", "title": "new one"}
    for name, results in {"before": [slower, gone], "after": [result, new]}.items():
        (tmp_path / name).write_text(json.dumps(results))
    text = workload_table.compare(tmp_path / "before", tmp_path / "after")
    assert "Warning: processor differs, an abacus before and" in text
    assert text.count("Warning") == 1
    rows = {line.split("|")[1].strip(): line.split(" | ") for line in text.splitlines()[3:]}
    assert rows[result["title"]][3] == "2.00"
    assert rows["gone since"][2:4] == rows["new one"][1:2] + [""] == ["*not measured*", ""]
    same = workload_table.compare(tmp_path / "after", tmp_path / "after")
    assert "Warning" not in same and same.count("1.00") == 2


def test_the_clock_counts_compilation_alone():
    function = jax.jit(lambda x: jnp.sin(x) @ x)
    x = jnp.ones((3, 3))
    with machine.compilation_clock() as compiled:
        assert compiled() == 0
        function(x)
        first = compiled()
        function(x)
        assert first > 0 and compiled() == first


@pytest.mark.parametrize(
    ("sizes", "mean", "low", "high"),
    [(power_law, 60, 10, 1000), (writers, 200, 10, 500), (roles, 100, 10, 250)],
)
def test_sizes_are_those_of_the_workload(sizes, mean, low, high):
    drawn = sizes(np.random.default_rng(0), 20_000)
    assert drawn.min() >= low and drawn.max() <= high
    assert drawn.mean() == pytest.approx(mean, rel=0.15)


@pytest.mark.parametrize(
    ("name", "million"),
    # forward 24.0, twice as much backward, without the gradient of the images: 71.6
    [("emnist_cnn_10", 71.6), ("cifar10_cnn_50", 99.5), ("softmax_1000", 0.03136)],
)
def test_operations_are_those_of_direct_convolutions(name, million):
    assert flops_per_example(WORKLOADS[name]) == pytest.approx(1e6 * million, rel=1e-3)


def test_large_populations_share_their_examples():
    data = generate(find("population_100000"))
    assert data.num_clients == 100_000 and data.train.examples.num_examples == 50_000
    assert data.train.partition.num_rows == 5_000_000


def test_text_is_predictable():
    tiny = dataclasses.replace(WORKLOADS["shakespeare_10"], population=3, sizes=equal(40))
    data = generate(tiny)
    x, y = (data.train.examples.arrays[name] for name in "xy")
    assert x.min() >= 1 and x.max() < 90 and np.array_equal(x[:, 1:], y[:, :-1])
    counts = np.zeros((90, 90))
    np.add.at(counts, (x.ravel(), y.ravel()), 1)
    assert counts.max(1).sum() / counts.sum() == pytest.approx(0.7, abs=0.05)


def test_names_are_unique():
    names = [*WORKLOADS, *(name for sweep in SWEEPS.values() for name in sweep)]
    assert len(set(names)) == len(names)
    with pytest.raises(ValueError, match="Unknown workload 'softmx'"):
        find("softmx")

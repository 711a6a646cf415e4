"""The population benchmark runs what it says; its figures are never judged here."""

import numpy as np
import pytest

from fljax.benchmarks import population

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


@pytest.mark.parametrize("source", population.SOURCES)
def test_the_same_cohort_from_two_populations(source, tmp_path):
    result = population.population_scaling(
        (40, 20), cohort=3, rounds=3, source=source, directory=tmp_path
    )
    small, large = result["runs"]
    assert (small["population"], large["population"]) == (20, 40)
    assert result["ratio"] == large["seconds_median"] / small["seconds_median"]
    assert large["data_bytes"] > small["data_bytes"]
    assert small["placement"] == "stream"
    assert 30 <= small["rows_per_round"] <= 300
    assert 0 < small["plan_seconds_median"] <= small["plan_seconds_max"]
    assert not list(tmp_path.iterdir())


def test_mapped_rows_are_noisy_class_prototypes(tmp_path):
    dataset = population.mapped_images(tmp_path, 50)
    arrays = dataset.train.examples.arrays
    assert all(isinstance(values, np.memmap) for values in arrays.values())
    sizes = dataset.train.partition.sizes
    assert (sizes.min(), sizes.max()) >= (10, 10) and sizes.max() <= 30
    x, y = arrays["x"].astype(np.float64), arrays["y"]
    centers = np.stack([x[y == label].mean(0) for label in range(10)])
    nearest = ((x[:, None] - centers) ** 2).sum(-1).argmin(1)
    assert (nearest == y).all()


def test_unknown_sources_are_refused():
    with pytest.raises(ValueError, match="source = 'tape'; choose 'memmap' or 'generated'"):
        population.run(10, source="tape")

"""Charts: marks at round numbers, curves that keep their extremes, drawings that are valid SVG."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from fljax.reports.charts import Chart, line_of, ranges, shares, steps
from fljax.reports.drawing import drawn
from fljax.reports.thinning import points_each, thinned
from fljax.reports.ticks import linear_ticks, log_ticks, written


def test_thinning_keeps_ends_and_the_extremes_of_every_stretch():
    y = np.sin(np.arange(5000) / 300.0)
    y[1234], y[4321] = 9.0, -9.0
    kept = thinned(y, 100)
    assert len(kept) <= 100 and (np.diff(kept) > 0).all()
    assert {0, 1234, 4321, 4999} <= set(kept.tolist())
    assert thinned(y[:100], 100).tolist() == list(range(100))
    assert thinned(np.zeros(1), 4).tolist() == [0]
    assert thinned(np.arange(50.0), 0).tolist() == thinned(np.arange(50.0), 4).tolist()
    assert points_each(0, 100) == 100


@pytest.mark.parametrize("ends", [(0, 1), (-3.2, 17), (1e-9, 3e-9), (2e7, 9e7), (0.999, 1.001)])
def test_marks_are_few_round_and_told_apart(ends):
    marks = linear_ticks(*ends)
    assert (
        2 <= len(marks) <= 7 and ends[0] - 1e-12 <= marks[0] and marks[-1] <= ends[1] * (1 + 1e-9)
    )
    steps_between = np.diff(marks)
    np.testing.assert_allclose(steps_between, steps_between[0], rtol=1e-6)
    digits = steps_between[0] / 10 ** math.floor(math.log10(steps_between[0]) + 1e-9)
    assert min(abs(digits - round_one) for round_one in (1, 2, 5, 10)) < 1e-6
    assert len({written(mark, steps_between[0]) for mark in marks}) == len(marks)


def test_marks_of_a_logarithmic_axis():
    assert log_ticks(1e-8, 1e8) == [1e-6, 1e-3, 1.0, 1e3, 1e6]
    assert log_ticks(3.1, 3.9) == [3.1, 3.9]


def test_a_chart_is_valid_svg_with_its_numbers_beside_it():
    x = np.arange(3000)
    line = line_of("</script><script>alert(1)</script>", x, np.where(x == 7, np.nan, 1.0 / (x + 1)))
    band = line_of("mean", x[:3], x[:3])._replace(low=np.zeros(3), high=np.full(3, 2.0), style=8)
    text = drawn(Chart("a < b", "Round", "Loss & more", [line, band], target=0.5), 50)
    figure = ElementTree.fromstring(text)
    assert figure.find("figcaption").text == "a < b"
    path = figure.find(".//*[@class='c0 d0']/*[@class='line']").get("d")
    points = re.findall(r"[\d.]+ [\d.]+", path)
    assert 10 < len(points) <= 50 and "nan" not in path
    assert figure.find(".//*[@class='c1 d1']/*[@class='band']") is not None
    said = json.loads(figure.find("script").text)
    assert said["lines"][0]["label"] == line.label and len(said["lines"][0]["x"]) == len(points)
    assert said["target"] == 0.5 and said["lines"][1]["high"] == [2, 2, 2]
    assert "<script>alert" not in text and text.count("</script>") == 1


def test_lines_of_one_value_and_of_nothing():
    assert line_of("none", np.arange(2), np.array([np.nan, np.inf])) is None
    assert line_of("none", np.arange(2), None) is None
    assert shares("none", np.array([np.nan])) is None
    one = line_of("one", np.array([3]), np.array([0.0]))
    x, y = ranges(Chart("", "", "", [one]))
    assert x.low < 3 < x.high and y.low < 0 < y.high
    ElementTree.fromstring(drawn(Chart("", "", "", [one])))
    bars = steps("bars", np.array([0.0, 2.0, 4.0]), np.array([1, 3]))
    assert ranges(Chart("", "", "", [bars], from_zero=True))[1].low == 0

"""Errors beside FedJAX's: what is measured, when a difference is no chance, what a person reads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fljax.benchmarks import compressor_errors as errors
from fljax.benchmarks.compressor_errors import Case, Row, Sample
from fljax.compression import uniform

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).parents[2]

# a FedJAX whose uniform quantizer gives back 0.5 x + 1, and counts 7 bits
FAKE = """
import types, numpy as np
class State:
    num_bits = 0
def uniform_stochastic_quantizer(levels, key):
    assert levels == 16
    def apply(clients, state):
        ((client, x, weight),) = clients
        state.num_bits += 7
        return 0.5 * x + 1, state
    return types.SimpleNamespace(init=State, apply=apply)
"""


def test_vectors_of_a_seed_are_always_the_same():
    first, again, other = (errors.vectors([64, 100], seed) for seed in (1, 1, 2))
    assert [(name, x.size, x.dtype) for name, x in first.items()] == [
        (f"{kind}, {d}", d, np.float32)
        for d in (64, 100)
        for kind in ("normal", "log-normal", "sparse")
    ]
    for name, x in first.items():
        np.testing.assert_array_equal(x, again[name])
        assert (x != other[name]).any()
    assert np.count_nonzero(first["sparse, 100"]) == 2


def test_our_errors_are_those_of_the_definition():
    """One bit between 0 and 1: the error of a coordinate x has the mean x (1 - x)."""
    x = np.array([0, 1, 0.25, 0.5, 0.9], np.float32)
    case = Case("uniform", 1, uniform(1))
    (found,) = errors.our_samples([case], {"x": x}, 2_000, 0).values()
    expected = (x * (1 - x)).sum() / (x @ x)
    assert abs(found.mean - expected) < 4 * found.standard_error
    assert 0 < found.standard_error < 0.02 and found.bits == 64 + 5


def test_a_sample_has_the_mean_and_its_standard_error():
    assert errors.sample([1.0, 2.0, 3.0, 6.0], 9) == pytest.approx((3.0, np.sqrt(14 / 3 / 4), 9))


def row(ours, theirs):
    return Row("code", "normal, 8", Sample(*ours, 10), Sample(*theirs, 12))


def test_differences_beyond_chance_are_found():
    near, beyond = row((1.0, 0.3), (1.9, 0.4)), row((3.1, 0.3), (1.0, 0.4))
    assert near.z == pytest.approx(-1.8) and beyond.z == pytest.approx(4.2)
    unknown = row((float("nan"), 0.1), (1.0, 0.1))
    assert errors.far([near, beyond, unknown]) == [beyond, unknown]
    # nothing is drawn: equal up to rounding, or not at all
    assert not errors.far([row((0.5, 0.0), (0.5 + 1e-7, 0.0))])
    assert errors.far([row((0.5, 0.0), (0.501, 0.0))])


def test_the_table_has_both_sides_and_the_summary_the_verdict():
    rows = [row((1.0, 0.3), (1.9, 0.4)), row((3.1, 0.3), (1.0, 0.4))]
    expected = "| code | normal, 8 | 1 | 0.3 | 1.9 | 0.4 | -1.80 | 10 | 12 |"
    assert expected in errors.table(rows).splitlines()
    said = errors.summary(rows, 400, {"fedjax": "0.0.17"})
    assert "largest |z| 4.20" in said and "1 differ by more than chance" in said
    assert "errors are the same" in errors.summary(rows[:1], 400, {})
    # 1 - P(|z| < 4) = 6.33e-5, of 36 comparisons
    assert "0.23%" in errors.summary(rows[:1] * 36, 400, {})


def test_fedjax_runs_in_a_python_of_its_own(tmp_path, monkeypatch):
    package = tmp_path / "fedjax" / "aggregators"
    package.mkdir(parents=True)
    (tmp_path / "fedjax" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "compression.py").write_text(FAKE)
    about = tmp_path / "fedjax-0.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fedjax\nVersion: 0.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    case, x = Case("uniform", 4, uniform(4)), np.array([2.0, -1.0], np.float32)
    samples, versions = errors.fedjax_samples(sys.executable, [case], {"x": x}, 3, 0)
    # (0, 1.5) is missing of (2, -1)
    assert samples == {("uniform", 4, "x"): Sample(1.5**2 / 5, 0.0, 7)}
    assert versions["fedjax"] == "0.0"
    (found,) = errors.rows([case], {("uniform", 4, "x"): Sample(0.45, 0.1, 40)}, samples)
    assert found.case == "uniform(4)" and found.z == 0


def test_without_fedjax_the_script_says_how_to_get_it():
    done = subprocess.run(
        [sys.executable, "scripts/compare_compressors.py", "--fedjax_python=./no-such-python"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and not done.stdout
    assert "Nothing was compared" in done.stderr and "pip install fedjax" in done.stderr
    with pytest.raises(ValueError, match="cannot import FedJAX: .*No module named"):
        errors.fedjax_samples(sys.executable, [], {}, 1, 0)

"""The GPU report at its small size, on CPUs: every section, and what happens when one fails."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import quick

from fljax.benchmarks import profiles, protocols
from fljax.benchmarks.comparison import Runner
from fljax.benchmarks.gpu import conv_section, report
from fljax.benchmarks.gpu.records import SIZES, Context
from fljax.benchmarks.kernels import errors, timed_loop

ROOT = Path(__file__).parents[2]
SIZE = SIZES["small"]

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.mark.parametrize(
    "name", ["kernels", "cifar10", "emnist", "cohorts", "profile", "conv_forms"]
)
def test_a_section_gives_a_table(name, workdir, monkeypatch):
    monkeypatch.setattr(timed_loop, "SECONDS", 1e-3)
    result = report.run_section(name, Context(SIZE, workdir, {}))
    assert result["problem"] is None and result["seconds"] > 0
    assert result["rows"] and {len(row) for row in result["rows"]} == {len(result["columns"])}
    assert not any("nan" in cell for row in result["rows"] for cell in row)
    report.write(workdir, name, result)


def test_a_form_that_does_not_fit_loses_no_other(monkeypatch, tmp_path):
    def rows(layer, batch, clients):
        if clients:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nat great length")
        times = {"forward": 1.0, "weight gradient": 2.0, "step": 3.0}
        one = {"layer": layer, "form": "gemm", "clients": 0, "gflops": 4.0}
        yield one | {"milliseconds": times}

    monkeypatch.setattr(conv_section.layers, "convolution_rows", rows)
    result = report.run_section("conv_forms", Context(SIZE, tmp_path, {}))
    assert result["rows"][0][:7] == ["LeNet, second", "gemm", "1", "1.000", "", "2.000", "3.000"]
    assert "2 clients: RESOURCE_EXHAUSTED: out of memory" in result["problem"]
    assert "length" not in result["problem"]


def test_the_page_marks_what_was_not_measured(workdir):
    text = report.markdown(workdir)
    assert "## peers\n\nGives the same work to other simulators" in text
    assert text.count("*Not measured.*") == len(report.SECTIONS) - 6
    assert "| precision | kernel | error | bound |" in text


def test_the_cpu_section_stands_beside_the_other_device(workdir):
    found = report.run_section("cifar10_cpu", Context(SIZE, workdir, {}))["rows"]
    assert [row[0] for row in found] == [
        "this device, float32", "this device, TF32", "CPU, float32",
    ]  # fmt: skip
    # here they are the same device
    assert found[0][1:] == found[2][1:] and len(found[0]) == 1 + SIZE.cpu_rounds


def test_a_failure_loses_nothing_and_shows_in_the_exit_status(tmp_path):
    settings = {"FLJAX_DATA_DIR": str(tmp_path), **quick.ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "scripts/gpu_report.py", f"--workdir={tmp_path}", "--size=small",
         "--sections=peers,peaks", "--runner=absent=./no-such-program"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ | settings,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    text = (tmp_path / "report.md").read_text()
    assert "**failed: absent**" in text and "absent, repetition 0, failed" in text
    assert "| fljax |" in text and "| TF32 |" in text


def test_a_section_that_dies_is_reported(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('out of memory')"]
    good = report.run_sections(["peaks"], command, tmp_path, timeout=60, report=lambda text: None)
    assert not good and "**failed: out of memory**" in (tmp_path / report.REPORT).read_text()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    report.run_sections(["peaks"], command, tmp_path, timeout=0.5, report=lambda text: None)
    assert "took more than 0 s" in (tmp_path / report.REPORT).read_text()


def test_a_failure_stands_beside_an_earlier_success(tmp_path):
    good = {"title": "Peak", "notes": ["Sound."], "columns": [], "rows": [], "data": 7}
    report.write(tmp_path, "peaks", good | {"problem": None, "seconds": 1.0})
    command = [sys.executable, "-c", "import sys; sys.exit('out of memory')"]
    run = lambda: report.run_sections(  # noqa: E731
        ["peaks"], command, tmp_path, timeout=60, report=lambda text: None
    )
    assert not run() and not run()
    text = (tmp_path / report.REPORT).read_text()
    assert "Sound." in text and "**Run again later, it failed: out of memory**" in text
    assert json.loads((tmp_path / "peaks.json").read_text())["data"] == 7
    report.write(tmp_path, "peaks", good | {"problem": None, "seconds": 1.0})
    assert "failed" not in report.markdown(tmp_path)


def test_what_peers_had_run_is_shown_after_the_section_was_ended(tmp_path):
    line = {
        "runner": "quick", "workload": "w", "repetition": 0, "median_s_per_round": 0.25,
        "final_train_loss": 2.0,
    }  # fmt: skip
    (tmp_path / "peers.jsonl").write_text(json.dumps(line) + "\n")
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert not report.run_sections(
        ["peers"], command, tmp_path, timeout=0.5, report=lambda text: None
    )
    text = (tmp_path / report.REPORT).read_text()
    assert "**failed: took more than 0 s**" in text and "| quick | 0.25 |" in text


def test_a_section_of_peers_ends_in_time(tmp_path):
    hang = Runner([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path)
    settings = Context(SIZE, tmp_path, {"hang": hang, "next": hang}, seconds=1.0)
    platforms = jax.config.jax_platforms
    result = report.run_section("peers", settings)
    jax.config.update("jax_platforms", platforms)
    # the table alone takes longer than that
    assert result["problem"] == "no time was left for 4 runs" and not result["data"]


def test_a_wrong_kernel_is_found(monkeypatch):
    right = errors.conv_general_dilated
    slightly_off = lambda *args, **options: 1.001 * right(*args, **options)  # noqa: E731
    monkeypatch.setattr(errors, "conv_general_dilated", slightly_off)
    checks = errors.check_convolution("EMNIST CNN, first", "float32", batch=2)
    assert len(checks) == 3 and all(check.error > check.bound for check in checks)


def test_a_trace_is_added_up(tmp_path):
    def event(operation, milliseconds, **more):
        return {"ph": "X", "dur": 1e3 * milliseconds, "args": {"hlo_op": operation}} | more

    events = [
        event("while.3", 100), event("fusion.1", 4), event("fusion.27", 5), event("dot", 2),
        event("fusion.1", 9, ph="M"), {"ph": "X", "dur": 1e6, "name": "python"},
    ]  # fmt: skip
    (tmp_path / "plugins").mkdir()
    with gzip.open(tmp_path / "plugins" / "host.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": events}, file)
    found = profiles.read(tmp_path)
    assert found.busy_seconds == pytest.approx(0.011)
    assert [(name, count) for name, _, count in found.operations] == [("fusion", 2), ("dot", 1)]
    with pytest.raises(FileNotFoundError):
        profiles.read(tmp_path / "elsewhere")


def test_cifar10_is_divided_into_clients_of_50(data_dir):
    dataset, what = protocols.cifar10_data(protocols.cifar10())
    assert np.array_equal(np.unique(dataset.train.partition.sizes), [50])
    assert dataset.name in what and f"{dataset.num_clients:,} clients" in what


@pytest.mark.parametrize("rounds, expected", [(2, False), (1500, True)])
def test_a_protocol_searches_for_its_layout_to_the_end(rounds, expected, monkeypatch):
    class Called(Exception):
        pass

    def simulate(*args, calibrate, **options):
        raise Called(calibrate)

    monkeypatch.setattr(protocols.fljax, "simulate", simulate)
    with pytest.raises(Called, match=str(expected)):
        protocols.run(protocols.cifar10(rounds), None, "float32")

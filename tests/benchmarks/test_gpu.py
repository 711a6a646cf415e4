"""The GPU report at its small size, on CPUs: every section, and what happens when one fails."""

import dataclasses
import functools
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

from fljax.benchmarks import processes, profiles, protocols
from fljax.benchmarks.comparison import Runner
from fljax.benchmarks.gpu import cases, conv_section, flag_section, kept_data, report
from fljax.benchmarks.gpu.changes import farthest_leaf, sketch
from fljax.benchmarks.gpu.records import SIZES, Bar, Context
from fljax.benchmarks.kernels import errors, layers, timed_loop
from fljax.benchmarks.workloads import WORKLOADS, generate
from fljax.data.sources import images

ROOT = Path(__file__).parents[2]
SIZE = SIZES["small"]

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.mark.parametrize(
    "name",
    [
        "kernels", "softmax", "cifar10", "emnist", "cohorts", "flags", "profile", "conv_forms",
        "lstm_forms",
    ],
)  # fmt: skip
def test_a_section_gives_a_table(name, workdir, monkeypatch):
    monkeypatch.setattr(timed_loop, "SECONDS", 1e-3)
    monkeypatch.setattr(layers, "LENGTH", 3)
    monkeypatch.setattr(flag_section, "VARIANTS", dict([*flag_section.VARIANTS.items()][:2]))
    # all of them are in the tests of the kernels' benchmark
    forms = layers.forms
    monkeypatch.setattr(layers, "forms", lambda *of: forms(*of)[:2])
    for key, value in quick.ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    result = report.run_section(name, Context(SIZE, workdir, {}, seconds=300.0))
    assert result["problem"] is None and result["seconds"] > 0
    assert result["rows"] and {len(row) for row in result["rows"]} == {len(result["columns"])}
    assert not any("nan" in cell for row in result["rows"] for cell in row)
    report.write(workdir, name, result)


def test_a_form_that_fails_loses_no_other_and_the_fastest_is_named(monkeypatch, tmp_path):
    def rows(layer, batch, clients, forms, parts):
        if forms == ["grouped"] and clients:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nat great length")
        times = {"step": 3.0, "with ReLU": 2.0 if forms == ["gemm"] else 5.0}
        one = {"layer": layer, "form": forms[0], "clients": clients, "gflops": 4.0}
        yield one | {"milliseconds": times}

    monkeypatch.setattr(conv_section.layers, "convolution_rows", rows)
    result = report.run_section("conv_forms", Context(SIZE, tmp_path, {}))
    assert result["rows"][0][:5] == ["LeNet, second", "gemm", "1", "3.000", "2.000"]
    assert [row[1] for row in result["rows"]] == ["gemm", "winograd", "grouped", "gemm", "winograd"]
    assert "grouped, 2 clients: RESOURCE_EXHAUSTED: out of memory" in result["problem"]
    assert "length" not in result["problem"]
    assert 'LeNet, second, 1 client(s): "gemm", 2.50 x winograd.' in result["notes"][-1]


def test_the_page_marks_what_was_not_measured(workdir):
    text = report.markdown(workdir)
    assert "## peers\n\nGives the same work to other simulators" in text
    assert text.count("*Not measured.*") == len(report.SECTIONS) - 9
    assert "| precision | kernel | error | bound |" in text
    # bars come first, and what was measured cold is said once
    head = text.partition("## ")[0]
    assert head.count("first round") == 3 and head.count("at least 100 TFLOP/s") == 1
    assert head.count("| met |") + head.count("| **missed** |") == 7


def test_the_cpu_section_stands_beside_the_other_device(workdir):
    found = report.run_section("cifar10_cpu", Context(SIZE, workdir, {}))["rows"]
    assert [row[0] for row in found] == ["this device, TF32", "CPU, float32"]
    # here they are the same device, and both precisions are float32
    assert found[0][1:] == found[1][1:] and len(found[0]) == 1 + SIZE.cpu_rounds


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


def run_sections(names, program, workdir, seconds=60.0):
    """Runs sections that are a line of Python each."""
    said = []
    command = [sys.executable, "-c", program]
    return report.run_sections(names, command, workdir, seconds=seconds, report=said.append), said


def test_a_section_that_dies_is_reported(tmp_path):
    good, _ = run_sections(["peaks"], "import sys; sys.exit('out of memory')", tmp_path)
    assert not good and "**failed: out of memory**" in (tmp_path / report.REPORT).read_text()
    run_sections(["peaks"], "import time; time.sleep(60)", tmp_path, seconds=0.5)
    assert "took more than 0 s" in (tmp_path / report.REPORT).read_text()


def test_sections_share_the_time(tmp_path):
    """Each is ended after its part, the last one has what is left, and no time is no run."""
    good, said = run_sections(
        ["peaks", "lanes", "cohorts"], "import time; time.sleep(60)", tmp_path, seconds=4.0
    )
    first, second, last = (float(text.split("than ")[1].split(" s")[0]) for text in said)
    assert not good and max(first, second) <= 1 <= last
    good, said = run_sections(["peaks", "kernels"], "", tmp_path, seconds=0.0)
    assert not good and said == ["peaks: no time was left", "kernels: no time was left"]


def limits(names, seconds, used):
    """Returns the seconds that sections may take, of which they use `used` at most."""
    left, found = seconds, []
    for place in range(len(names)):
        found.append(report.seconds_of_next(names[place:], left))
        left -= min(found[-1], used[place])
    return found


def test_what_a_section_leaves_goes_to_those_after_it():
    names = ["softmax", "cifar10", "kernels", "peers"]
    shares = np.array([report.SECTIONS[name].seconds for name in names])
    # all that there is, in proportion, where each takes all it may
    np.testing.assert_allclose(limits(names, 150, [150] * 4), 150 * shares / shares.sum())
    # what the first two leave goes to both of the others, and then all to the last
    found = limits(names, 150, [10, 20, 5, 0])
    np.testing.assert_allclose(found[2:], [120 * shares[2] / shares[2:].sum(), 115])


def test_all_sections_fit_into_ten_minutes():
    names = [*report.SECTIONS]
    shares = np.array([report.SECTIONS[name].seconds for name in names])
    assert shares.sum() == 600
    # where each takes all it may, each has its share
    np.testing.assert_allclose(limits(names, 600, [600] * len(names)), shares)
    assert limits(names, 600, [12] * len(names))[-1] == pytest.approx(600 - 12 * (len(names) - 1))


def table(rows):
    return {
        "title": "Peak", "notes": ["Sound."], "columns": ["a"], "rows": rows, "data": 7,
        "problem": None, "seconds": 1.0,
    }  # fmt: skip


def test_what_a_section_had_found_is_shown_after_it_was_ended(tmp_path):
    class Ended(Exception):
        pass

    def section(context):
        yield report.Table("Peak", [], ["a"], [["first"]])
        yield report.Table("Peak", [], ["a"], [["first"], ["second"]])
        raise Ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(report.SECTIONS, "peaks", report.Section(section, 20))
        with pytest.raises(Ended):
            report.run_section(
                "peaks", Context(SIZE, tmp_path, {}),
                lambda result: report.write(tmp_path, "peaks", result),
            )  # fmt: skip
    good, _ = run_sections(["peaks"], "import time; time.sleep(60)", tmp_path, seconds=0.5)
    text = (tmp_path / report.REPORT).read_text()
    assert not good and "**failed: took more than 0 s**" in text
    assert "| first |" in text and "| second |" in text


def test_a_failure_stands_beside_an_earlier_success(tmp_path):
    report.write(tmp_path, "peaks", table([["old"]]))
    # what a later run had begun with does not replace it
    report.write(tmp_path, "peaks", table([["new"]]) | {"problem": "not finished"})
    run = lambda: run_sections(["peaks"], "import sys; sys.exit('out of memory')", tmp_path)  # noqa: E731
    assert not run()[0] and not run()[0]
    text = (tmp_path / report.REPORT).read_text()
    assert "| old |" in text and "**Run again later, it failed: out of memory**" in text
    assert json.loads((tmp_path / "peaks.json").read_text())["data"] == 7
    report.write(tmp_path, "peaks", table([["newer"]]))
    assert "failed" not in report.markdown(tmp_path)


def test_bars_are_met_or_missed(tmp_path):
    bars = [
        Bar("a round", 2.5, 3.0, "ms"), Bar("a run", 10.5, 10.0, "s"),
        Bar("a rate", 120.0, 100.0, "TFLOP/s", at_least=True),
        Bar("a loss", float("nan"), 1.0, "nats"),
    ]  # fmt: skip
    assert [bar.is_met for bar in bars] == [True, False, True, False]
    result = report.plain(table([]) | {"bars": [dataclasses.asdict(bar) for bar in bars]})
    report.write(tmp_path, "peaks", result)
    text = report.markdown(tmp_path)
    assert "| a round | 2.50 ms | at most 3 ms | met |" in text
    assert "| a run | 10.50 s | at most 10 s | **missed** |" in text
    assert "| a rate | 120.00 TFLOP/s | at least 100 TFLOP/s | met |" in text
    assert "| a loss | nan nats | at most 1 nats | **missed** |" in text


@functools.cache
def change_after(rounds):
    """Returns what a process of the section says of the change by real rounds."""
    return cases.run_case("softmax_60:2:0:4", rounds - 1)["change"]


def flag_table(monkeypatch, tmp_path, changes, failing=(), names=("a",)):
    """Runs the section with given changes, by --plain or not, as what its processes print."""

    def run(command, seconds, environment):
        plain = "--plain" in command
        line = {"case": "a", "milliseconds": 1.0 + plain, "device": "a card"}
        line |= {"change": changes[plain]}
        printed = "" if environment["XLA_FLAGS"] + " ".join(command[4:]) in failing else line
        return processes.Finished(None, printed and json.dumps(printed) + "\n", "")

    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(flag_section.processes, "run", run)
    size = dataclasses.replace(SIZE, flag_cases=names)
    result = report.run_section("flags", Context(size, tmp_path, {}))
    return result, {row[0]: row[1:] for row in result["rows"]}


@pytest.mark.parametrize("rounds", [6, 10, 11])
def test_options_that_change_results_are_found(rounds, monkeypatch, tmp_path):
    changes = {False: change_after(11), True: change_after(rounds)}
    result, rows = flag_table(monkeypatch, tmp_path, changes, names=("a", "b"))
    assert rows["as it is"] == ["1.00", "*not measured*: not run"]
    assert result["notes"][1:] == ["a card"]
    if rounds == 11:
        assert result["problem"] is None and rows["without fljax's options"][0] == "2.00"
    else:
        assert result["problem"] == "another result: without fljax's options, a"
        assert "of its change off" in rows["without fljax's options"][0]


def test_the_first_variant_that_ran_is_what_others_are_held_against(monkeypatch, tmp_path):
    rounds = f"--rounds={2 * SIZE.timed_rounds}"
    changes = {False: change_after(11), True: change_after(10)}
    result, rows = flag_table(monkeypatch, tmp_path, changes, failing=(rounds,))
    assert rows["as it is"] == ["*not measured*: not run"]
    assert result["problem"] == "another result: without fljax's options, a"
    said = 'a is held against "convolutions as kernels", the first that ran.'
    assert result["notes"][1:] == [said, "a card"]


def test_changes_are_told_apart_by_their_distance():
    """A sketch sees the distance of two changes, whatever its direction and the weights."""
    random = np.random.default_rng(1)
    before = {"kernel": 1e3 * random.normal(size=(30, 40)), "bias": np.zeros(10)}
    change = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), before)
    expected = sketch(before, jax.tree.map(np.add, before, change))
    assert expected["kernel"][0] == pytest.approx(np.linalg.norm(change["kernel"]))
    for path in before:
        for _ in range(20):
            off = random.normal(size=before[path].shape)
            off *= 0.05 * np.linalg.norm(change[path]) / np.linalg.norm(off)
            other = change | {path: change[path] + off}
            leaf, share = farthest_leaf(
                sketch(before, jax.tree.map(np.add, before, other)), expected
            )
            assert leaf == path and 0.02 < share < 0.1
    assert farthest_leaf(expected, expected)[1] == 0
    lost = [np.nan for _ in expected["bias"]]
    unlike = [{}, expected | {"more": expected["bias"]}, expected | {"bias": lost}]
    for found in unlike:
        assert farthest_leaf(found, expected)[1] == np.inf
        assert farthest_leaf(expected, found)[1] == np.inf


def test_data_are_generated_once(tmp_path):
    made = []

    def make():
        made.append(1)
        workload = dataclasses.replace(WORKLOADS["softmax_60"], population=4, pool=pool)
        return generate(workload, test_rows=3)

    for pool in (None, 9):
        expected = make()
        for _ in range(2):
            found = kept_data.kept(tmp_path, f"pool_{pool}", make)
            jax.tree.map(np.testing.assert_array_equal, arrays_of(found), arrays_of(expected))
            assert (found.kind, found.num_classes) == (expected.kind, expected.num_classes)
    assert len(made) == 4


def arrays_of(dataset):
    partition = dataset.train.partition
    index = () if partition.index is None else partition.index
    splits = dataset.train.examples.arrays, dataset.test.examples.arrays
    return splits, partition.offsets, index


def test_a_report_needs_what_jax_and_flax_need_alone():
    """It runs from a checkout on a machine that lacks what other commands ask for."""
    absent = ["wandb", "tensorflow_datasets", "ml_collections", "array_record", "tensorflow"]
    program = (
        f"import runpy, sys; sys.modules |= dict.fromkeys({absent})\n"
        "runpy.run_path('scripts/gpu_report.py', run_name='imported')\n"
        "from fljax.benchmarks.gpu import cases\n"
        "change = cases.run_case('softmax_60:2:0:3', 1)['change']\n"
        "print(all(norm > 0 for norm, *_ in change.values()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | quick.ENVIRONMENT,
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr


def test_a_section_of_peers_ends_in_time(tmp_path):
    hang = Runner([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path)
    settings = Context(SIZE, tmp_path, {"hang": hang, "next": hang}, seconds=1.0)
    platforms = jax.config.jax_platforms
    result = report.run_section("peers", settings)
    jax.config.update("jax_platforms", platforms)
    # the table alone takes longer than that
    assert result["problem"] == "no time was left for 2 runs" and not result["data"]


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


def test_cifar10_is_divided_into_clients_of_50(data_dir, monkeypatch):
    # which is read to count its rows, and again to divide them
    monkeypatch.setattr(images, "_cifar10_subset", functools.cache(images._cifar10_subset))
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

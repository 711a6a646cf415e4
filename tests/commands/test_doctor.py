"""The doctor: what is found in an installation, which of it is broken, and how it is told."""

import json
import sys

import consoles
import pytest

from fljax.commands import doctor, examination, small_run, traps
from fljax.core.optional import PARTS

COMPUTING = {
    "platform": "cpu", "devices": [{"kind": "cpu", "count": 2, "memory_bytes": None}], "cores": 2,
    "granted_cores": None, "memory_bytes": 8 * 2**30, "x64": False,
    "cache": {"folder": "/kept", "files": 3, "bytes": 2**20, "writable": True},
    "run": {"first_loss": 1.2, "last_loss": 0.7, "compile_seconds": 2.0, "round_seconds": 0.001},
}  # fmt: skip
HEALTHY = {
    "fljax": "0.1.0", "python": "3.12.1", "executable": "/venv/bin/python", "system": "Linux",
    "versions": {"jax": "0.10.2", "jaxlib": "0.10.2"}, "unmet": [],
    "parts": {
        "matplotlib": {"version": "3.9", "serves": "Plots", "remedy": "pip install matplotlib"},
        "h5py": {"version": None, "serves": "HDF5", "remedy": "pip install 'fljax[hdf5]'"},
    },
    "data": {"folder": "/data", "said_by": "FLJAX_DATA_DIR", "holds": ["mnist"]},
    "hardware": [], "environment": {}, "computing": COMPUTING,
}  # fmt: skip


def with_(**changed):
    """The healthy installation, but for what is said; "computing" is changed entry by entry."""
    computing = COMPUTING | changed.pop("computing", {})
    return HEALTHY | {"computing": computing} | changed


def test_nothing_is_found_where_all_is_right():
    assert traps.found(HEALTHY) == []
    page = doctor.page(HEALTHY, [])
    assert "nothing is broken" in page and "1.0 MiB" in page and "8.0 GiB" in page
    assert "h5py: HDF5: pip install 'fljax[hdf5]'" in page


@pytest.mark.parametrize(
    ("facts", "said", "remedy", "broken"),
    [
        (with_(unmet=["jax<0.12,>=0.8, and 0.12.1 is installed"]),
         "needs jax<0.12,>=0.8, and 0.12.1", "pip install 'jax<0.12,>=0.8'", True),
        (with_(versions={"jaxlib": "0.10.2", "jax-cuda12-plugin": "0.9.0"}),
         "jax-cuda12-plugin 0.9.0 does not belong to jaxlib 0.10.2", "'fljax[cuda12]'", True),
        (with_(parts={"tqdm": {"version": None, "serves": "Bars", "remedy": "pip install tqdm"}}),
         "Bars cannot be used", "pip install tqdm", True),
        (HEALTHY | {"computing": {"error": "Unknown flag in XLA_FLAGS"}},
         "JAX does not compute here: Unknown flag", "out of XLA_FLAGS", True),
        (HEALTHY | {"computing": {"error": "no driver"}}, "here: no driver", "", True),
        (with_(computing={"run": COMPUTING["run"] | {"last_loss": float("nan")}}),
         "have not learned: loss 1.2, nan", "", True),
        (with_(hardware=["nvidia"]), "there is an NVIDIA GPU", "'fljax[cuda13]'", False),
        (with_(hardware=["tpu"]), "there is a TPU", "'fljax[tpu]'", False),
        (with_(computing={"x64": True}), "64-bit", "JAX_ENABLE_X64", False),
        (with_(computing={"cache": {"folder": None}}), "are not kept", "", False),
        (with_(computing={"cache": COMPUTING["cache"] | {"writable": False}}),
         "/kept cannot be written", "FLJAX_CACHE_DIR", False),
        (with_(computing={"granted_cores": 1}), "1 of the machine's 2 cores", "", False),
        (with_(environment={"JAX_PLATFORMS": "cpu"}), "JAX_PLATFORMS=cpu decides", "", False),
        (with_(environment={"CUDA_VISIBLE_DEVICES": ""}), "hides all GPUs", "unset", False),
        (with_(environment={"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}),
         "sets the number of CPU devices", "unset it", False),
        (with_(environment={"XLA_FLAGS": "--xla_odd=1"}), "XLA_FLAGS=--xla_odd=1", "", False),
        (with_(environment={"JAX_DISABLE_JIT": "1"}), "no round is compiled", "unset", False),
        (with_(data={"folder": "/no", "said_by": "FLJAX_DATA_DIR", "holds": None}),
         "/no, which does not exist", "create it", False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_trap_is_named_with_its_remedy(facts, said, remedy, broken):
    (trap,) = traps.found(facts)
    assert said in trap.said and remedy in trap.remedy and trap.broken == broken
    page = " ".join(doctor.page(facts, [trap]).split())
    assert trap.said in page and trap.remedy in page
    assert ("nothing is broken" in page) != broken and ("broken" in page)


def test_switches_that_are_off_and_hidden_accelerators_are_no_traps():
    assert not traps.found(with_(environment={"JAX_DISABLE_JIT": "0", "JAX_DEBUG_NANS": "false"}))
    chosen = with_(hardware=["nvidia"], environment={"JAX_PLATFORMS": "cpu"})
    assert ["JAX_PLATFORMS" in trap.said for trap in traps.found(chosen)] == [True]
    assert not traps.found(with_(hardware=["nvidia"], computing={"platform": "gpu"}))


def test_what_is_broken_comes_first():
    facts = with_(unmet=["x>1, and none is installed"], hardware=["tpu"], computing={"x64": True})
    assert [trap.broken for trap in traps.found(facts)] == [True, False, False]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("print('of a library'); print('{\"x\": 1}')", {"x": 1}),
        ("raise ValueError('no driver')", {"error": "ValueError: no driver"}),
        ("import os, sys; sys.stderr.write('F0 Unknown flag\\n'); os._exit(134)",
         {"error": "F0 Unknown flag"}),
        ("assert False", {"error": 'AssertionError (File "<string>", line 1, in <module>)'}),
        ("import os; os._exit(134)", {"error": "it ended with exit code 134"}),
        ("import time; time.sleep(60)",
         {"error": "JAX has not computed anything in 0.5 seconds"}),
    ],
)  # fmt: skip
def test_a_process_that_dies_or_hangs_is_a_finding(code, found):
    patience = 0.5 if "sleep" in code else 60
    assert examination.computing([sys.executable, "-S", "-c", code], patience) == found


def test_requirements_are_compared_with_what_is_installed():
    met = ["numpy>=2", "absl-py", "h5py<0; extra == 'hdf5'", "x; python_version < '3'"]
    assert examination.unmet(met) == []
    said = examination.unmet(["numpy>=99", "no-such-package-of-ours"])
    assert said[0].startswith("numpy>=99, and ") and said[1].endswith("and none is installed")


def test_hardware_is_what_the_system_shows(tmp_path):
    assert examination.hardware(tmp_path) == []
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert examination.hardware(tmp_path) == ["nvidia"]


def test_the_small_run_learns_and_tells_of_the_machine(tmp_path, quick_compilation):
    found = small_run.tried()
    assert json.loads(json.dumps(found)) == found
    assert {*found} == {*COMPUTING} and found["run"]["last_loss"] < found["run"]["first_loss"]
    assert sum(kind["count"] for kind in found["devices"]) >= 1
    (tmp_path / "program").write_bytes(b"12345")
    kept = small_run.cache(str(tmp_path / "deeper" / "still"))
    assert (kept["files"], kept["bytes"], kept["writable"]) == (0, 0, True)
    assert small_run.cache(str(tmp_path))["bytes"] == 5


@pytest.mark.parametrize(("computing", "code"), [(COMPUTING, 0), ({"error": "no driver"}, 1)])
def test_the_command_prints_all_and_says_by_its_code_if_something_is_broken(
    computing, code, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(examination, "computing", lambda _: computing)
    monkeypatch.setenv("FLJAX_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(examination, "unmet", lambda _: [])
    ended = consoles.call(monkeypatch, capsys, "doctor", "--json")
    facts = json.loads(ended.out)
    assert (ended.code, ended.err) == (code, "")
    assert {*facts} == {*HEALTHY, "traps"} and {*facts["parts"]} == {*PARTS}
    assert facts["data"] == {"folder": str(tmp_path), "said_by": "FLJAX_DATA_DIR", "holds": []}
    assert any(trap["broken"] for trap in facts["traps"]) == bool(code)
    told = consoles.call(monkeypatch, capsys, "doctor")
    assert told.code == code and str(tmp_path) in told.out.replace("\n           ", " ")

"""Ground of all tests: eight virtual CPU devices, settings, and the folder of real data sets."""

from __future__ import annotations

import os

# Before NumPy starts: its threads wait for the next product by spinning, on cores that other tests
# need. What accountants compute in short ones took three times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gc
import multiprocessing.util
import shutil
import signal
import tempfile
from pathlib import Path
from unittest import mock

import hypothesis
import jax
import pytest
import quick

# Before JAX starts: tests of sharding need several devices, on any machine.
jax.config.update("jax_num_cpu_devices", 8)
# Nothing of earlier runs, and nothing for later ones.
jax.config.update("jax_enable_compilation_cache", False)
quick.compile_equal_programs_once()
quick.lower_in_few_contexts()
quick.collect_rarely()
# What runs and libraries leave in temporary folders, here and in other processes, lies in one that
# is removed at the end. That of `tmp_path` stays where pytest would have it.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
_temporary = tempfile.mkdtemp(prefix="fljax-tests-")
os.environ["TMPDIR"] = tempfile.tempdir = _temporary
os.environ["FLJAX_CACHE_DIR"] = os.path.join(_temporary, "cache")

# What takes 20 seconds of a core and more, the longest first.
LONGEST = (
    "invariants/test_battery.py",
    "benchmarks/test_gpu.py",
    "compression/test_compressor.py",
    "commands/test_scripts.py",
    "invariants/test_processes.py",
    "studies/test_sweep.py",
    "config/test_experiment.py",
    "invariants/test_accelerators.py",
    "privacy/test_secure_aggregation.py",
    "test_docs.py",
    "studies/test_study.py",
    "training/test_own_numbers.py",
    "invariants/test_layout.py",
    "invariants/test_dispatch.py",
    "privacy/test_correlated_rounds.py",
    "privacy/test_local.py",
)

# Whoever starts the tests in the background may ignore signals, and runs leave ignored ones alone.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# Examples are the same in every run, and the first of them may compile.
hypothesis.settings.register_profile("fljax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("fljax")


def pytest_unconfigure():
    # it removes folders of its own at the exit, and does not expect them to be gone
    multiprocessing.util._run_finalizers()
    shutil.rmtree(_temporary, ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Lets the files that take longest start first, so that no worker ends with one alone."""

    def place(item):
        return next((n for n, name in enumerate(LONGEST) if item.path.match(name)), len(LONGEST))

    items.sort(key=place)


@pytest.fixture(scope="module")
def quick_compilation():
    """Compiles without optimizations, for tests of values whose programs run once."""
    jax.devices()  # starts the tests' own devices, before a test asks for one per core
    with quick.compilation():
        yield


@pytest.fixture(scope="module")
def weights_as_written():
    """Lets no run of a module hold narrow weights transposed.

    To rewrite the work of clients for it takes a sixth of the time until a small run is there.
    """
    from fljax.engine.program import layout, round

    with mock.patch.object(round, "transposed_weights", layout.as_given):
        yield


@pytest.fixture(scope="module")
def few_objects():
    """Lets `gc.collect` look through what a module makes, not through all that others left."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def x64():
    """Computes in float64, in all threads."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets that FLJAX_DATA_DIR names; skips the test without one."""
    folder = os.environ.get("FLJAX_DATA_DIR")
    if not folder:
        pytest.skip("FLJAX_DATA_DIR is not set")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"FLJAX_DATA_DIR = {folder!r} is not a folder")
    return path

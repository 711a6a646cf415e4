"""Traces of compiled programs, on disk and in memory."""

from types import SimpleNamespace

import jax
import pytest

from fljax.engine.devices import compilation


@pytest.fixture
def trims(monkeypatch):
    """A C library whose `malloc_trim` counts its calls, and what compilations call of it."""
    calls, listeners = [], []
    register = jax.monitoring.register_event_duration_secs_listener
    with monkeypatch.context() as patch:
        library = SimpleNamespace(malloc_trim=calls.append)
        patch.setattr(compilation.ctypes, "CDLL", lambda name: library)
        patch.setattr(jax.monitoring, "register_event_duration_secs_listener", listeners.append)
        compilation.give_back_after_compiling.__wrapped__()
    register(listeners[0])
    yield calls
    jax.monitoring.unregister_event_duration_listener(listeners[0])


def test_memory_that_a_compilation_has_freed_is_given_back(monkeypatch, trims):
    monkeypatch.setattr(compilation, "_MIN_TRIM_SECONDS", 0.0)
    program = jax.jit(lambda x: x * 3)
    program(1.0)
    assert trims == [0]
    program(2.0)
    assert trims == [0]


def test_quick_compilations_pass_by(monkeypatch, trims):
    monkeypatch.setattr(compilation, "_MIN_TRIM_SECONDS", 1e6)
    jax.jit(lambda x: x * 5)(1.0)
    assert not trims


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(compilation.ctypes, "CDLL", lambda name: SimpleNamespace())
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", pytest.fail)
    compilation.give_back_after_compiling.__wrapped__()


def test_options_that_this_xla_or_this_device_does_not_know_are_left_out():
    device = jax.devices()[0]
    assert compilation._are_known(compilation.cpu_options(), device)
    assert not compilation._are_known({"xla_no_such_option": 1}, device)
    assert compilation.gpu_options(device) == {}

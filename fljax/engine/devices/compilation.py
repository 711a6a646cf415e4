"""Caches of compiled programs and fast layouts, and the memory that compiling gives back."""

from __future__ import annotations

import collections
import ctypes
import functools
import hashlib
import platform
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.monitoring
from jax.sharding import SingleDeviceSharding

from fljax.core.files import cache_dir

# What takes less leaves little behind.
_MIN_TRIM_SECONDS = 0.03
# What GPUs launch as parts of one graph: XLA's default, and loops.
_COMMAND_BUFFERS = (
    "FUSION", "CUBLAS", "CUBLASLT", "CUSTOM_CALL", "CUDNN", "DYNAMIC_SLICE_FUSION", "CONDITIONAL",
    "WHILE",
)  # fmt: skip
_COMPILATION = "/jax/core/compile/backend_compile_duration"


def use_compilation_cache() -> None:
    """Lets JAX keep compiled programs on disk, so that the next run starts in seconds.

    Whoever has chosen a folder already (`jax_compilation_cache_dir`), or has switched JAX's cache
    off (`jax_enable_compilation_cache`), is left alone. Programs for CPUs hold the instructions of
    one processor type, so each type has a folder of its own. The smallest programs are kept as
    well: where nothing is left to compile, the compiler's own 20 MB are never loaded.

    Example:
      >>> fljax.use_compilation_cache()  # doctest: +SKIP
    """
    if jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla" / _processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@functools.cache
def give_back_after_compiling() -> None:
    """Lets every compilation end with the return of the memory that it has freed to the system.

    XLA compiles in several threads, and glibc keeps what they free apart for each: about 100 MB
    after a round program, which would lie idle beneath the memory of all that follows. Other C
    libraries return memory by themselves, and nothing is done.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return

    def compiled(event: str, seconds: float, **_: Any) -> None:
        if event == _COMPILATION and seconds >= _MIN_TRIM_SECONDS:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(compiled)


def compiled_seconds() -> float:
    """Returns how long the calling thread has traced and compiled programs since the first call."""
    return _compilation_clock()()


@functools.cache
def _compilation_clock() -> Callable[[], float]:
    spent: collections.Counter[int] = collections.Counter()

    def compiled(event: str, seconds: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            spent[threading.get_ident()] += seconds

    jax.monitoring.register_event_duration_secs_listener(compiled)
    return lambda: spent[threading.get_ident()]


@functools.cache
def cpu_options() -> dict[str, int]:
    """Returns XLA's options for round programs on CPUs; none where this XLA does not know them.

    The widest vectors that the processor has. Fewer copies in loops
    (`xla_cpu_copy_insertion_use_region_analysis`) are not asked for: XLA then leaves out copies
    that tiny models need, and their results are wrong.
    """
    options = {"xla_cpu_prefer_vector_width": 512}
    return options if _are_known(options, jax.local_devices(backend="cpu")[0]) else {}


@functools.cache
def gpu_options(device: jax.Device) -> dict[str, int | str]:
    """Returns XLA's options for round programs on GPUs; none where this XLA does not know them.

    Loops over exchanges and steps become part of command buffers (CUDA graphs). Outside of them,
    each iteration of a loop whose trip count is data copies a truth value to the host and waits for
    it. What XLA puts there by default is in the list as well, since a list replaces it. A product
    that reads slices of a recurrence's inputs by itself would keep its loop out of them, and all
    loops around it.

    Args:
      device: A device that the program runs on.
    """
    if device.platform != "gpu":
        return {}
    options: dict[str, int | str] = {
        "xla_gpu_enable_command_buffer": ",".join(_COMMAND_BUFFERS),
        "xla_gpu_graph_min_graph_size": 1,
        "xla_gpu_enable_dynamic_slice_fusion": False,
    }
    return options if _are_known(options, device) else {}


def _are_known(options: dict[str, int | str], device: jax.Device) -> bool:
    """Returns whether XLA takes the options where it compiles for a device."""
    number = jax.ShapeDtypeStruct((), "float32", sharding=SingleDeviceSharding(device))
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(number).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def once_options() -> dict[str, int] | None:
    """Returns XLA's options for programs that run once, such as a model's initialization.

    On CPUs, machine code that is optimized less: a draw of random numbers compiles in a fifth of
    the time. What a number is computed from is the same, to the last digit.
    """
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None


def _processor() -> str:
    """Returns a name for the instructions that this processor has."""
    text = platform.machine() + platform.processor()
    try:
        with open("/proc/cpuinfo") as file:
            text += "".join(sorted({line for line in file if line.startswith(("flags", "Feat"))}))
    except OSError:
        pass
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

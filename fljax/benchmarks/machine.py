"""Describes the machine that a figure depends on: processor, devices, versions, attainable peak."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from fljax.engine.devices.execution import AXIS, make_mesh
from fljax.recording import versions

_COMPILATION = "/jax/core/compile/backend_compile_duration"


def machine() -> dict[str, Any]:
    """Returns processor, cores, devices, matmul precision, date and versions."""
    devices = jax.devices()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
    }


def matrix_peak(
    sizes: Sequence[int] | None = None, repeats: int = 3, operations: float | None = None
) -> float:
    """Measures the matrix peak: operations a second of square float32 products.

    All devices multiply at once, inside a compiled loop, as the round program does; the best size
    and repetition count. The precision is that of the context, so that on a GPU the default gives
    the peak of TF32, and `jax.default_matmul_precision("highest")` that of float32.

    Args:
      sizes: Sizes to try; None chooses for the platform.
      repeats: Timed runs of each size.
      operations: Of a timed run on each device, at least; None chooses for the platform.
    """
    on_cpu = jax.default_backend() == "cpu"
    sizes = sizes or ((512, 1024, 2048) if on_cpu else (2048, 4096, 8192))
    operations = operations or (5e9 if on_cpu else 5e12)
    return max(_product_rate(size, operations, repeats) for size in sizes)


def _product_rate(size: int, at_least: float, repeats: int) -> float:
    """Returns operations a second of products of one size, in runs of `at_least` a device."""
    mesh = make_mesh()
    operations = 2 * size**3
    steps = max(2, int(at_least / operations))

    @partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec(AXIS)))
    def operands():
        keys = jax.random.split(jax.random.key(0), mesh.size)
        return jax.vmap(lambda key: jax.random.normal(key, (size, size)) * size**-0.5)(keys)

    def one_device(x):
        factor = x[0]
        return jax.lax.fori_loop(0, steps, lambda _, y: jnp.matmul(y, factor), factor)[None]

    split = PartitionSpec(AXIS)
    products = jax.jit(jax.shard_map(one_device, mesh=mesh, in_specs=split, out_specs=split))
    x = operands()
    jax.block_until_ready(products(x))
    return mesh.size * steps * operations / min(_seconds(products, x) for _ in range(repeats))


def _seconds(function: Callable, *arguments: Any) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - begin


@contextlib.contextmanager
def compilation_clock() -> Iterator[Callable[[], float]]:
    """Yields a function that returns the seconds XLA has compiled for since the context began."""
    total = 0.0

    def listen(event: str, seconds: float, **_: Any) -> None:
        nonlocal total
        if event == _COMPILATION:
            total += seconds

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield lambda: total
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

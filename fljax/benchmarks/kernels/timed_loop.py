"""Times a function inside a compiled loop, one copy on each device at the same time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

SECONDS, REPEATS = 0.1, 5


def milliseconds(function: Callable, *args: jax.Array, clients: int = 0) -> float:
    """Returns the median time of one call, with one call at a time on every device.

    Args:
      function: Of `args`; a pytree of arrays.
      *args: Arrays of one client.
      clients: Clients side by side on each device; 0 for one without that axis.
    """
    devices = jax.local_device_count()
    mesh = jax.make_mesh((devices,), ("devices",))
    lead = (devices, clients) if clients else (devices,)
    function = jax.vmap(function) if clients else function

    def step(_, carry):
        args, outputs = carry
        # makes each call wait for the one before, at the cost of one number
        link = 1e-20 * jax.tree.leaves(outputs)[0].ravel()[0]
        first = args[0].at[(0,) * args[0].ndim].add(link.astype(args[0].dtype))
        return (first, *args[1:]), function(first, *args[1:])

    def repeat(times, *args):
        args = tuple(arg[0] for arg in args)
        outputs = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, *args)
        )
        outputs = lax.fori_loop(0, times, step, (args, outputs))[1]
        return jax.tree.map(lambda leaf: leaf[None], outputs)

    whole, split = PartitionSpec(), PartitionSpec("devices")
    run = jax.jit(
        jax.shard_map(
            repeat,
            mesh=mesh,
            in_specs=(whole, *(split for _ in args)),
            out_specs=split,
            check_vma=False,
        )
    )
    sharding = jax.NamedSharding(mesh, split)
    args = [jax.device_put(jnp.broadcast_to(arg, (*lead, *arg.shape)), sharding) for arg in args]

    def seconds(times):
        start = time.perf_counter()
        jax.block_until_ready(run(times, *args))
        return time.perf_counter() - start

    seconds(1)
    single = seconds(1)
    times = max(1, round(SECONDS / single))
    repeats = REPEATS if single < 1 else 1
    return 1e3 * statistics.median(seconds(times) for _ in range(repeats)) / times


def matrix_peak(sizes: tuple[int, ...] = (512, 1024, 2048)) -> float:
    """Returns the best GFLOP/s of a float32 product of square matrices, over all devices."""
    devices = jax.local_device_count()

    def rate(size):
        a, b = (jax.random.normal(jax.random.key(i), (size, size)) for i in range(2))
        return devices * 2e-6 * size**3 / milliseconds(jnp.matmul, a, b)

    return max(map(rate, sizes))

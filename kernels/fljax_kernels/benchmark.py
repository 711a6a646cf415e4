"""Times the kernels against XLA's own: `python -m fljax_kernels.benchmark`.

One step is a forward pass and both gradients at batch size 20, inside a compiled loop, as local
training runs it. The last column has a kernel for each of several clients.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.conv import conv_general_dilated

# name -> (height and width, input channels, output channels, kernel size, padding)
LAYERS = {
    "EMNIST CNN, first": (28, 1, 32, 3, "VALID"),
    "EMNIST CNN, second": (26, 32, 64, 3, "VALID"),
    "McMahan CNN, first": (28, 1, 32, 5, "SAME"),
    "McMahan CNN, second": (14, 32, 64, 5, "SAME"),
}
BATCH, CLIENTS, STEPS, REPEATS = 20, 4, 5, 7


def seconds_per_step(convolve: Callable, layer: str, clients: int | None) -> float:
    """Returns the median time of one step.

    Args:
      convolve: A function like `jax.lax.conv_general_dilated`.
      layer: One of `LAYERS`.
      clients: Number of kernels, each with a batch of its own; None for one without that axis.
    """
    size, channels, features, kernel, padding = LAYERS[layer]
    lead = () if clients is None else (clients,)
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (*lead, BATCH, size, size, channels))
    w = jax.random.normal(keys[1], (*lead, kernel, kernel, channels, features)) / kernel**2

    def loss(x, w):
        y = convolve(x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.mean(y**2)

    gradients = jax.grad(loss, argnums=(0, 1))
    gradients = gradients if clients is None else jax.vmap(gradients)

    def step(_, carry):
        return jax.tree.map(lambda value, slope: value - 1e-3 * slope, carry, gradients(*carry))

    run = jax.jit(lambda x, w: lax.fori_loop(0, STEPS, step, (x, w)))
    jax.block_until_ready(run(x, w))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(run(x, w))
        times.append(time.perf_counter() - start)
    return statistics.median(times) / STEPS


def main() -> None:
    """Prints one line a layer, in milliseconds a step."""
    print(f"{jax.devices()[0].device_kind}: milliseconds, ours / XLA's")
    for layer in LAYERS:
        line = []
        for clients in (None, CLIENTS):
            ours, xla = (
                1e3 * seconds_per_step(convolve, layer, clients)
                for convolve in (conv_general_dilated, lax.conv_general_dilated)
            )
            line.append(f"{ours:8.2f} / {xla:8.2f}")
        print(f"{layer:20} one client {line[0]}   {CLIENTS} clients {line[1]}")


if __name__ == "__main__":
    main()

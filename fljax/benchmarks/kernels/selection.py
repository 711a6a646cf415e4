"""Times selection and sketches: `python -m fljax.benchmarks.kernels.selection [--out=FILE.json]`.

As in `layers`: inside a compiled loop, one copy on each device at the same time. A kernel's GB/s
count what its mathematics needs, its input read once and its result written once, whatever the form
moves; they stand against copying an array of the same size, measured in the same run. Beside each
kernel stands what XLA's own operations make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fljax.benchmarks.kernels import bandwidth
from fljax.benchmarks.kernels.timed_loop import milliseconds
from fljax.engine.devices.execution import use_all_cores
from fljax_kernels.compaction import true_indices
from fljax_kernels.count_sketch import sketch, unsketch
from fljax_kernels.random_k import random_k, random_k_mask
from fljax_kernels.top_k import top_k, top_k_mask

# columns of a sketch, as a share of the coordinates
COLUMNS = 1 / 20
ROWS = 5


def selection_rows(d: int, clients: int, fraction: float) -> Iterator[dict[str, Any]]:
    """Yields one row for each form of each kernel.

    Args:
      d: Number of coordinates.
      clients: Clients side by side on each device; 0 is one without that axis.
      fraction: Share of the coordinates that is kept.
    """
    k = max(1, round(fraction * d))
    x = jax.random.normal(jax.random.key(0), (d,))
    # PRNG keys go around as their words: the loop of a measurement carries numbers
    words = jax.random.key_data(jax.random.key(1))
    columns = max(1, round(COLUMNS * d))

    def wrapped(function):
        return lambda words: function(jax.random.wrap_key_data(words))

    def dense_sort(x):
        return jnp.where(jnp.abs(x) >= jnp.sort(jnp.abs(x))[d - k], x, 0)

    def xla_top_k(x):
        indices = jnp.sort(lax.top_k(jnp.abs(x), k)[1])
        return x[indices], indices

    def random_subset(key):
        return jax.random.choice(key, d, (k,), replace=False)

    def scattered(x, places, signs):
        def of_row(places, signs):
            return jnp.zeros(columns).at[places].add(signs * x)

        return jax.vmap(of_row)(places, signs)

    def our_sketch(x):
        return sketch(x, jax.random.key(2), ROWS, columns)

    def our_estimates(sketched):
        return unsketch(sketched, jax.random.key(2), d)

    mask, sketched = top_k_mask(x, k).astype(jnp.int8), our_sketch(x)
    # drawing hash functions without structure takes longer than scattering: not measured
    places = jax.random.randint(jax.random.key(3), (ROWS, d), 0, columns)
    signs = jax.random.rademacher(jax.random.key(4), (ROWS, d), jnp.float32)
    of_mask, of_sketch = d + 4 * k, 4 * (d + ROWS * columns)
    forms: list[tuple[str, str, Callable, tuple[jax.Array, ...], int]] = [
        ("top-k, dense", "ours", lambda x: jnp.where(top_k_mask(x, k), x, 0), (x,), 8 * d),
        ("top-k, dense", "sort", dense_sort, (x,), 8 * d),
        ("top-k", "ours", lambda x: top_k(x, k), (x,), 4 * d + 8 * k),
        ("top-k", "lax.top_k", xla_top_k, (x,), 4 * d + 8 * k),
        ("indices of a mask", "ours", lambda mask: true_indices(mask > 0, k), (mask,), of_mask),
        ("indices of a mask", "nonzero", lambda m: jnp.nonzero(m, size=k)[0], (mask,), of_mask),
        ("random-k, mask", "ours", wrapped(lambda key: random_k_mask(key, d, k)), (words,), d),
        ("random-k", "ours", wrapped(lambda key: random_k(key, d, k)), (words,), 4 * k),
        ("random-k", "jax.random.choice", wrapped(random_subset), (words,), 4 * k),
        ("sketch", "ours", our_sketch, (x,), of_sketch),
        ("sketch", "scatter", scattered, (x, places, signs), of_sketch),
        ("unsketch", "ours", our_estimates, (sketched,), of_sketch),
    ]
    for kernel, form, function, args, size in forms:
        time = milliseconds(function, *args, clients=clients)
        yield {
            "kernel": kernel,
            "form": form,
            "milliseconds": time,
            "gigabytes_per_second": bandwidth.gigabytes_per_second(size, time, clients),
        }


def main(arguments: list[str] | None = None) -> None:
    """Prints a table, and writes it as JSON where asked to."""
    parser = bandwidth.options(__doc__.partition("\n")[0])
    parser.add_argument("--fraction", type=float, default=0.01, help="share that is kept")
    options = parser.parse_args(arguments)
    rows_of = partial(selection_rows, fraction=options.fraction)
    bandwidth.report(bandwidth.run(rows_of, options.sizes, options.clients), options.out)


if __name__ == "__main__":
    use_all_cores()
    main()

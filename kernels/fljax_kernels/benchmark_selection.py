"""Times selection and sketches: `python -m fljax_kernels.benchmark_selection [--out=FILE.json]`.

As in `fljax_kernels.benchmark`: inside a compiled loop, one copy on each device at the same time. A
kernel's GB/s count what its mathematics needs, its input read once and its result written once,
whatever the form moves; they stand against copying an array of the same size, measured in the same
run. Beside each kernel stands what XLA's own operations make of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.benchmark import milliseconds, use_all_cores
from fljax_kernels.compaction import true_indices
from fljax_kernels.count_sketch import sketch, unsketch
from fljax_kernels.random_k import random_k, random_k_mask
from fljax_kernels.top_k import top_k, top_k_mask

# the CNN of EMNIST, and softmax regression on its images
SIZES = (1_206_590, 7_850)
# columns of a sketch, as a share of the coordinates
COLUMNS = 1 / 20
ROWS = 5


def copy_gigabytes(d: int, clients: int) -> float:
    """Returns the GB/s, read and written over all devices, of negating float32[d]."""
    time = milliseconds(jnp.negative, jax.random.normal(jax.random.key(0), (d,)), clients=clients)
    return _rate(8 * d, time, clients)


def selection_rows(d: int, k: int, clients: int) -> Iterator[dict[str, Any]]:
    """Yields one row for each form of each kernel.

    Args:
      d: Number of coordinates.
      k: Number of them that are kept.
      clients: Clients side by side on each device; 0 is one without that axis.
    """
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
            "coordinates": d,
            "k": k,
            "clients": clients,
            "milliseconds": time,
            "gigabytes_per_second": _rate(size, time, clients),
        }


def _rate(size, time, clients):
    return 1e-6 * size * max(1, clients) * jax.local_device_count() / time


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| kernel | form | coordinates | k | clients | ms | GB/s | of copying |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        cells = [row["kernel"], row["form"], f"{row['coordinates']:,}", f"{row['k']:,}"]
        cells += [str(row["clients"] or 1), f"{row['milliseconds']:.3f}"]
        cells += [f"{row['gigabytes_per_second']:.2f}", f"{row['share_of_copying']:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(sizes: list[int], fraction: float, clients: list[int]) -> dict[str, Any]:
    """Measures everything.

    Args:
      sizes: Numbers of coordinates.
      fraction: Share of them that is kept.
      clients: Numbers of clients side by side on each device; 0 is one without that axis.
    """
    rows, copies = [], []
    for count in clients:
        for d in sizes:
            copy = copy_gigabytes(d, count)
            found = list(selection_rows(d, max(1, round(fraction * d)), count))
            copy = max(copy, copy_gigabytes(d, count))  # a processor may be slower at times
            copies.append({"coordinates": d, "clients": count, "gigabytes_per_second": copy})
            rows += [
                {**row, "share_of_copying": row["gigabytes_per_second"] / copy} for row in found
            ]
    devices = jax.local_devices()
    return {
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "jax": jax.__version__,
        "copies": copies,
        "rows": rows,
    }


def main(arguments: list[str] | None = None) -> None:
    """Prints a table, and writes it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--fraction", type=float, default=0.01, help="share that is kept")
    parser.add_argument(
        "--clients", nargs="*", type=int, default=[0], help="0: one, without that axis"
    )
    options = parser.parse_args(arguments)
    result = run(options.sizes, options.fraction, options.clients)
    print(f"{result['device']}, jax {result['jax']}; copying, read and written:")
    for copy in result["copies"]:
        print(
            f"- {copy['coordinates']:,} coordinates, {copy['clients'] or 1} client(s): "
            f"{copy['gigabytes_per_second']:.1f} GB/s"
        )
    print(table(result["rows"]))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    use_all_cores()
    main()

"""Reports how close memory-bound kernels come to the rate of copying: rows, tables, options."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fljax.benchmarks.kernels.timed_loop import milliseconds

# EMNIST CNN, softmax regression on MNIST
SIZES = (1_206_590, 7_850)
Row = dict[str, Any]


def gigabytes_per_second(size: int, time: float, clients: int) -> float:
    """Returns the rate over all devices.

    Args:
      size: Bytes that one client reads and writes.
      time: Milliseconds.
      clients: Clients side by side on each device; 0 is one without that axis.
    """
    return 1e-6 * size * max(1, clients) * jax.local_device_count() / time


def copy_rate(d: int, clients: int) -> float:
    """Returns the GB/s, read and written over all devices, of negating float32[d]."""
    time = milliseconds(jnp.negative, jax.random.normal(jax.random.key(0), (d,)), clients=clients)
    return gigabytes_per_second(8 * d, time, clients)


def run(
    rows_of: Callable[[int, int], Iterable[Row]], sizes: list[int], clients: list[int]
) -> dict[str, Any]:
    """Measures everything.

    Args:
      rows_of: (entries, clients) -> rows with `kernel`, `form`, `milliseconds` and
        `gigabytes_per_second`.
      sizes: Entries of a vector.
      clients: Numbers of clients side by side on each device; 0 is one without that axis.
    """
    rows, copies = [], []
    for count in clients:
        for d in sizes:
            copy = copy_rate(d, count)
            found = list(rows_of(d, count))
            copy = max(copy, copy_rate(d, count))  # a processor may be slower at times
            about = {"entries": d, "clients": count}
            copies.append(about | {"gigabytes_per_second": copy})
            for row in found:
                share = row["gigabytes_per_second"] / copy
                rows.append(row | about | {"share_of_copying": share})
    devices = jax.local_devices()
    return {
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "jax": jax.__version__,
        "copies": copies,
        "rows": rows,
    }


def table(rows: list[Row]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| kernel | form | entries | clients | ms a client | GB/s | of copying |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        clients = row["clients"] or 1
        cells = [row["kernel"], row["form"], f"{row['entries']:,}", str(clients)]
        cells += [f"{row['milliseconds'] / clients:.3f}", f"{row['gigabytes_per_second']:.2f}"]
        lines.append("| " + " | ".join([*cells, f"{row['share_of_copying']:.1%}"]) + " |")
    return "\n".join(lines)


def options(description: str) -> argparse.ArgumentParser:
    """Returns the options that these benchmarks have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument(
        "--clients", nargs="*", type=int, default=[0], help="0: one, without that axis"
    )
    return parser


def report(result: dict[str, Any], out: Path | None) -> None:
    """Prints what `run` returns, and writes it as JSON where asked to."""
    print(f"{result['device']}, jax {result['jax']}; copying, read and written:")
    for copy in result["copies"]:
        print(
            f"- {copy['entries']:,} entries, {copy['clients'] or 1} client(s): "
            f"{copy['gigabytes_per_second']:.1f} GB/s"
        )
    print(table(result["rows"]))
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")

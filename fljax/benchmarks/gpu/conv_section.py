"""Section: the forms of the convolution, beside each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import jax

from fljax.benchmarks.gpu.common import at_precision, device, peak
from fljax.benchmarks.gpu.records import Context, Table
from fljax.benchmarks.kernels import layers

_PARTS = ("forward", "input gradient", "weight gradient", "step")


def conv_forms(context: Context) -> Iterator[Table]:
    """Times the forms of the convolution, forward and both gradients, for 1 to 100 clients."""
    size = context.size
    notes = [
        f"Batches of {size.conv_batch}, every client with kernels of its own, one copy on each "
        "device, float32. A step is the forward pass with the gradients that training needs. Rates "
        "count the operations of direct convolution, whatever a form does.",
        device(),
    ]
    columns = [
        "layer",
        "form",
        "clients",
        *(f"{part}, ms" for part in _PARTS),
        "TFLOP/s",
        "of peak",
    ]
    best = peak("float32", size)
    found: list[dict[str, Any]] = []
    failures: list[str] = []
    for name, clients in itertools.product(size.conv_layers, size.conv_clients):
        try:
            with at_precision("float32"):
                rows = list(layers.convolution_rows(name, size.conv_batch, clients))
            found += [row | {"share_of_peak": 1e9 * row["gflops"] / best} for row in rows]
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).splitlines()[0][:200]
            failures.append(f"{name}, {clients} clients: {reason}")
        cells = [_cells(row) for row in found]
        problem = "; ".join(failures) or None
        yield Table("Forms of the convolution", notes, columns, cells, found, problem)


def _cells(row: dict[str, Any]) -> list[str]:
    times = [row["milliseconds"].get(part) for part in _PARTS]
    return [
        row["layer"],
        row["form"],
        str(row["clients"] or 1),
        *("" if ms is None else f"{ms:.3f}" for ms in times),
        f"{row['gflops'] / 1e3:.2f}",
        f"{row['share_of_peak']:.0%}",
    ]

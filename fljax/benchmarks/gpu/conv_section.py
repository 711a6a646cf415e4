"""Section: the forms of the convolution, beside each other."""

from __future__ import annotations

from typing import Any

import jax

from fljax.benchmarks.gpu.common import at_precision, device, peak
from fljax.benchmarks.gpu.records import Context, Table
from fljax.benchmarks.kernels import layers

_PARTS = ("forward", "input gradient", "weight gradient", "step")


def conv_forms(context: Context) -> Table:
    """Times the forms of the convolution, forward and both gradients, for 1 to 100 clients."""
    size = context.size
    cells, found, failures = [], [], []
    with at_precision("float32"):
        best = peak("float32", size)
        for name in size.conv_layers:
            for clients in size.conv_clients:
                try:
                    found += layers.convolution_rows(name, size.conv_batch, clients)
                except jax.errors.JaxRuntimeError as error:
                    reason = str(error).splitlines()[0][:200]
                    failures.append(f"{name}, {clients} clients: {reason}")
    for row in found:
        row["share_of_peak"] = 1e9 * row["gflops"] / best
        cells.append(_cells(row))
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
    problem = "; ".join(failures) or None
    return Table("Forms of the convolution", notes, columns, cells, found, problem)


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

"""Compares the forms of the convolution."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from fljax.benchmarks.gpu.common import at_precision, device, peak
from fljax.benchmarks.gpu.records import Context, Table
from fljax.benchmarks.kernels import layers

_PARTS = ("step", "with ReLU")
# what runs train in unless they ask for another one
_PRECISION = "TF32"


def conv_forms(context: Context) -> Iterator[Table]:
    """Times the forms of the convolution in a local step, and says which one wins each layer."""
    size = context.size
    notes = [
        f"Batches of {size.conv_batch}, every client with kernels of its own, one copy on each "
        f"device, {_PRECISION}. A step is the forward pass with the gradients that training needs, "
        "with ReLU the same with bias, ReLU and, where the model has it, pooling. Rates count the "
        "operations of direct convolution, whatever a form does.",
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
    best = peak(_PRECISION, size)
    found: list[dict[str, Any]] = []
    failures: list[str] = []
    for name, clients in itertools.product(size.conv_layers, size.conv_clients):
        for form in layers.forms():
            try:
                with at_precision(_PRECISION):
                    rows = list(
                        layers.convolution_rows(name, size.conv_batch, clients, [form], _PARTS)
                    )
            except Exception as error:  # the compiler's errors have no class in common
                reason = str(error).splitlines()[0][:200]
                failures.append(f"{name}, {form}, {clients} clients: {reason}")
                continue
            found += [row | {"share_of_peak": 1e9 * row["gflops"] / best} for row in rows]
        cells = [_cells(row) for row in found]
        problem = "; ".join(failures) or None
        yield Table(
            "Forms of the convolution", [*notes, winners(found)], columns, cells, found, problem
        )


def winners(rows: Sequence[dict[str, Any]]) -> str:
    """Returns sentences that say which form is the fastest of each layer, and by how much."""
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        where = f"{row['layer']}, {row['clients'] or 1} client(s)"
        groups.setdefault(where, {})[row["form"]] = row["milliseconds"]["with ReLU"]
    lines = []
    for where, times in groups.items():
        first, *others = sorted(times, key=times.__getitem__)
        beaten = f", {times[others[0]] / times[first]:.2f} x {others[0]}" if others else ""
        lines.append(f'{where}: "{first}"{beaten}.')
    return "The fastest with ReLU: " + " ".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["layer"],
        row["form"],
        str(row["clients"] or 1),
        *(f"{row['milliseconds'][part]:.3f}" for part in _PARTS),
        f"{row['gflops'] / 1e3:.2f}",
        f"{row['share_of_peak']:.0%}",
    ]

"""Compares the forms of the LSTM's recurrence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fljax.benchmarks.gpu.common import at_precision, device
from fljax.benchmarks.gpu.records import Context, Table
from fljax.benchmarks.kernels import layers
from fljax.benchmarks.kernels.timed_loop import milliseconds
from fljax_kernels.lstm import FORMS

_PRECISION = "TF32"
_BATCH = 10


def lstm_forms(context: Context) -> Iterator[Table]:
    """Times local steps of the Shakespeare LSTM in all forms of its recurrence."""
    clients = context.size.conv_clients[-1]
    notes = [
        f"Whole local steps of the Shakespeare LSTM, {clients} clients side by side, batches of "
        f"{_BATCH}, {layers.LENGTH} characters, {_PRECISION}.",
        device(),
    ]
    cells: list[list[str]] = []
    found: list[dict[str, Any]] = []
    failures: list[str] = []
    for form in layers.forms(FORMS):
        step, arguments, operations = layers.lstm_step(form, _BATCH)
        try:
            with at_precision(_PRECISION):
                ms = milliseconds(step, *arguments, clients=clients)
        except Exception as error:  # the compiler's errors have no class in common
            failures.append(f"{form}: {str(error).splitlines()[0][:200]}")
        else:
            rate = 1e-9 * operations * clients / ms
            found.append({"form": form, "milliseconds": ms, "tflops": rate})
            cells.append([form, f"{ms:.3f}", f"{rate:.2f}"])
        columns = ["form", "step, ms", "TFLOP/s"]
        yield Table("Forms of the LSTM", notes, columns, cells, found, "; ".join(failures) or None)

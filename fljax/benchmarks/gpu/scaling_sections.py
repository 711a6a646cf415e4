"""Sections: the speed of a round against the size of the cohort, and against the lanes."""

from __future__ import annotations

from fljax.benchmarks import protocols
from fljax.benchmarks.gpu.common import SPEED, clients_of_50, device, peak, speed, speed_cells
from fljax.benchmarks.gpu.records import Context, Table


def cohorts(context: Context) -> Table:
    """Measures clients a second and the share of the peak, cohort by cohort."""
    size = context.size
    rows, results = [], []
    for precision in protocols.PRECISIONS:
        attainable = peak(precision, size)
        for cohort in size.cohorts:
            workload = clients_of_50(size, cohort, population=max(size.cohorts))
            figures = speed(workload, precision, size, attainable)
            results.append({"precision": precision, "cohort": cohort, **figures})
            rows.append([precision, f"{cohort:,}", *speed_cells(figures)])
    notes = ["Clients of 50 examples, batch 10, CIFAR-10's CNN, synthetic data.", device()]
    return Table("Cohort size", notes, ["precision", "cohort", *SPEED], rows, results)


def lanes(context: Context) -> Table:
    """Measures a round for several numbers of lanes, and for the number that fljax chooses."""
    size = context.size
    attainable = peak("float32", size)
    rows, results = [], []
    for count in (*size.lanes, 0):
        workload = clients_of_50(size, size.lanes_cohort, size.lanes_cohort)
        figures = speed(workload, "float32", size, attainable, lanes=count)
        results.append({"asked": count, **figures})
        rows.append(["chosen" if not count else str(count), *speed_cells(figures)])
    notes = [f"Cohort {size.lanes_cohort:,} of clients of 50 examples, float32.", device()]
    return Table("Lanes", notes, ["lanes asked for", *SPEED], rows, results)

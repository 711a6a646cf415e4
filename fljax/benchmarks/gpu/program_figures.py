"""Counts what compiled round programs do: loops, launches, predicates, copies, bytes, operations.

From them follows how long a round would take on a card: of each kernel, the longest of its launch,
its bytes over the bandwidth, its products over the peak; what the host waits for comes on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fljax.benchmarks.gpu import hlo
from fljax.benchmarks.gpu.compiled import CompiledRound, Schedule
from fljax.benchmarks.gpu.thunks import Thunk, parse

# functions that make the loops of the round program -> what counts their iterations
_TRIPS = {
    "run_jobs": "waves",
    "_wave": "exchanges",
    # where several lanes exchange together, which is a wave
    "run_together": "exchanges",
    "_steps": "steps",
}


class Card(NamedTuple):
    """A card, by what limits a program on it.

    Attributes:
      bandwidth: Bytes a second that kernels attain.
      products: Multiplications and additions a second that matrix products attain (TF32).
      launch: Seconds of the shortest kernel, launched by the host.
      node: The same in a command buffer.
      wait: Seconds until the host has read a predicate and goes on.
    """

    bandwidth: float
    products: float
    launch: float
    node: float
    wait: float


# two thirds of the published bandwidth, half of the published peak: with these, and such times of
# launches, the rounds that were measured on an H200 come out within a third (BENCHMARKS.md)
CARDS = {
    "H100": Card(2.2e12, 250e12, 2.5e-6, 1.6e-6, 8e-6),
    "H200": Card(3.1e12, 250e12, 2.5e-6, 1.6e-6, 8e-6),
}


class Work(NamedTuple):
    """The work of an iteration of a loop, a step, a round.

    Attributes:
      kernels: Kernels and copies that are launched.
      predicates: Predicates that the host waits for.
      copied: Bytes of arrays that are copied.
      bytes: Bytes that are read and written.
      operations: Multiplications and additions of matrix products.
      seconds: What each of `CARDS` would take.
    """

    kernels: float
    predicates: float
    copied: float
    bytes: float
    operations: float
    seconds: tuple[float, ...]


class Loop(NamedTuple):
    """A loop of a round, or what lies outside of all loops.

    Attributes:
      function: The Python function that makes it; "" outside.
      depth: The number of loops around it.
      trips: Iterations a round, over all iterations of the loops around it.
      is_data: Whether its trip count is data of the program.
      in_buffer: Whether it runs within a command buffer.
      work: That of an iteration, without the loops within.
    """

    function: str
    depth: int
    trips: int
    is_data: bool
    in_buffer: bool
    work: Work


def loops(compiled: CompiledRound) -> list[Loop]:
    """Returns the loops of a round, each followed by those within; the first is no loop at all.

    A round of several passes is counted as if each pass had the schedule of all.
    """
    program = compiled.program
    module = hlo.parse(program.hlo)
    thunks = parse(program.thunks, program.names)
    return list(_nested(module, compiled.schedule, thunks, Loop("", 0, 1, False, False, _NOTHING)))


_NOTHING = Work(0, 0, 0, 0, 0, (0.0,) * len(CARDS))
_PREDICATE = Work(0, 1, 0, 0, 0, tuple(card.wait for card in CARDS.values()))


def added(*terms: tuple[float, Work]) -> Work:
    """Returns the sum of works, each times a number."""

    def total(field: str) -> float:
        return sum(times * getattr(work, field) for times, work in terms)

    *fields, _ = Work._fields
    seconds = (
        sum(times * work.seconds[place] for times, work in terms) for place in range(len(CARDS))
    )
    return Work(**{field: total(field) for field in fields}, seconds=tuple(seconds))


def _nested(
    module: hlo.Module, schedule: Schedule, thunks: Sequence[Thunk], loop: Loop
) -> Iterator[Loop]:
    """Yields a loop whose iterations run some thunks, then the loops within."""
    found = list(_flat(thunks, loop.in_buffer))
    own = [(1, _work_of(module, thunk, in_buffer)) for thunk, in_buffer in found]
    asked = loop.is_data and not loop.in_buffer
    yield loop._replace(work=added((asked, _PREDICATE), *own))
    for thunk, in_buffer in found:
        if thunk.kind == "kWhile":
            instruction = module.find(thunk.name)
            function, known = module.function_of(instruction), hlo.trip_count(instruction)
            trips = loop.trips * (known or 1)
            if known is None and function in _TRIPS:
                trips = getattr(schedule, _TRIPS[function])
            inner = Loop(function, loop.depth + 1, trips, known is None, in_buffer, _NOTHING)
            yield from _nested(module, schedule, thunk.held, inner)


def _flat(thunks: Sequence[Thunk], in_buffer: bool) -> Iterator[tuple[Thunk, bool]]:
    """Yields the thunks outside of inner loops, each with whether it is in a command buffer."""
    for thunk in thunks:
        yield thunk, in_buffer
        if thunk.kind != "kWhile" and not thunk.launches:
            yield from _flat(thunk.held, in_buffer or thunk.kind == "kCommandBuffer")


def _work_of(module: hlo.Module, thunk: Thunk, in_buffer: bool) -> Work:
    """Returns the work of a thunk itself."""
    if thunk.kind in ("kWhile", "kConditional"):
        known = thunk.kind == "kWhile" and hlo.trip_count(module.find(thunk.name)) is not None
        return _NOTHING if known or in_buffer else _PREDICATE
    instruction = module.find(thunk.name)
    if not thunk.launches or instruction is None:
        launched = thunk.kind == "kCommandBuffer" and not in_buffer
        return _NOTHING._replace(seconds=tuple(launched * card.launch for card in CARDS.values()))
    moved = hlo.moved_bytes(module, instruction)
    operations = hlo.product_operations(module, instruction)
    seconds = (
        max(
            card.node if in_buffer else card.launch,
            moved / card.bandwidth,
            operations / card.products,
        )
        for card in CARDS.values()
    )
    copied = moved // 2 if hlo.is_copy(module, instruction) else 0
    return Work(1, 0, copied, moved, operations, tuple(seconds))


def total(found: Sequence[Loop]) -> Work:
    """Returns the work of a round."""
    return added(*((loop.trips, loop.work) for loop in found))


def iteration(found: Sequence[Loop], function: str) -> Work | None:
    """Returns the work of an iteration of the round program's loop that a function makes.

    Loops within count with their iterations, but for those of the round program: a step counts the
    recurrence of an LSTM, an exchange counts no step. None where there is no such loop.
    """
    for place, loop in enumerate(found):
        if loop.function != function:
            continue
        terms = [(1.0, loop.work)]
        for inner in found[place + 1 :]:
            if inner.depth <= loop.depth or inner.function in _TRIPS:
                break
            terms.append((inner.trips / loop.trips, inner.work))
        return added(*terms)
    return None


def describe(name: str, compiled: CompiledRound) -> dict[str, Any]:
    """Returns the figures of a compiled round as JSON values."""
    found = loops(compiled)
    parts = dict.fromkeys(_TRIPS.values())
    for function, what in _TRIPS.items():
        parts[what] = parts[what] or iteration(found, function)
    memory = compiled.program.memory
    return {
        "workload": name,
        "execution": compiled.execution.as_plain(),
        "schedule": compiled.schedule._asdict(),
        "memory": {**memory._asdict(), "estimate": compiled.estimate},
        "round": total(found)._asdict(),
        **{what: part and part._asdict() for what, part in parts.items()},
        "loops": [loop._asdict() | {"work": loop.work._asdict()} for loop in found],
        "cards": list(CARDS),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns figures of `describe` as a Markdown table, a line a workload."""
    columns = [
        "workload", "lanes", "exchange", "waves / exchanges / steps", "predicates", "kernels",
        "of an exchange", "of a step", "copied MB of an exchange", "of a step", "MB of a step",
        "GFLOP", "plan KB", "memory MB", "of it temporary", "estimate",
        *(f"ms, {card}" for card in CARDS),
    ]  # fmt: skip
    lines = [columns, ["---"] * len(columns), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    plan, made, whole = row["execution"], row["schedule"], row["round"]
    parts = row["exchanges"], row["steps"]
    exchange, step = ({} if part is None else part for part in parts)

    def cell(part: Mapping[str, float], key: str, unit: float, digits: int) -> str:
        return f"{part[key] / unit:,.{digits}f}" if part else ""

    return [
        row["workload"],
        str(plan["lanes"]),
        str(plan["exchange_size"]),
        f"{made['waves']} / {made['exchanges']} / {made['steps']}",
        f"{whole['predicates']:,.0f}",
        f"{whole['kernels']:,.0f}",
        cell(exchange, "kernels", 1, 0),
        cell(step, "kernels", 1, 0),
        cell(exchange, "copied", 1e6, 1),
        cell(step, "copied", 1e6, 1),
        cell(step, "bytes", 1e6, 0),
        cell(step, "operations", 1e9, 2),
        f"{made['plan_bytes'] / 1e3:,.0f}",
        *(f"{row['memory'][kind] / 1e6:,.0f}" for kind in ("total", "temporary", "estimate")),
        *(f"{1e3 * seconds:.1f}" for seconds in whole["seconds"]),
    ]


def loop_table(row: Mapping[str, Any]) -> str:
    """Returns the loops of one workload as a Markdown table, those within indented."""
    columns = [
        "loop", "iterations a round", "kernels", "predicates", "copied MB", "MB", "GFLOP",
        *(f"us, {card}" for card in CARDS),
    ]  # fmt: skip
    lines = [columns, ["---"] * len(columns)]
    for loop in row["loops"]:
        work = loop["work"]
        where = " in a command buffer" if loop["in_buffer"] else ""
        lines.append(
            [
                f"{'- ' * loop['depth']}{loop['function'] or 'round'}{where}",
                f"{loop['trips']:,}{' (data)' if loop['is_data'] else ''}",
                f"{work['kernels']:,.0f}",
                f"{work['predicates']:,.0f}",
                f"{work['copied'] / 1e6:,.2f}",
                f"{work['bytes'] / 1e6:,.1f}",
                f"{work['operations'] / 1e9:,.2f}",
                *(f"{1e6 * seconds:,.0f}" for seconds in work["seconds"]),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

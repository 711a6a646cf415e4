"""Tells what a run would do and cost, without running a round of it."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from fljax.compression.sizes import Size
from fljax.core.algorithm import Algorithm, AlgorithmSpec
from fljax.core.digits import amount, counted
from fljax.core.fast_layers import named
from fljax.core.task import Task
from fljax.core.transforms import UPDATE, Pipeline, as_configured
from fljax.core.trees import nbytes
from fljax.data.dataset import FederatedDataset
from fljax.engine.devices.compilation import use_compilation_cache
from fljax.engine.devices.execution import ExecutionPlan
from fljax.engine.plan.batching import steps_per_job, takes_part, works_of
from fljax.systems.hardware import hardware
from fljax.training.device_memory import training_bytes
from fljax.training.edge_costs import RoundWork, described, round_cost
from fljax.training.federation import build
from fljax.training.local_work import local_work, schedules_of, structure_of
from fljax.training.options import RoundOptions
from fljax.training.partial_rounds import needed_bytes
from fljax.training.pass_flops import pass_flops
from fljax.training.rehearsal import Rehearsal, rehearsed
from fljax.training.traffic import training_traffic

# Of each class one: what a round asks of them is estimated.
_DEVICES = ("phone_mid", "raspberry_pi_5", "mcu_cortex_m7")


def describe(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    update: Size | None = None,
    links: tuple[float | None, float | None] = (None, None),
) -> str:
    """Returns clients, steps, FLOPs, memory and execution plan of a run as a text.

    FLOPs are those of the matrix products and direct convolutions of a step on one full batch of
    one client, times the steps of all passes, whatever form computes them: of a gradient, or of the
    losses alone where a pass asks for no gradient. The run is prepared
    until its round program is compiled, for XLA's figure of the memory; no round is run.

    Args:
      dataset, task, spec, options: As `simulate` takes them.
      update: Size of a compressed update; None where updates are sent as they are.
      links: Megabits a second of a client's uplink and downlink, where they are said.
    """
    sizes = dataset.train.partition.sizes[: dataset.members]
    shapes = rehearsed(dataset, task, spec, options.pipeline)
    params = shapes.variables.params
    param_bytes = nbytes(params)
    execution, needed = _prepared(dataset, task, spec, options)
    cohort = min(options.clients_per_round, dataset.members)
    local = _local_training(dataset, task, spec, options)
    steps_a_client, taking_part = local.steps, local.taking_part
    steps_a_round = steps_a_client * (cohort + (dataset.root is not None))
    flops = local.flops * steps_a_round
    pipeline, structure = as_configured(options.pipeline), structure_of(task, spec)
    received, sent = _traffic_of_a_client(shapes, structure, pipeline, update)
    down, up = (cohort * taking_part * link.bits / 8 for link in (received, sent))
    param_count = sum(leaf.size for leaf in jax.tree.leaves(params))
    rows = [
        ("dataset", f"{dataset.name}, {sizes.sum():,} training rows"),
        (
            "clients",
            f"{dataset.members:,}, rows min {sizes.min():,} / median {int(np.median(sizes)):,}"
            f" / max {sizes.max():,}",
        ),
        *([] if dataset.root is None else [("root", _root_rows(dataset))]),
        ("rounds", f"{options.num_rounds:,} of {cohort:,} clients"),
        (
            "local steps",
            f"{steps_a_client:.1f} a client, {steps_a_round:,.0f} a round"
            + (f"; {local.untrained:.1f} a client find losses alone" if local.untrained else ""),
        ),
        ("parameters", f"{param_count:,} ({amount(param_bytes, 'B')})"),
        *([("fast layers", named(task.replaced_layers))] if task.replaced_layers else []),
        (
            "FLOPs",
            f"{amount(flops, 'FLOP')} a round, {amount(flops * options.num_rounds, 'FLOP')} in all",
        ),
        (
            "communication",
            f"{amount(down, 'B')} down and {amount(up, 'B')} up a round, "
            f"{amount((down + up) * options.num_rounds, 'B')} in all",
        ),
        *_compression(received, sent, update),
        (
            "memory",
            f"data {amount(dataset.train.examples.nbytes, 'B')} ({execution.placement})"
            + ("" if needed is None else f", round program {amount(needed, 'B')} a device"),
        ),
        (
            "execution",
            f"{execution.devices} {jax.default_backend()} device(s) x {execution.lanes} lane(s), "
            f"waves of {execution.wave}",
        ),
        *_on_devices(round_work(dataset, task, spec, options, update), links),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def round_work(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    update: Size | None = None,
) -> RoundWork:
    """Returns what a client of middling size does in a round; arguments as for `describe`."""
    shapes = rehearsed(dataset, task, spec, options.pipeline)
    local = _local_training(dataset, task, spec, options)
    pipeline, structure = as_configured(options.pipeline), structure_of(task, spec)
    received, sent = _traffic_of_a_client(shapes, structure, pipeline, update)
    width = local_work(dataset.train.partition.sizes, options).width
    return RoundWork(
        steps=local.steps,
        flops=local.flops,
        moved=training_traffic(task, dataset.train.examples.spec, width, dataset.preprocess),
        memory=training_bytes(dataset, task, spec, options, width, shapes),
        downlink_bytes=received.bits / 8,
        uplink_bytes=sent.bits / 8,
    )


def _on_devices(work: RoundWork, links: tuple[float | None, float | None]) -> list[tuple[str, str]]:
    """Returns what a round asks of some devices of the edge."""
    devices = {name: hardware(name) for name in _DEVICES}
    return [
        (f"on {name}", described(device, work, round_cost(device, work, *links)))
        for name, device in devices.items()
    ]


def _root_rows(dataset: FederatedDataset) -> str:
    """Returns what is to be said of the server's own rows."""
    size = int(dataset.train.partition.sizes[dataset.root])
    return f"{counted(size, 'row')} that the server trains on in every round"


class _LocalTraining(NamedTuple):
    """The local work of a client in the mean.

    Attributes:
      steps: Of all passes.
      untrained: Those of passes that find losses alone.
      flops: Of a step.
      taking_part: The share of clients that have work.
    """

    steps: float
    untrained: float
    flops: float
    taking_part: float


def _local_training(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> _LocalTraining:
    sizes, work = dataset.train.partition.sizes, local_work(dataset.train.partition.sizes, options)
    works = works_of(work, schedules_of(task, spec))
    has_work = takes_part(sizes, works)
    steps = np.mean([np.where(has_work, steps_per_job(sizes, local), 0) for local in works], 1)
    each = pass_flops(dataset, task, spec, work.width)
    whole = float(steps.sum())
    flops = sum(n * step.operations for n, step in zip(steps, each, strict=True)) / max(whole, 1e-9)
    untrained = sum(n for n, step in zip(steps, each, strict=True) if not step.trains)
    return _LocalTraining(whole, float(untrained), float(flops), float(np.mean(has_work)))


def _prepared(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> tuple[ExecutionPlan, int | None]:
    """Returns the layout by rule, and what its round program takes of a device if XLA says it."""
    use_compilation_cache()
    federation = build(dataset, task, spec, dataclasses.replace(options, calibrate=False))
    planned = federation.plan_round(0, federation.cohorts.init())
    return federation.execution, needed_bytes(federation, *planned)


class _Traffic(NamedTuple):
    """Bits of one client in a round, and what they would be without compression."""

    bits: float
    dense_bits: int


def _compression(received: _Traffic, sent: _Traffic, update: Size | None) -> list[tuple[str, str]]:
    """Returns what is to be said of compressed links."""
    compressed = {"uplink": update is not None, "downlink": received.bits != received.dense_bits}
    rows = [
        (name, f"{bits:,.0f} bits a client, {_compared(bits, dense)}")
        for name, (bits, dense) in (("uplink", sent), ("downlink", received))
        if compressed[name]
    ]
    if update is not None and update.positions is not None:
        raw, bitmap, entropy = update.positions
        text = f"{raw:,} bits raw, {bitmap:,} as a bitmap, at least {entropy:,.0f} (entropy)"
        rows.append(("positions", text))
    return rows


def _compared(bits: float, dense: int) -> str:
    if bits == dense:
        return "as many as without compression"
    if bits > dense:
        return f"{bits / dense:.1f} times as many as {dense:,} without compression"
    return f"{dense / bits:.1f} times fewer than {dense:,}"


def _traffic_of_a_client(
    shapes: Rehearsal, structure: Algorithm, pipeline: Pipeline, update: Size | None
) -> tuple[_Traffic, _Traffic]:
    """Returns what one client receives and sends in a round."""
    messages = [  # without those that a pass has from the one before
        message
        for each, message in zip(structure.passes, shapes.messages, strict=True)
        if each.broadcast is not None
    ]
    sent = [
        {name: part.value for name, part in contributions.items()}
        for contributions in shapes.contributions
    ]
    down, up = 8 * nbytes(messages), 8 * nbytes(sent)
    on_downlink, on_uplink = down, up
    if pipeline.downlink:
        on_downlink = sum(int(pipeline.downlink[-1].bits(message)) for message in messages)
    if update is not None:
        updates = sum(UPDATE in contributions for contributions in sent)
        on_uplink += updates * (update.bits - update.dense_bits)
    return _Traffic(on_downlink, down), _Traffic(on_uplink, up)

"""Tells what an exported model costs: size, operations, memory, and time and energy on devices."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fljax.core.trees import nbytes
from fljax.export.forward import Forward
from fljax.systems.hardware import HARDWARE
from fljax.systems.roofline import INFERENCE, Estimate, estimate
from fljax.training.edge_costs import RoundCost, RoundWork, round_cost
from fljax.training.flops import forward_flops
from fljax.training.liveness import moved_bytes, peak_bytes
from fljax.training.traffic import plain_forms


class InferenceCost(NamedTuple):
    """The cost of the outputs of one row.

    Attributes:
      parameters: How many numbers the weights are.
      weight_bytes: What they take.
      flops: Operations of matrix products and convolutions, counted in the traced program.
      xla_flops: XLA's own count of all operations, each loop's body once; None where it has none.
      moved: Bytes between memory and processor.
      memory: Bytes at the worst moment, weights included.
    """

    parameters: int
    weight_bytes: int
    flops: float
    xla_flops: float | None
    moved: float
    memory: int


def inference_cost(model: Forward) -> InferenceCost:
    """Returns what one row takes; nothing is compiled or run.

    Args:
      model: The model.
    """
    arguments = model.arguments(1)
    with plain_forms():
        jaxpr = jax.make_jaxpr(model.function)(*arguments).jaxpr
        counted = jax.jit(model.function).lower(*arguments).cost_analysis()
    weights = nbytes(arguments[0])
    return InferenceCost(
        parameters=sum(array.size for array in model.weights.values()),
        weight_bytes=weights,
        flops=forward_flops(jaxpr),
        xla_flops=(counted or {}).get("flops"),
        moved=moved_bytes(jaxpr),
        memory=weights + nbytes(arguments[1]) + peak_bytes(jaxpr),
    )


class DeviceCost(NamedTuple):
    """The demands of a model on a device.

    Attributes:
      inference: Of one row, in float32, or in int8 where the device has nothing else.
      dtype: Which of the two.
      inference_fits: Whether weights and activations fit into its memory.
      training: Of a round of one client; None where nothing is known of the training.
    """

    inference: Estimate
    dtype: str
    inference_fits: bool
    training: RoundCost | None


def device_costs(
    cost: InferenceCost,
    work: RoundWork | None = None,
    links: tuple[float | None, float | None] = (None, None),
) -> dict[str, DeviceCost]:
    """Returns what a model asks of each device of `fljax.systems.hardware.HARDWARE`.

    Args:
      cost: Of one row.
      work: Of a client's round, where it is known.
      links: Megabits a second of a client's uplink and downlink, where they are said.

    Example:
      >>> from fljax.export.costs import InferenceCost, device_costs
      >>> cost = InferenceCost(1000, 4000, 2000.0, None, 5000.0, 5000)
      >>> found = device_costs(cost)["edge_tpu"]
      >>> found.dtype, found.inference_fits, found.training
      ('int8', True, None)
    """
    found = {}
    for name, device in HARDWARE.items():
        dtype = "float32" if "float32" in device.peak else "int8"
        share = 1.0 if dtype == "float32" else 0.25  # of the bytes
        needed: Any = estimate(device, cost.flops, share * cost.moved, work=INFERENCE, dtype=dtype)
        found[name] = DeviceCost(
            needed,
            dtype,
            share * cost.memory <= device.memory,
            None if work is None else round_cost(device, work, *links),
        )
    return found

"""The execution plan: devices, lanes, waves. Choices here never change results."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.core.capacity import own_bytes, physical_bytes
from fljax.core.values import COUNT, Field, checked
from fljax.engine.devices.distributed import allgather, cores, neighbours, num_processes

AXIS = "devices"


class Forms(NamedTuple):
    """The forms in which a program computes operations; they differ in speed, and in rounding.

    Attributes:
      conv, lstm: What "auto" stands for in `fljax_kernels.conv_general_dilated` and in
        `fljax_kernels.lstm`; "auto" leaves it to the backend.
      fused_updates: Whether accelerators update dense layers in the kernel of their gradients.
    """

    conv: str = "auto"
    lstm: str = "auto"
    fused_updates: bool = False

    def as_layout(self) -> dict[str, Any]:
        """Returns them as a layout is recorded."""
        return {
            "conv_form": self.conv,
            "lstm_form": self.lstm,
            "fused_updates": self.fused_updates,
        }

    @classmethod
    def of_layout(cls, layout: Mapping[str, Any]) -> Forms:
        """Returns those of a record; older ones have none."""
        names = cls().as_layout()
        return cls(*(layout.get(name, default) for name, default in names.items()))


class ExecutionPlan(NamedTuple):
    """The layout of a round's jobs on the hardware.

    Attributes:
      devices: Number of devices that share the jobs.
      lanes: Clients trained side by side on each device (the vmapped axis).
      wave: Finished clients whose updates a device holds at once before they are aggregated.
      exchange_size: Lanes that change jobs together, and are a wave then; 1 on CPUs, unless clients
        all end together.
      placement: "device" keeps the training data on the devices, "stream" stages the cohort's rows
        from host memory each round.
      forms: The forms in which operations are computed.
    """

    devices: int
    lanes: int
    wave: int
    exchange_size: int
    placement: str
    forms: Forms = Forms()

    def as_plain(self) -> dict[str, Any]:
        """Returns the plan as JSON can hold it, all on one level."""
        own = {name: value for name, value in self._asdict().items() if name != "forms"}
        return own | self.forms.as_layout()


class ClientBytes(NamedTuple):
    """The memory that one client takes on a device, in bytes.

    Attributes:
      carry: What it keeps from step to step: its model, the state of its optimizer.
      step: What a step needs beside that: batch, activations, gradients.
      finish: What the end of its work needs beside that: updates, what the uplink makes of them.
    """

    carry: int
    step: int
    finish: int

    def held(self, lanes: int, wave: int, exchange_size: int = 1) -> int:
        """Returns the bytes of clients on lanes, and of finished ones.

        These wait in the slots of a wave, or on their lanes where several exchange together.
        """
        slots = wave if exchange_size == 1 else 0
        return (lanes + slots) * self.carry + max(lanes * self.step, wave * self.finish)


def clients_of_size(param_bytes: int) -> ClientBytes:
    """Returns a guess at what clients take from the size of the model alone."""
    return ClientBytes(2 * param_bytes, 4 * param_bytes, 0)


def even_lanes(jobs: int, most: int) -> int:
    """Returns how many lanes, at most so many, take equally many jobs, one more or less.

    Example:
      >>> even_lanes(100, 64), even_lanes(100, 200)
      (50, 100)
    """
    turns = -(-jobs // max(most, 1))
    return -(-jobs // turns)


def use_all_cores(count: int | None = None) -> None:
    """Splits the host CPU into as many XLA devices as it has cores.

    XLA runs the bodies of compiled loops on few threads, so a CPU is fully used only when the
    clients are sharded over several devices. This must happen before JAX starts its backend;
    afterwards a warning is given and nothing changes. Without effect on GPUs and TPUs.

    Args:
      count: Number of CPU devices. By default what is set already (`jax_num_cpu_devices`, or
        `--xla_force_host_platform_device_count` in XLA_FLAGS), else the cores that this process
        may use; several processes on one machine share its cores.

    Example:
      >>> fljax.use_all_cores()  # doctest: +SKIP
    """
    count = checked("count", count, Field(None, int, COUNT, optional=True))
    if count is None:
        if jax.config.jax_num_cpu_devices > 0 or _flags_set_devices():
            return  # somebody chose a number already
        count = cores()
    if jax.config.jax_num_cpu_devices == count:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        if jax.default_backend() == "cpu" and jax.local_device_count() < count:
            warnings.warn(
                f"JAX has already started with {jax.local_device_count()} CPU device(s), so "
                f"{count} cores cannot all be used. Call fljax.use_all_cores() before the first "
                "JAX computation.",
                stacklevel=3,
            )


def _flags_set_devices() -> bool:
    """Returns whether XLA_FLAGS sets a number of CPU devices, which the option of JAX overrides."""
    flags = os.environ.get("XLA_FLAGS", "")
    return re.search(r"--xla_force_host_platform_device_count=\d", flags) is not None


def make_mesh(num_devices: int = 0) -> jax.sharding.Mesh:
    """Returns a one-dimensional mesh over the first `num_devices` devices (0: all).

    Of several processes, each gives as many.
    """
    available = jax.devices()
    if num_devices > len(available):
        raise ValueError(
            f"devices = {num_devices}, but JAX sees {len(available)} {available[0].platform} "
            "device(s). Lower `devices`, or set it to 0 for all."
        )
    if num_devices:
        available = _equal_shares(available, num_devices)
    return jax.sharding.Mesh(np.asarray(available), (AXIS,))


def _equal_shares(available: list[jax.Device], count: int) -> list[jax.Device]:
    """Returns `count` devices, the first ones of every process, in their order."""
    if count == len(available):
        return available
    share, rest = divmod(count, num_processes())
    taken: list[jax.Device] = []
    for process in range(num_processes()):
        taken += [device for device in available if device.process_index == process][:share]
    if rest or len(taken) < count:
        raise ValueError(
            f"devices = {count} cannot be shared equally by {num_processes()} processes with "
            f"{len(available)} devices in all. Choose a multiple of {num_processes()} that each "
            "process has its share of, or set `devices` to 0 for all."
        )
    return taken


def choose(
    *,
    cohort: int,
    equal_steps: bool,
    data_bytes: int,
    param_bytes: int,
    needs_stack: bool,
    client: ClientBytes | None = None,
    devices: int = 0,
    lanes: int = 0,
    wave: int = 0,
    placement: str = "auto",
    memory_bytes: int | None = None,
) -> ExecutionPlan:
    """Chooses an execution plan; every value that is given is kept.

    Args:
      cohort: Largest number of jobs in a round.
      equal_steps: Whether all clients take the same number of local steps.
      data_bytes: Size of the training data; above a quarter of the memory it is streamed.
      param_bytes: Size of one model.
      needs_stack: Whether the whole cohort's updates must be held at once.
      client: What a client takes; None guesses it from the size of the model.
      devices: 0 uses all.
      lanes: 0 chooses: one on a CPU device; on an accelerator as many as fit into half of its
        memory, 64 at most, none of which is idle while others have two jobs more.
      wave: 0 chooses: one on a CPU, as many as lanes on an accelerator. Up to as many as lanes, it
        is what exchanges together on an accelerator.
      placement: "auto", "device" or "stream".
      memory_bytes: Memory of one device; None takes what is free.

    Raises:
      ValueError: For an unknown placement, or if the training cannot fit, with the figures.
    """
    if placement not in ("auto", "device", "stream"):
        raise ValueError(f"placement = {placement!r}; choose 'auto', 'device' or 'stream'.")
    for name, value in {"lanes": lanes, "wave": wave, "devices": devices}.items():
        if value < 0:
            raise ValueError(f"{name} = {value}; give a positive number, or 0 to choose.")
    mesh = make_mesh(devices)
    count = mesh.size
    memory = memory_bytes or free_memory_of(mesh)
    on_cpu = mesh.local_devices[0].platform == "cpu"
    jobs = max(1, -(-cohort // count))
    client = client or clients_of_size(max(param_bytes, 1))
    if not lanes:
        # the lanes of an accelerator exchange together
        each = client.held(1, 1, exchange_size=2)
        lanes = 1 if on_cpu else even_lanes(jobs, min(64, memory // 2 // each))
    if not wave:
        wave = 1 if on_cpu else lanes
    exchange_size = 1 if on_cpu or wave > lanes else wave
    if equal_steps and wave <= lanes:
        wave = exchange_size = lanes
    copies = len(mesh.local_devices) if on_cpu else 1
    if placement == "auto":
        placement = "device" if data_bytes * copies <= memory // 4 else "stream"
    held = client.held(lanes, wave, exchange_size) * copies
    if needs_stack:
        # each device has its jobs, and then its share of the parameters of all
        held += 2 * cohort * param_bytes * copies // count
    if held > memory:
        raise ValueError(
            f"{lanes} lanes, waves of {wave} and a cohort of {cohort} with {param_bytes / 1e6:.1f} "
            f"MB of parameters need about {held / 1e9:.2f} GB"
            + (" (the aggregator or a cohort transform holds every update)" if needs_stack else "")
            + f", and the device has {memory / 1e9:.2f} GB left. Lower lanes, wave or "
            "clients_per_round."
        )
    return ExecutionPlan(count, lanes, wave, exchange_size, placement)


def memory_of(mesh: jax.sharding.Mesh) -> int:
    """Returns the memory that a device of the mesh may use; with several processes, the least."""
    return min(allgather(device_memory_bytes(mesh.local_devices[0])))


def free_memory_of(mesh: jax.sharding.Mesh) -> int:
    """Returns the memory of a device that nobody in this process has taken; else as `memory_of`."""
    device = mesh.local_devices[0]
    return min(allgather(device_memory_bytes(device) - taken_bytes(device)))


def taken_bytes(device: jax.Device) -> int:
    """Returns what arrays and programs of this process have taken of a device's own memory.

    Where the backend does not say, and on CPUs, 0.
    """
    stats = device.memory_stats() if device.platform != "cpu" else None
    return int((stats or {}).get("bytes_in_use", 0))


def device_memory_bytes(device: jax.Device) -> int:
    """Returns the memory a local device may use: its own limit, or this process's share."""
    return own_bytes(device) or host_memory_bytes()


def host_memory_bytes() -> int:
    """Returns the physical memory of this machine, shared equally by its processes."""
    return physical_bytes() // neighbours()

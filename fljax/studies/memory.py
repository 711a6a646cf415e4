"""The number of trials that may train side by side under a memory bound."""

from __future__ import annotations

import os
from pathlib import Path

from jax.sharding import Mesh

from fljax.core.trees import nbytes
from fljax.engine.devices.execution import make_mesh, memory_of
from fljax.engine.store.client_store import most_bytes
from fljax.recording import host_peak_memory_bytes
from fljax.recording.checkpoints import CHECKPOINT_COPIES
from fljax.studies.groups import Group
from fljax.training.options import RoundOptions
from fljax.training.rehearsal import rehearsed

# A CPU's compiler works in the memory of the process.
_COMPILER_BYTES = 300_000_000


def affordable(
    group: Group,
    options: RoundOptions,
    in_use: int,
    memory_gb: float | None = None,
    together: int = 0,
) -> int:
    """Returns how many trials of a group may train side by side.

    Args:
      group: The group.
      options: Of its runs.
      in_use: Bytes that the process took before any trial was built.
      memory_gb: Bound in 10^9 bytes: of the process on a CPU, of each device elsewhere. None is
        half of what there is.
      together: The most that are wanted; 0 for all.

    Raises:
      ValueError: If the bound leaves no room for a single trial, with the figures.
    """
    mesh = make_mesh(options.devices)
    bound = memory_of(mesh) // 2 if memory_gb is None else int(memory_gb * 1e9)
    examples = group.experiment.dataset.train.examples
    on_cpu = mesh.local_devices[0].platform == "cpu"
    # the devices of a CPU share its memory
    copies = len(mesh.local_devices) if on_cpu else 1
    used = copies * (examples.nbytes if examples.arrays is not None else 0)
    if on_cpu:
        used += in_use + _COMPILER_BYTES
    on_a_device, of_clients = _bytes_of_a_trial(group, options, mesh)
    each = copies * on_a_device + of_clients
    wanted = min(together or len(group.trials), len(group.trials))
    count = min(wanted, max(bound - used, 0) // max(each, 1))
    if count < 1:
        raise ValueError(
            f"memory_gb = {bound / 1e9:.2f} leaves no room for a trial: {used / 1e9:.2f} GB are "
            f"taken by the data, the process and its compiler, and a trial needs "
            f"{each / 1e9:.2f} GB. Raise memory_gb."
        )
    return count


def host_memory_in_use() -> int:
    """Returns the bytes of memory that the process takes; the most so far if that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return host_peak_memory_bytes() or 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _bytes_of_a_trial(group: Group, options: RoundOptions, mesh: Mesh) -> tuple[int, int]:
    """Returns what one trial takes on each device, and what its clients keep beside that.

    On a device: state old and new, message, sums, evaluation, and what new clients start from, old
    and new. Of the clients: their rows on all devices, which all lie in a CPU's memory together
    with the copies that a checkpoint takes; elsewhere a device holds its share.
    """
    dataset, task, spec, *_ = group.experiment
    shapes = rehearsed(dataset, task, spec, options.pipeline)
    params, server, row = shapes.variables.params, shapes.state, shapes.row
    takes_part = options.num_rounds * options.clients_per_round
    clients = min(dataset.num_clients, takes_part)
    jobs = -(-3 * options.clients_per_round // 2) + mesh.size
    on_cpu = mesh.local_devices[0].platform == "cpu"
    copies = CHECKPOINT_COPIES if on_cpu else 0
    rows = most_bytes(nbytes(row), clients, jobs, mesh.size, copies)
    on_a_device = 2 * nbytes(server) + 4 * nbytes(params) + 2 * nbytes(row)
    return on_a_device, rows if on_cpu else -(-rows // mesh.size)

"""Says how much memory machines and devices have."""

from __future__ import annotations

import os

import jax

from fljax.core.cgroups import granted_bytes


def physical_bytes() -> int:
    """Returns the memory of this machine, or of the container that this process is in."""
    all_of_it = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(all_of_it, granted_bytes() or all_of_it)


def own_bytes(device: jax.Device) -> int | None:
    """Returns the memory that a local device has of its own; None of CPUs, or if nobody says."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return int(stats["bytes_limit"]) if stats and "bytes_limit" in stats else None

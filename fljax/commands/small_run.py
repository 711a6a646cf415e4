"""Tries what computes: names the devices, and trains a model of 15 weights for a few rounds."""

from __future__ import annotations

import collections
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

import fljax
from fljax import algorithms, data, models
from fljax.core.capacity import own_bytes, physical_bytes
from fljax.core.cgroups import granted_cores


def tried() -> dict[str, Any]:
    """Returns devices, machine, cache and the outcome of the run, as JSON can hold them."""
    fljax.use_all_cores()
    fljax.use_compilation_cache()
    return {
        "platform": jax.default_backend(),
        "devices": devices(),
        "cores": os.cpu_count(),
        "granted_cores": granted_cores(),
        "memory_bytes": physical_bytes(),
        "x64": bool(jax.config.jax_enable_x64),
        "cache": cache(jax.config.jax_compilation_cache_dir),
        "run": outcome(),
    }


def devices() -> list[dict[str, Any]]:
    """Returns of each kind of device its name, how many there are, and the memory of one."""
    kinds = collections.defaultdict(list)
    for device in jax.devices():
        kinds[device.device_kind].append(device)
    return [
        {"kind": kind, "count": len(found), "memory_bytes": own_bytes(found[0])}
        for kind, found in kinds.items()
    ]


def cache(folder: str | None) -> dict[str, Any]:
    """Returns the folder of compiled programs, their number and bytes, and if it can be written.

    Args:
      folder: Where JAX keeps them; None where it keeps none.
    """
    if not folder:
        return {"folder": None}
    path = Path(folder)
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    above = next(part for part in (path, *path.parents) if part.exists())
    writable = os.access(above, os.W_OK)
    return {"folder": folder, "files": len(sizes), "bytes": sum(sizes), "writable": writable}


def outcome() -> dict[str, float]:
    """Returns the first and last loss of three rounds of FedAvg, and how long they took."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(160, 4)).astype(np.float32)
    clients = np.arange(len(x)) % 8
    run = fljax.simulate(
        data.from_arrays(x, x[:, :3].argmax(1), client_ids=clients),
        models.mlp((4, 3)),
        algorithms.fedavg(client_lr=0.5),
        num_rounds=3,
        clients_per_round=8,
        batch_size=10,
        progress=False,
    )
    losses = run.curves["train/loss"]
    return {
        "first_loss": float(losses[1]),
        "last_loss": float(losses[-1]),
        "compile_seconds": run.summary["compile_seconds"],
        "round_seconds": run.summary["seconds_per_round_median"],
    }

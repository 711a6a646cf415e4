"""Checkpoints of a run: what is saved, and whether a saved run may be gone on with."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.data.dataset import Partition
from fljax.engine.distributed import is_main
from fljax.federation import Federation
from fljax.kept_models import Best
from fljax.options import RunOptions
from fljax.recording import Checkpoints
from fljax.recording.jsonio import plain
from fljax.records import RoundTotals

# Keys of a configuration that may change between the parts of a run.
_FREE = {
    "num_rounds", "eval_every", "eval_batch_size", "eval_clients", "target_accuracy",
    "stop_at_target", "patience", "min_delta", "baselines", "checkpoint_every", "keep_checkpoints",
    "wandb", "lanes", "devices", "wave", "placement", "rounds_per_dispatch", "data_dir",
    "calibrate",
}  # fmt: skip


class Progress(NamedTuple):
    """How far a run has come.

    Attributes:
      round: Completed rounds.
      totals: Bytes and seconds so far.
      sampler_state: State of the sampler after that round.
      best: The best model so far, where there is one.
    """

    round: int
    totals: RoundTotals
    sampler_state: Any
    best: Best | None = None


def save(
    checkpoints: Callable[[], Checkpoints],
    federation: Federation,
    progress: Progress,
    options: RunOptions,
) -> None:
    """Saves a federation after `progress.round` rounds; its buffers may be donated right after.

    Of several processes, the first one writes all of it; the others help to gather it.
    """
    metadata = {
        "execution": federation.layout,
        "identity": identity(federation, options),
        "totals": dataclasses.asdict(progress.totals),
        "store_rows": federation.store.num_rows,
        "best_round": progress.best and progress.best.round,
    }
    state = _state(federation, progress.sampler_state)
    if progress.best is not None:
        state["best"] = progress.best.variables
    if is_main():
        checkpoints().save(progress.round, state, metadata)


def restore(
    checkpoints: Checkpoints, federation: Federation, round: int, options: RunOptions
) -> Progress:
    """Brings a freshly built federation to where a checkpoint was taken.

    Raises:
      ValueError: If the checkpoint belongs to another configuration.
    """
    metadata = checkpoints.metadata(round)
    check_identity(identity(federation, options), metadata["identity"], round)
    template = _state(federation, federation.cohorts.init())
    template["store"] = federation.store.template(metadata["store_rows"])
    best_round = metadata.get("best_round")
    if best_round is not None:
        template["best"] = federation.variables
    state, _ = checkpoints.restore(round, template)
    federation.load(state["server"], state["store"])
    best = None if best_round is None else Best(best_round, state["best"])
    return Progress(round, RoundTotals(**metadata["totals"]), state["sampler"], best)


def _state(federation: Federation, sampler_state: Any) -> dict[str, Any]:
    return {
        "server": federation.state,
        "store": federation.store.state(),
        "sampler": sampler_state,
    }


def identity(federation: Federation, options: RunOptions) -> dict[str, Any]:
    """Returns what must not change when a run is resumed, as JSON values."""
    rounds, dataset = federation.options, federation.dataset
    names = ("clients_per_round", "local_epochs", "local_steps", "batch_size", "remainder")
    schedules = {
        name: [float(schedule(round)) for round in (0, 1, 10, 100)]
        for name in ("client_lr_schedule", "server_lr_schedule")
        if (schedule := getattr(rounds, name)) is not None
    }
    config = {key: value for key, value in (options.config or {}).items() if key not in _FREE}
    return plain(
        config
        | {"algorithm": federation.spec.name}
        | dict(federation.sources[0].hparams)
        | {"dataset": dataset.name, "num_clients": dataset.num_clients}
        | {"partition's rows": fingerprint(dataset.train.partition)}
        | {name: getattr(rounds, name) for name in (*names, "shuffle", "seed", "compute_dtype")}
        | ({"sampler": rounds.sampler} if isinstance(rounds.sampler, str) else {})
        | {name: getattr(options, name) for name in ("uplink_mbps", "downlink_mbps")}
        | {"matmul_precision": options.matmul_precision, "x64": jax.config.jax_enable_x64}
        | schedules
    )


def fingerprint(partition: Partition) -> int:
    """Returns a checksum of which client owns which rows."""
    checksum = zlib.crc32(np.ascontiguousarray(partition.offsets).tobytes())
    if partition.index is None:
        return checksum
    return zlib.crc32(np.ascontiguousarray(partition.index).tobytes(), checksum)


def check_identity(now: Mapping[str, Any], saved: Mapping[str, Any], round: int) -> None:
    """Raises ValueError if a checkpoint belongs to another configuration."""
    changed = [
        f"{name} was {saved.get(name)!r} and is {now.get(name)!r}"
        for name in {**saved, **now}
        if saved.get(name) != now.get(name)
    ]
    if changed:
        raise ValueError(
            f"The checkpoint of round {round} was written under another configuration: "
            f"{'; '.join(changed)}. Resume with the values in the run's config.json, or use "
            "another --workdir."
        )

"""Saves and restores a run, and says whether a saved run may be gone on with."""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from fljax.core.per_client import described
from fljax.core.sampler import Sampler
from fljax.core.settings import SYSTEMS, affecting
from fljax.core.values import FILES, RECORD, RESULTS, SPEED, shown
from fljax.data.dataset import ROLES, FederatedDataset, Partition
from fljax.engine.devices.distributed import is_main
from fljax.engine.plan.feedback import Statistics
from fljax.engine.program.versions import empty_ring, resized
from fljax.recording import Checkpoints, say
from fljax.recording.checksums import Extent
from fljax.recording.jsonio import plain
from fljax.recording.recorder import refuse_study
from fljax.recording.runs import METRICS, SUMMARY
from fljax.training.federation import Federation
from fljax.training.model_files import BestModel
from fljax.training.options import RunOptions
from fljax.training.own_code import OWN_CODE, warn_of_changes
from fljax.training.privacy_records import EPSILON, ledger_of, named_protection
from fljax.training.robustness import named_robustness
from fljax.training.timing import named_systems
from fljax.training.totals import RoundTotals

# what stands for records of functions
_NAMED = {"privacy", "secure_aggregation", "aggregator", "attack", *SYSTEMS}
_SCHEDULES = ("client_lr_schedule", "server_lr_schedule")
# keys of an identity that older checkpoints have not, and how many rows of each split are read
_DATA, _OPTIMIZER, _FROZEN, _ROWS = "data", "client_optimizer", "constants of the model", 256


class ResumePoint(NamedTuple):
    """The point that a run has reached, from which it can be resumed.

    Attributes:
      round: Completed rounds.
      totals: Bytes and seconds so far.
      sampler_state: State of the sampler after that round.
      best: The best model so far, where there is one.
      extent: How far `metrics.jsonl` goes; None without a file, and of older checkpoints.
      feedback: {round: statistics} that the sampler has still to be told.
      turns: How often each client was asked so far, see `fljax.recording.timeline`; empty without
        a clock.
    """

    round: int
    totals: RoundTotals
    sampler_state: Any
    best: BestModel | None = None
    extent: Extent | None = None
    feedback: Mapping[int, Statistics] = {}
    turns: Mapping[str, np.ndarray] = {}


def save(
    checkpoints: Callable[[], Checkpoints],
    federation: Federation,
    progress: ResumePoint,
    options: RunOptions,
) -> None:
    """Saves a federation after `progress.round` rounds; its buffers may be donated right after.

    Of several processes, the first one writes all of it; the others help to gather it.
    """
    metadata = {
        "execution": federation.layout,
        "identity": identity(federation, options),
        "spent": spent_by(federation, progress.round),
        "totals": dataclasses.asdict(progress.totals),
        "store_rows": federation.store.num_rows,
        "num_versions": federation.planner.num_versions,
        "best_round": progress.best and progress.best.round,
        "records": progress.extent,
        "feedback": [
            (round, {name: (str(array.dtype), len(array)) for name, array in found.items()})
            for round, found in sorted(progress.feedback.items())
        ],
        "turns": [(name, str(array.dtype), len(array)) for name, array in progress.turns.items()],
    }
    state = _state(federation, progress.sampler_state)
    state["feedback"] = [found for _, found in sorted(progress.feedback.items())]
    if progress.best is not None:
        state["best"] = progress.best.variables
    if progress.turns:
        state["turns"] = dict(progress.turns)
    if is_main():
        checkpoints().save(progress.round, state, metadata)


def find_start(checkpoints: Checkpoints, workdir: Path, num_rounds: int) -> int:
    """Returns the round that a run can be gone on with from: that of its newest whole checkpoint.

    A checkpoint is as good as the records of its rounds: where those were changed, an older one is
    taken.

    Args:
      checkpoints: Of the run.
      workdir: Of the run.
      num_rounds: Rounds of the run, those that are done included.

    Returns:
      The round; 0 for a run that was killed before its first checkpoint.

    Raises:
      ValueError: If no checkpoint is whole, or more rounds are done than the run is to have.
      FileNotFoundError: If there is none, of a run that has come to its end.
      FileExistsError: If the directory holds a study.
    """
    refuse_study(workdir)
    metrics = workdir / METRICS
    # without its records, a run would choose its best round and its patience anew
    start = checkpoints.newest_whole(lambda metadata: records_fault(metadata, metrics))
    if start is None:
        if (workdir / SUMMARY).exists():
            raise FileNotFoundError(
                f"{workdir} holds a run that has ended, but none of its checkpoints, so that it "
                "cannot be gone on with. Put them back, or start again in another --workdir."
            )
        if metrics.exists():
            say(f"{workdir} has no checkpoint yet; the run starts again from its first round.")
        return 0
    if start > num_rounds:
        raise ValueError(
            f"num_rounds = {num_rounds}, but the run in {workdir} has completed {start} rounds. "
            "Resume it with at least as many, or read it by fljax.load_run."
        )
    return start


def extent_of(metadata: Mapping[str, Any]) -> Extent | None:
    """Returns how far the records went when a checkpoint was taken; older ones do not know."""
    return Extent(*metadata["records"]) if metadata.get("records") else None


def records_fault(metadata: Mapping[str, Any], path: Path) -> str | None:
    """Says what is wrong with the records that a checkpoint counts on, in the file at `path`."""
    extent = extent_of(metadata)
    if extent is None or extent.begins(path.read_bytes() if path.exists() else b""):
        return None
    return f"cannot be used, since {path} is not what was written until then"


def restore(
    checkpoints: Checkpoints, federation: Federation, round: int, options: RunOptions
) -> ResumePoint:
    """Brings a freshly built federation to where a checkpoint was taken.

    Raises:
      ValueError: If the checkpoint belongs to another configuration.
    """
    metadata = checkpoints.metadata(round)
    what = f"The checkpoint of round {round}"
    now = identity(federation, options)
    check_identity(now, metadata["identity"], what)
    check_spent(spent_by(federation, round), metadata.get("spent"), what)
    warn_of_changes(now.get(OWN_CODE, {}), metadata["identity"].get(OWN_CODE, {}))
    template = _state(federation, federation.cohorts.init())
    # of another number of rounds, more or fewer versions are kept at a time
    versions, saved = federation.planner.num_versions, metadata.get("num_versions", 1)
    template["server"] = federation.state._replace(past=_empty_past(federation, saved))
    template["store"] = federation.store.template(metadata["store_rows"])
    pending = metadata.get("feedback", [])
    template["feedback"] = [
        {name: np.empty(length, dtype) for name, (dtype, length) in arrays.items()}
        for _, arrays in pending
    ]
    best_round = metadata.get("best_round")
    if best_round is not None:
        template["best"] = federation.variables
    if turns := metadata.get("turns"):
        template["turns"] = {name: np.empty(length, dtype) for name, dtype, length in turns}
    state, _ = checkpoints.restore(round, template)
    past = state["server"].past if saved > 1 else _empty_past(federation, versions)
    past = resized(past, versions) if versions > 1 else ()
    federation.load(state["server"]._replace(past=past), state["store"])
    best = None if best_round is None else BestModel(best_round, state["best"])
    totals = RoundTotals(**metadata["totals"])
    rounds = [round for round, _ in pending]
    feedback = dict(zip(rounds, state["feedback"], strict=True))
    return ResumePoint(
        round, totals, state["sampler"], best, extent_of(metadata), feedback,
        state.get("turns", {}),
    )  # fmt: skip


def _empty_past(federation: Federation, num_versions: int) -> Any:
    """Returns the past messages of a run's trials, leaves [S, V, ...], before the first of them."""
    if num_versions == 1:
        return ()
    server = jax.tree.map(lambda leaf: leaf[0], federation.state.server)
    ring = jax.eval_shape(lambda: empty_ring(federation.algorithm, server, num_versions))
    trials = len(federation.trials)
    return jax.tree.map(lambda leaf: np.zeros((trials, *leaf.shape), leaf.dtype), ring)


def spent_by(federation: Federation, round: int) -> float | None:
    """Returns what so many rounds spend by the quick accountant; None where nothing is private."""
    ledger = ledger_of(federation.options, federation.trials[0].hparams)
    return None if ledger is None else float(ledger.record(round)[EPSILON])


def check_spent(now: float | None, then: float | None, what: str) -> None:
    """Raises ValueError if a mechanism would count rounds otherwise than when they were run."""
    if now is None or then is None or math.isclose(now, then, rel_tol=1e-9):
        return
    raise ValueError(
        f"{what} was written when its rounds had spent epsilon = {then:.6g}, and by the mechanism "
        f"as it is now they have spent {now:.6g}. Resume with the arguments of privacy that the "
        "run began with, or start a new one."
    )


def _state(federation: Federation, sampler_state: Any) -> dict[str, Any]:
    return {
        "server": federation.state,
        "store": federation.store.state(),
        "sampler": sampler_state,
    }


def identity(federation: Federation, options: RunOptions) -> dict[str, Any]:
    """Returns what must not change when a run is resumed, as JSON values."""
    rounds, dataset = federation.options, federation.dataset
    given, free = {**vars(options), **vars(rounds)}, affecting(RECORD, SPEED, FILES)
    hparams = dict(federation.trials[0].hparams)
    decisive = affecting(RESULTS) & given.keys() - {*_SCHEDULES, *_NAMED, *hparams}
    if isinstance(rounds.sampler, Sampler):
        decisive -= {"sampler"}
    own = {name for name in ("client_lr_factors", "client_weights") if given[name] is not None}
    schedules = {
        name: [float(schedule(round)) for round in (0, 1, 10, 100)]
        for name in _SCHEDULES
        if (schedule := given[name]) is not None
    }
    return plain(
        {name: value for name, value in (options.config or {}).items() if name not in free}
        | {"algorithm": federation.spec.name}
        | hparams
        | {"dataset": dataset.name, "num_clients": dataset.num_clients}
        | {"replaced_layers": list(federation.task.replaced_layers)}
        | {"partition's rows": fingerprint(dataset.train.partition)}
        | {_DATA: data_checksums(dataset)}
        | {name: described(given[name]) for name in decisive | own}
        | named_protection(rounds)
        | named_robustness(rounds)
        | named_systems(rounds)
        | {_OPTIMIZER: optimizer_fingerprint(federation)}
        | frozen_fingerprint(federation.inputs.frozen)
        | {"x64": jax.config.jax_enable_x64}
        | schedules
    )


def data_checksums(dataset: FederatedDataset) -> dict[str, int]:
    """Returns checksums of some rows of each split, of the clients' ids and the classes' names."""
    found = {}
    for name in ROLES:
        split = getattr(dataset, name)
        if split is None or not (count := split.examples.num_examples):
            continue
        rows = np.unique(np.linspace(0, count - 1, _ROWS).astype(np.int64))
        found[name] = checksum(jax.tree.leaves(split.examples.take(rows)))
    for name in ("client_ids", "held_out_ids", "class_names"):
        if (values := getattr(dataset, name)) is not None:
            found[name] = zlib.crc32(repr(np.asarray(values).tolist()).encode())
    return found


def checksum(arrays: Iterable[Any]) -> int:
    """Returns one checksum of arrays, in their order."""
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array).tobytes(), total)
    return total


def frozen_fingerprint(frozen: Any) -> dict[str, int]:
    """Returns a checksum of some numbers of each of a model's constants; nothing without any.

    Checkpoints do not hold them: they may come from a file, which may be another one by now.
    """
    leaves = [np.ravel(_numbers_of(leaf)) for leaf in jax.tree.leaves(frozen)]
    if not leaves:
        return {}
    places = [np.linspace(0, leaf.size - 1, min(leaf.size, _ROWS)) for leaf in leaves]
    some = [leaf[at.astype(np.int64)] for leaf, at in zip(leaves, places, strict=True)]
    return {_FROZEN: checksum(some)}


def _numbers_of(leaf: Any) -> np.ndarray:
    """Returns an array on the host; of random keys, their words."""
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def optimizer_fingerprint(federation: Federation) -> dict[str, Any] | None:
    """Returns what the clients' optimizer computes, as a checksum; None where there is none.

    The text of its first step holds its operations and its numbers, those that hyperparameters do
    not name as well. Versions of JAX and optax write it differently, so it goes with theirs.
    """
    spec = federation.spec
    if spec.client_optimizer is None:
        return None
    optimizer = spec.client_optimizer(federation.trials[0].hparams)

    def first_step(server):
        params = federation.algorithm.variables(jax.tree.map(lambda leaf: leaf[0], server)).params
        return optimizer.update(params, optimizer.init(params), params)

    text = str(jax.make_jaxpr(first_step)(federation.state.server))
    text = re.sub("0x[0-9a-f]+", "", text)  # addresses of functions
    return {"jax": jax.__version__, "optax": optax.__version__, "step": zlib.crc32(text.encode())}


def fingerprint(partition: Partition) -> int:
    """Returns a checksum of which client owns which rows, and when."""
    arrays = [partition.offsets]
    if partition.index is not None:
        arrays.append(partition.index)
    return checksum([*arrays, *(partition.motion or ())])


def check_identity(now: Mapping[str, Any], saved: Mapping[str, Any], what: str) -> None:
    """Raises ValueError if what was saved, such as a checkpoint, has another configuration."""
    names = [
        name
        for name in {**saved, **now}
        if saved.get(name) != now.get(name) and _is_comparable(name, now, saved)
    ]
    # other hyperparameters change what the optimizer computes, too, and say so themselves
    names = [name for name in names if name != _OPTIMIZER] or names
    changed = [
        f"{name} computes something else"
        if name == _OPTIMIZER
        else f"{name} was {shown(saved.get(name))} and is {shown(now.get(name))}"
        for name in names
    ]
    if changed:
        raise ValueError(
            f"{what} was written under another configuration: {'; '.join(changed)}. Resume with "
            "the values in its config.json, or use another --workdir."
        )


def _is_comparable(name: str, now: Mapping[str, Any], saved: Mapping[str, Any]) -> bool:
    """Returns whether a checkpoint tells what a name was; those of other versions may not."""
    if name == _OPTIMIZER:
        found, before = now.get(name) or {}, saved.get(name) or {}
        return all(found.get(package) == before.get(package) for package in ("jax", "optax"))
    if name == "attackers":  # unset and 0, which older ones have for it, make nobody hostile
        return bool(now.get(name) or saved.get(name))
    return name != OWN_CODE and (name not in (_DATA, _FROZEN) or name in saved)

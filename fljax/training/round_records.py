"""Makes a round's record from its raw statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.clusterings import adjusted_rand_index, clusters_of
from fljax.engine.plan.round_plan import HostPlan
from fljax.engine.program.client import HOSTILE
from fljax.training import drift
from fljax.training.totals import RoundTotals

NO_GROUPS: Mapping[str, np.ndarray] = {}

# Statistics that every algorithm has, or the engine; of several passes those of the last one count.
_OF_THE_LAST_PASS = {
    *drift.STATISTICS,
    "unselected",
    "refused",
    "jobs",
    "nonfinite",
    "lost",
    "uplink_bits",
    "downlink_bits",
    "loss",
    "weight",
}


class LinkSpeeds(NamedTuple):
    """Megabits (10^6 bits) a second of every client's link; None takes no time."""

    uplink_mbps: float | None = None
    downlink_mbps: float | None = None


def round_record(
    facts: HostPlan,
    stats: Sequence[Mapping[str, np.ndarray]],
    totals: RoundTotals,
    seconds: float,
    speeds: LinkSpeeds,
    groups: Mapping[str, np.ndarray] = NO_GROUPS,
    root: int | None = None,
) -> dict[str, Any]:
    """Returns the record of one round, and adds to the totals.

    Args:
      facts: What the host knows of the plan.
      stats: Per-job statistics [D, J] of each pass.
      totals: Running totals, updated in place.
      seconds: Wall-clock time of the round.
      speeds: Of the simulated links.
      groups: {name: [N] group of each client}, to which clusters are compared.
      root: The server's own client, which sends nothing and is none of the population; or None.
    """
    totals.elapsed += seconds
    of_training = training_record(facts, stats, totals, speeds, groups=groups, root=root)
    record = of_training | {
        "time/round_seconds": seconds,
        "time/elapsed_seconds": totals.elapsed,
        "time/plan_seconds": facts.seconds,
        "throughput/clients_per_second": facts.num_jobs / seconds,
        "throughput/examples_per_second": facts.rows_real / seconds,
    }
    if facts.rows_computed:
        record["utilization"] = facts.rows_real / facts.rows_computed
    return record


def training_record(
    facts: HostPlan,
    stats: Sequence[Mapping[str, np.ndarray]],
    totals: RoundTotals,
    speeds: LinkSpeeds,
    trial: int = 0,
    groups: Mapping[str, np.ndarray] = NO_GROUPS,
    root: int | None = None,
) -> dict[str, Any]:
    """Returns what one trial's record says of training and messages, and adds to its totals.

    Args:
      facts, stats, speeds, groups, root: As for `round_record`.
      totals: Of the trial.
      trial: Its number.
    """
    clients = facts.clients
    if len(facts.steps) > 1:
        own = (facts.trials == trial) & (facts.clients >= 0)
        stats, clients = _of_jobs(stats, own), clients[own]
    everybody = recorded(stats)
    if root is not None:
        stats, clients = _of_jobs(stats, clients != root), clients[clients != root]
    last = recorded(stats)
    further = facts.downlink_bytes[trial] if facts.downlink_bytes else 0.0
    record = {
        "round": int(np.broadcast_to(facts.round, len(facts.steps))[trial]) + 1,
        "train/clients": _exact_sum(last["jobs"]),
        "train/clients_nonfinite": int(np.sum(diverged(stats))),
        "train/clients_lost": _exact_sum(last["lost"]),
        "train/clients_without_rows": int(facts.without_rows[trial]),
        "train/local_steps": int(facts.steps[trial]),
        **_communication(stats, totals, speeds, further),
    }
    weight = float(np.sum(last["weight"], dtype=np.float64)) if "weight" in last else 0.0
    if weight:
        record["train/loss"] = float(np.sum(last["loss"], dtype=np.float64)) / weight
    if "unselected" in last:
        left_out = (np.asarray(last["unselected"]) > 0) & ~diverged(stats)
        record["train/clients_unselected"] = int(np.sum(left_out))
    if "refused" in last:
        record["train/clients_refused"] = _exact_sum(last["refused"])
    if HOSTILE in last:
        record[HOSTILE] = _exact_sum(last[HOSTILE])
    if facts.records:
        record |= facts.records[trial]
    # the mean of a round's updates is that of all who trained
    record |= drift.drift_record(everybody, record.get("train/loss"), totals)
    reported = {name for name in last if f"{name}/weight" in last}  # by links of the uplink
    for name in sorted(reported):
        if weight := float(np.sum(last[f"{name}/weight"], dtype=np.float64)):
            record[key_of(name)] = float(np.sum(last[name], dtype=np.float64)) / weight
    known = _OF_THE_LAST_PASS | {HOSTILE} | reported | {f"{name}/weight" for name in reported}
    for name in sorted(last.keys() - known):
        record[key_of(name)] = float(np.sum(last[name], dtype=np.float64))
    return record | _agreements(last, clients, groups)


def _of_jobs(stats: Sequence[Mapping[str, Any]], chosen: np.ndarray) -> list[dict[str, Any]]:
    """Returns the statistics of those jobs at which a mask is true."""
    return [{name: values[chosen] for name, values in of_pass.items()} for of_pass in stats]


def recorded(stats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns {name: statistic} of a round: the last pass's, and what only earlier ones tell.

    Example:
      >>> recorded([{"loss": 1, "own_loss": 2}, {"loss": 3}])
      {'own_loss': 2, 'loss': 3}
    """
    earlier = {name: value for of_pass in stats[:-1] for name, value in of_pass.items()}
    own = {name: value for name, value in earlier.items() if name not in _OF_THE_LAST_PASS}
    return own | dict(stats[-1])


def agreement_key(group: str) -> str:
    """Returns the key of how far clusters agree with a group of clients."""
    return f"train/adjusted_rand/{group}"


def _agreements(
    stats: Mapping[str, np.ndarray], clients: np.ndarray, groups: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Returns how far the clusters of a round's clients agree with each of their groups."""
    clusters = clusters_of(stats)
    if clusters is None or not (clusters >= 0).any():
        return {}
    arrived, clients = clusters[clusters >= 0], clients[clusters >= 0]
    return {
        agreement_key(name): adjusted_rand_index(arrived, np.asarray(values)[clients])
        for name, values in groups.items()
    }


def key_of(statistic: str) -> str:
    """Returns the key of a statistic in records; one with a room of its own has said it.

    Example:
      >>> key_of("loss"), key_of("privacy/clip_norm")
      ('train/loss', 'privacy/clip_norm')
    """
    return statistic if "/" in statistic else f"train/{statistic}"


def _communication(
    stats: Sequence[Mapping[str, np.ndarray]],
    totals: RoundTotals,
    speeds: LinkSpeeds,
    further: float,
) -> dict[str, Any]:
    """Returns what is recorded of a round's messages, and adds to the totals.

    Transfers are simulated for a synchronous round: in each pass all clients receive and then send
    at the same time, each over a link of its own, and the server waits for the slowest. Training
    takes no time in it.

    Args:
      stats, totals, speeds: As for `training_record`.
      further: Bytes received for jobs that the program hears nothing of.
    """
    sent, received = (
        [np.asarray(of_pass[f"{side}_bits"], np.int64) for of_pass in stats]
        for side in ("uplink", "downlink")
    )
    uplink_bits, downlink_bits = _exact_sum(sent), _exact_sum(received)
    downlink_bits += round(8 * further)
    totals.uplink_bits += uplink_bits
    totals.downlink_bits += downlink_bits
    record = {
        "comm/uplink_bytes": _bytes(totals.uplink_bits),
        "comm/downlink_bytes": _bytes(totals.downlink_bits),
        "comm/round_uplink_bytes": _bytes(uplink_bits),
        "comm/round_downlink_bytes": _bytes(downlink_bits),
    }
    by_client = sum(sent)
    by_client = by_client[by_client > 0]
    if by_client.size:
        record |= {
            "comm/client_uplink_bytes_mean": uplink_bits / 8 / by_client.size,
            "comm/client_uplink_bytes_min": _bytes(int(by_client.min())),
            "comm/client_uplink_bytes_max": _bytes(int(by_client.max())),
        }
    if speeds != LinkSpeeds():
        each = [
            _seconds(up, speeds.uplink_mbps) + _seconds(down, speeds.downlink_mbps)
            for up, down in zip(sent, received, strict=True)
        ]
        seconds = sum(float(seconds.max(initial=0)) for seconds in each)
        totals.transfer += seconds
        record |= {
            "comm/round_transfer_seconds": seconds,
            "comm/transfer_seconds": totals.transfer,
        }
    return record


def _seconds(bits: np.ndarray, mbps: float | None) -> np.ndarray:
    return np.zeros(bits.shape) if mbps is None else bits / (mbps * 1e6)


def _bytes(bits: int) -> int:
    return -(-bits // 8)


FATES = ("nonfinite", "unselected")


def passes_kept(stats: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Returns int[...], how many passes kept what a job made: finite, and not left out."""
    return np.sum([~np.any(_fates(of_pass), axis=0) for of_pass in stats], axis=0)


def diverged(stats: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Returns bool[...], the jobs that were not finite after a pass that they were selected for."""
    fates = [_fates(of_pass) for of_pass in stats]
    return np.any([nonfinite & ~left_out for nonfinite, left_out in fates], axis=0)


def _fates(of_pass: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Returns bool[...] for each of `FATES`; in a pass without a rule none is left out."""
    nothing = np.zeros_like(of_pass["nonfinite"])
    return [np.asarray(of_pass.get(name, nothing)) > 0 for name in FATES]


def _exact_sum(values: np.ndarray) -> int:
    return int(np.sum(values, dtype=np.int64))

"""The work of one client: it starts from a message, takes its steps, and sends what it learned."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core import transmission
from fljax.core.algorithm import ClientPass, Contribution, Job, step_key
from fljax.core.precision import check_numbers, summable
from fljax.core.transforms import UPDATE, Pipeline
from fljax.core.trees import all_finite, square_norm, traced_once
from fljax.engine.program.accumulators import Finished
from fljax.engine.program.arrivals import taken_in
from fljax.engine.program.drift import of_update
from fljax.engine.program.inputs import ClientRows
from fljax.engine.program.keys import BATCH, UPLINK
from fljax.engine.program.layout import Work
from fljax.engine.program.passes import Pass

PyTree = Any
# Counts hostile clients whose work arrives.
HOSTILE = "robustness/attackers"


def client_work(
    a_pass: Pass, data: dict[str, jax.Array], uplink_states: tuple, newest: PyTree | None = None
) -> Work:
    """Returns what one job does in a pass.

    Args:
      a_pass: The pass.
      data: {name: array} rows that batches are made of.
      uplink_states: Server-side states of the uplink, leaves [S, ...].
      newest: The newest messages, leaves [S, ...], where updates are counted from them.
    """
    trials, jobs, selected = a_pass.trials, a_pass.jobs, a_pass.selected

    def functions_of(job: Job) -> ClientPass:
        return trials.of_job(job).algorithm.passes[a_pass.number]

    def start(message: PyTree, index: jax.Array, rows: ClientRows) -> PyTree:
        job = a_pass.job(index)
        return functions_of(job).start(message, rows.algorithm, job)

    def step(message: PyTree, carry: PyTree, index: jax.Array, rows, count, time) -> PyTree:
        job = a_pass.job(index, time)
        batch = jax.tree.map(lambda values: values[rows], data)
        batch["mask"] = jnp.arange(rows.shape[0]) < count
        if (sizes := trials.inputs.own.batch_sizes) is not None:
            batch["size"] = jnp.minimum(sizes[job.client], job.rows.astype(sizes.dtype))
        batch = changed(trials.of_job(job).pipeline, batch, job)
        return functions_of(job).step(message, carry, batch, job)

    def finish(message: PyTree, carry: PyTree, index: jax.Array, rows: ClientRows) -> Finished:
        job = a_pass.job(index)
        contributions, client_state, stats = functions_of(job).finish(message, carry, job)
        for name, contribution in contributions.items():
            check_numbers({"value": contribution.value, "weight": contribution.weight}, name)
            _check_cluster(name, contribution.cluster, a_pass.structure.num_clusters)
        # before the uplink too: rounding to integers would hide what is not a number
        square = square_norm(contributions[UPDATE].value) if UPDATE in contributions else 0.0
        finite = all_finite((_but_update(contributions), stats)) & jnp.isfinite(square)
        if jax.tree.leaves(client_state):
            finite &= _stays_finite(client_state, rows.algorithm)
        pipeline, states = trials.of_job(job).pipeline, trials.select(uplink_states, job.trial)
        sound = finite
        if pipeline.makes_finite:
            # of a broken update a zero is sent, and nothing is kept
            sound = all_finite({name: part.weight for name, part in contributions.items()})
            client_state = jax.tree.map(
                lambda new, old: jnp.where(finite, new, old), client_state, rows.algorithm
            )
        agreed = None if a_pass.agreed is None else trials.select(a_pass.agreed, job.trial)
        sent, uplink_state, bits, reported = send(
            pipeline, contributions, rows.uplink, states, job, agreed
        )
        sent = taken_in(a_pass, sent, index, message, newest)
        clusters = {n: part.cluster for n, part in sent.items() if part.cluster is not None}
        arrives_whole = pipeline.leaves_alone(UPDATE) and not a_pass.changes_updates
        sound &= all_finite(_but_update(sent) if arrives_whole else sent)
        if a_pass.sound is not None:
            sound &= a_pass.sound[index]
        for cluster in clusters.values():
            sound &= (cluster >= 0) & (cluster < a_pass.structure.num_clusters)
        stats = with_reports(stats, reported) | {"jobs": jnp.int32(1)}
        if UPDATE in contributions:
            stats |= of_update(square, contributions[UPDATE].weight, arrives_whole)
        finite = finite & sound if pipeline.makes_finite else sound
        stats = jax.tree.map(lambda value: jnp.where(finite & job.accepted, value, 0), stats)
        stats |= {
            # what is lost is nothing else: nobody hears what became of it
            "nonfinite": (jobs.accepted[index] & ~finite).astype(jnp.int32),
            "lost": (~jobs.accepted[index]).astype(jnp.int32),
            "uplink_bits": jnp.where(job.accepted, bits, 0),
        }
        if job.attacker is not None:
            stats[HOSTILE] = (job.attacker & job.accepted).astype(jnp.int32)
        if selected is not None:
            left_out = jobs.accepted[index] & ~selected[index]
            stats["unselected"] = left_out.astype(jnp.int32)
        return Finished(
            values={
                name: summable(part.value, codes=pipeline.sums_payloads(name))
                for name, part in sent.items()
            },
            weights={name: summable(part.weight) for name, part in sent.items()},
            client_rows=ClientRows(client_state, uplink_state),
            stats=stats,
            kept=sound & job.accepted,
            clusters=clusters,
        )

    # their shapes are asked for before they run: each is traced once, not twice
    return Work(traced_once(start), step, traced_once(finish))


def _stays_finite(new: PyTree, old: PyTree) -> jax.Array:
    """Returns whether a client's state has no NaN or infinity in arrays that had none.

    An array that has some from the start, such as the lowest loss so far, may keep them.
    """
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=False)
    sound = [
        all_finite(now) | ~all_finite(before)
        for now, before in pairs
        if jnp.issubdtype(jnp.result_type(now), jnp.inexact)
    ]
    return functools.reduce(jnp.logical_and, sound, jnp.bool_(True))


def _but_update(parts: dict[str, Contribution]) -> dict[str, Contribution]:
    """Returns contributions without the value of the update."""
    if UPDATE not in parts:
        return parts
    return parts | {UPDATE: parts[UPDATE]._replace(value=())}


def _check_cluster(name: str, cluster: Any, num_clusters: int) -> None:
    """Raises ValueError for a cluster that is no whole number, or a known one out of range.

    What is computed is known in the round alone: a job whose cluster there is not is left out then,
    and counts as `train/clients_nonfinite`.
    """
    if cluster is None:
        return
    dtype, shape = jnp.result_type(cluster), jnp.shape(cluster)
    what = f"The cluster that {name!r} goes to"
    if shape or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"{what} is {dtype}{list(shape)}; it must be one whole number, such as "
            "jnp.argmin(losses) or (loss > 1).astype(jnp.int32)."
        )
    if not isinstance(cluster, jax.core.Tracer) and not 0 <= int(cluster) < num_clusters:
        raise ValueError(
            f"{what} is {int(cluster)}, but the pass has num_clusters = {num_clusters}, numbered "
            f"from 0. Name one of these, or give the ClientPass more."
        )


def changed(pipeline: Pipeline, batch: dict[str, jax.Array], job: Job) -> dict[str, jax.Array]:
    """Returns a batch as the links of the pipeline make it."""
    for number, link in enumerate(pipeline.batches):
        key = jax.random.fold_in(jax.random.fold_in(step_key(job), BATCH), number)
        batch = dict(link.apply(batch, job, key))
    return batch


def send(
    pipeline: Pipeline,
    contributions: dict[str, Contribution],
    client_state: tuple,
    server_states: tuple,
    job: Job,
    agreed: tuple | None,
) -> tuple[dict[str, Contribution], tuple, jax.Array, dict[str, tuple]]:
    """Sends all that leaves the client through the uplink.

    Args:
      pipeline, contributions, client_state, server_states, job, agreed: As for
        `transmission.encode`.

    Returns:
      (sent, client state, bits, what links report).
    """
    key = jax.random.fold_in(job.key, UPLINK)
    payloads, client_state, bits, reported = transmission.encode(
        pipeline, contributions, client_state, job, key, server_states, agreed
    )
    values = transmission.decode(pipeline, payloads, server_states)
    parts = transmission.with_additions(pipeline, contributions)
    sent = {name: part._replace(value=values[name]) for name, part in parts.items()}
    for name in sent:
        if pipeline.weighs(name):
            sent[name] = sent[name]._replace(weight=jnp.ones((), jnp.float32))
        elif job.weight is not None and pipeline.sums_payloads(name):
            _check_takes_fractions(values[name])
    return sent, client_state, bits, reported


def _check_takes_fractions(payload: PyTree) -> None:
    """Raises ValueError for integers, where users' weights of clients may be fractions."""
    if any(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in jax.tree.leaves(payload)):
        raise ValueError(
            "client_weights may be fractions, and a linear link sums integers, which no "
            "fraction multiplies. Leave out client_weights, or use a link that sums floats."
        )


def with_reports(stats: dict[str, Any], reported: dict[str, tuple]) -> dict[str, Any]:
    """Returns the statistics of a job with what links of the uplink report, weights apart.

    Raises:
      ValueError: If the algorithm has a statistic of the same name.
    """
    for name in reported:
        if name in stats:
            raise ValueError(
                f"Both the algorithm and an uplink link report {name!r}. Rename one of the two."
            )
    weights = {f"{name}/weight": weight for name, (_, weight) in reported.items()}
    return stats | {name: value for name, (value, _) in reported.items()} | weights

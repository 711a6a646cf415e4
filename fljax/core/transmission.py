"""Sends a message through a pipeline, from a client to the server, and back.

`broadcast` runs the downlink links. `agree` runs what uplink links need before anybody trains,
`encode` and `decode` run them for each job, `absorb` and `release` those parts of them that see the
sums over jobs, and `apply_server` runs the server links.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.algorithm import Aggregate, Contribution, Job
from fljax.core.precision import widened
from fljax.core.transforms import UPDATE, Participants, Pipeline, UplinkLink, dense_bits

PyTree = Any


def agree(pipeline: Pipeline, participants: Participants) -> tuple[PyTree, ...]:
    """Returns what clients and server agree on for each uplink link before anybody trains."""
    return tuple(
        ()
        if link.agree is None
        else link.agree(participants._replace(key=jax.random.fold_in(participants.key, number)))
        for number, link in enumerate(pipeline.uplink)
    )


def encode(
    pipeline: Pipeline,
    contributions: Mapping[str, Contribution],
    client_state: tuple,
    job: Job,
    key: jax.Array,
    server_states: tuple,
    agreed: tuple | None = None,
) -> tuple[dict[str, PyTree], tuple, jax.Array, dict[str, tuple]]:
    """Runs the client half of the uplink.

    Args:
      pipeline: The transforms.
      contributions: {name: Contribution} of the job.
      client_state: Of the uplink links, on the client.
      job: The job.
      key: Of the job's uplink.
      server_states: Of the uplink links, on the server, for links that see them.
      agreed: What `agree` returns; None for a client that takes part alone.

    Returns:
      ({name: payload}, client_state', bits on the wire: of what no link covers, those of its
      arrays; what links report, {name: (value, weight)}).

    Raises:
      ValueError: If a link must cover what it does not, keeps no name apart, or would sum codes.

    Example:
      >>> halved = UplinkLink(
      ...     encode=lambda value, state, job, key: (value / 2, state),
      ...     decode=lambda payload, state: payload * 2,
      ...     covers="control",
      ... )
      >>> pipeline = Pipeline(uplink=(halved,))
      >>> one = jnp.ones(())
      >>> sent = {"update": Contribution(3 * one, one), "control": Contribution(4 * one, one)}
      >>> key = jax.random.key(0)
      >>> job = fljax.core.algorithm.blank_job(key)
      >>> payloads, _, bits, _ = encode(pipeline, sent, ((),), job, key, ((),))
      >>> float(payloads["control"]), int(bits)
      (2.0, 64)
      >>> float(decode(pipeline, payloads, ((),))["control"])
      4.0
    """
    covered = {UPDATE, *(link.covers for link in pipeline.uplink)}
    message = {
        name: widened(part.value) if covered & {name, None} else part.value
        for name, part in contributions.items()
    }
    dense_bits(message)  # all of it together must be countable
    bits = {
        name: dense_bits(value) if contributions[name].bits is None else contributions[name].bits
        for name, value in message.items()
    }
    job = job._replace(weights={name: part.weight for name, part in contributions.items()})
    states, reported = list(client_state), {}
    coded: dict[str, int] = {}
    if agreed is None and pipeline.agrees:
        alone = Participants(job.position == jnp.arange(1), job.round, key)
        agreed = agree(pipeline, alone)
    for number, link in enumerate(pipeline.uplink):
        _check_covered(link, number, message)
        if not link.meets(message):
            continue
        _check_sums_values(link, number, coded)
        told = (server_states[number],) if link.sees_server else ()
        told += (agreed[number],) if link.agree is not None else ()
        payload, states[number], *report = link.encode(
            link.part(message), client_state[number], job, jax.random.fold_in(key, number), *told
        )
        for name, values in (report[0] if report else {}).items():
            if name in reported:
                raise ValueError(f"Two uplink links report {name!r}. Rename one of the two.")
            reported[name] = values
        _check_names(link, number, payload, message)
        before, message = message, link.with_part(message, payload)
        if not link.linear:
            coded |= {name: number for name in before if not _alike(before[name], message[name])}
        if link.adds:
            job = job._replace(weights={**job.weights, **dict.fromkeys(link.adds, jnp.ones(()))})
        bits |= {name: link.bits(message[name]) for name in message if link.meets([name])}
    return message, tuple(states), sum(bits.values(), jnp.uint32(0)), reported


def _alike(before: PyTree, after: PyTree) -> bool:
    """Returns whether a payload has the structure, shapes and wide types of a value."""

    def kinds(tree):
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(jnp.shape(leaf), widened(leaf).dtype) for leaf in leaves]

    wide = all(jnp.result_type(leaf).itemsize >= 4 for leaf in jax.tree.leaves(after))
    return wide and kinds(before) == kinds(after)


def _check_sums_values(link: UplinkLink, number: int, coded: Mapping[str, int]) -> None:
    """Refuses codes of single messages where sums are taken of payloads: none decodes a sum."""
    for name, before in coded.items():
        if link.linear and link.meets([name]):
            raise ValueError(
                f"Uplink link {number} sums payloads before they are decoded, but link {before} "
                f"makes codes of {name!r} (indices, scales, narrower numbers), and a sum of codes "
                "is no code of the sum. Leave one of the two out; links that keep a value's shape "
                "and type, such as clipping, may stand before it."
            )


def _check_covered(link: UplinkLink, number: int, message: Mapping[str, Any]) -> None:
    rest = sorted(name for name in message if not link.meets([name]))
    if link.refuses_rest and rest:
        raise ValueError(
            f"Uplink link {number} covers {link.covers!r} and must not let anything else leave a "
            f"client, but the algorithm sends {', '.join(map(repr, rest))} too. Use a link that "
            "covers the whole message, or an algorithm that sends nothing else."
        )


def _check_names(link: UplinkLink, number: int, payload: Any, message: Mapping[str, Any]) -> None:
    if link.covers is not None:
        return
    names = [*message, *link.adds]
    if not isinstance(payload, dict) or payload.keys() != set(names):
        raise ValueError(
            f"Uplink link {number} covers the whole message, so its payload must be a dict of the "
            f"names {', '.join(map(repr, names))}, each of which is summed under a weight of its "
            f"own. It is {type(payload).__name__}."
        )


def with_additions(
    pipeline: Pipeline, contributions: Mapping[str, Contribution]
) -> dict[str, Contribution]:
    """Returns contributions with those that links of the uplink add, which have no value yet."""
    added = [name for link in pipeline.uplink if link.meets(contributions) for name in link.adds]
    return {**contributions, **dict.fromkeys(added, Contribution((), jnp.ones(())))}


def decode(pipeline: Pipeline, payloads: Mapping[str, PyTree], states: tuple) -> dict[str, PyTree]:
    """Runs the server half of the uplink on what one job sent, last link first.

    Links that decode sums have their turn in `absorb`.

    Args:
      pipeline: The transforms.
      payloads: {name: payload} of the job.
      states: Of the uplink links, on the server.
    """
    links = zip(pipeline.uplink, states, pipeline.decodes_sums, strict=True)
    for link, state, late in reversed(list(links)):
        if not late and link.meets(payloads):
            payloads = link.with_part(payloads, link.decode(link.part(payloads), state))
    return dict(payloads)


def absorb(
    pipeline: Pipeline,
    sums: Mapping[str, Aggregate],
    server_state: tuple,
    agreed: tuple | None = None,
    arrived: jax.Array | None = None,
) -> tuple[dict[str, Aggregate], tuple]:
    """Decodes sums, and shows them to the uplink links.

    Args:
      pipeline: The transforms.
      sums: {name: Aggregate} of payloads, or of values that are decoded already.
      server_state: Of the uplink links.
      agreed: What `agree` returned; None where no link agrees on anything.
      arrived: bool[P], the positions of the cohort whose messages are in the sums, for such links.

    Returns:
      ({name: aggregate'}, states').
    """
    found, states = dict(sums), list(server_state)
    late = pipeline.decodes_sums
    for number, link in reversed(list(enumerate(pipeline.uplink))):
        if not (late[number] and link.meets(found)):
            continue
        if link.decode_sum is None:
            values = {name: total.sum for name, total in found.items()}
            values = link.with_part(values, link.decode(link.part(values), states[number]))
            found = {name: total._replace(sum=values[name]) for name, total in found.items()}
        else:
            told = () if agreed is None else agreed[number]
            part = link.decode_sum(link.part(found), states[number], told, arrived)
            found = link.with_part(found, part)
    for number, link in enumerate(pipeline.uplink):
        if link.meets(found):
            part, states[number] = link.absorb(link.part(found), server_state[number])
            found = link.with_part(found, part)
    return found, tuple(states)


def release(
    pipeline: Pipeline,
    sums: Mapping[str, Aggregate],
    server_state: tuple,
    round: jax.Array,
    key: jax.Array,
) -> tuple[dict[str, Aggregate], tuple]:
    """Shows the sums to the links that change them before they are used.

    Args:
      pipeline: The transforms.
      sums: {name: Aggregate}, decoded.
      server_state: Of the uplink links.
      round: int32 scalar.
      key: Of the seed, the round and this purpose.

    Returns:
      ({name: aggregate'}, states').
    """
    sums, states = dict(sums), list(server_state)
    for number, link in enumerate(pipeline.uplink):
        if link.release is not None and link.meets(sums):
            own = jax.random.fold_in(key, number)
            part, states[number] = link.release(link.part(sums), states[number], round, own)
            sums = link.with_part(sums, part)
    return sums, tuple(states)


def check_names_are_sent(pipeline: Pipeline, names: Collection[str]) -> None:
    """Raises ValueError for an uplink link that covers a name which no client sends.

    Algorithms whose clients send no update, such as local training alone, go with any link.
    """
    for number, link in enumerate(pipeline.uplink):
        if link.covers not in (None, UPDATE) and link.covers not in names:
            raise ValueError(
                f"Uplink link {number} covers {link.covers!r}, which no client sends; they send "
                f"{', '.join(map(repr, sorted(names))) or 'nothing'}."
            )


def broadcast(pipeline: Pipeline, message: PyTree, states: tuple, key: jax.Array):
    """Runs the downlink; returns (message, states', bits for one client)."""
    new_states, bits = [], dense_bits(message)
    for number, (link, state) in enumerate(zip(pipeline.downlink, states, strict=True)):
        message, state = link.apply(message, state, jax.random.fold_in(key, number))
        bits = link.bits(message)
        new_states.append(state)
    return message, tuple(new_states), bits


def apply_server(
    pipeline: Pipeline, aggregate: Aggregate, states: tuple, round: jax.Array, key: jax.Array
):
    """Runs the server links on the aggregate; returns (aggregate', states')."""
    new_states = []
    for number, (link, state) in enumerate(zip(pipeline.server, states, strict=True)):
        aggregate, state = link.apply(aggregate, state, round, jax.random.fold_in(key, number))
        new_states.append(state)
    return aggregate, tuple(new_states)

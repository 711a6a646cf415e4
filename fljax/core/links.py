"""Links: the transforms that a pipeline is made of, each a record of pure functions.

All that leaves a client is one message, {name: value}: the update, a model state, control variates,
counts. All of it goes through the uplink links, each of which says what it covers: one name (by
default the update) or the whole message. This one clips the whole message to a norm:

  >>> def clip(bound):
  ...     def encode(message, state, job, key):
  ...         scale = jnp.minimum(1, bound / optax.tree.norm(message))
  ...         return jax.tree.map(lambda leaf: leaf * scale, message), state
  ...     return UplinkLink(encode, lambda payload, state: payload, covers=None)
  >>> message = {"update": jnp.array([3.0]), "control": jnp.array([4.0])}
  >>> clip(2.5).encode(message, (), None, None)[0]["update"].tolist()
  [1.5]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.algorithm import Aggregate

__all__ = [
    "Aggregator",
    "Attackers",
    "BatchLink",
    "Cohort",
    "CohortLink",
    "DownlinkLink",
    "Participants",
    "ServerLink",
    "Trigger",
    "UPDATE",
    "UplinkLink",
    "dense_bits",
    "weighted_mean",
]

PyTree = Any

# The contribution that cohort links, aggregators and server links act on, and uplink links unless
# they say otherwise.
UPDATE = "update"


def _stateless(params: PyTree) -> tuple:
    del params
    return ()


def dense_bits(value: PyTree) -> jax.Array:
    """Returns the bits of a pytree sent as it is, as a uint32 scalar.

    Raises:
      ValueError: If one message is too large to be counted: 512 MiB or more.

    Example:
      >>> int(dense_bits({"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}))
      480
    """
    bits = sum(leaf.size * leaf.dtype.itemsize * 8 for leaf in jax.tree.leaves(value))
    if bits >= 2**32:
        raise ValueError(
            f"A message of {bits / 8e6:,.0f} MB cannot be counted in 32 bits; what a client sends "
            "or receives must stay below 512 MiB."
        )
    return jnp.uint32(bits)


class Participants(NamedTuple):
    """The clients of a pass, as they and the server know them before anybody trains.

    Attributes:
      present: bool[P] whether a position of the cohort has a job of the trial.
      round: int32[].
      key: Typed PRNG key of seed, round, pass and link, which all of them have.
      axis_name: Mesh axis of the devices, over which a server may divide its work; None where
        nothing runs on several.

    Example:
      >>> people = Participants(jnp.array([True, False, True]), jnp.int32(0), jax.random.key(0))
      >>> int(people.present.sum())
      2
    """

    present: jax.Array
    round: jax.Array
    key: jax.Array
    axis_name: str | None = None


class UplinkLink(NamedTuple):
    """A transform of what one job sends, split between client and server.

    What it covers is the value of one name, or the whole message {name: value}; then its payload is
    {name: payload} of the same names, since each name is summed under a weight of its own.

    Attributes:
      encode: (value, client_state, job, key) -> (payload, client_state'), on the client;
        `job.weights` holds {name: weight} of all that the job sends.
      decode: (payload, server_state) -> value, on the server.
      bits: (payload of one name) -> uint32 scalar, the exact size on the wire.
      init_client: (params) -> state kept per client in the ClientStore.
      init_server: (params) -> state on the server.
      absorb: (aggregate, server_state) -> (aggregate', server_state'), once a round; of the whole
        message {name: aggregate}.
      linear: Whether payloads are summed before they are decoded (sketches, masked integers);
        integers of 32 bits wrap around in such a sum.
      covers: The name that it transforms, or None for the whole message.
      refuses_rest: Whether whatever it does not cover must not leave the client: transforms for
        privacy and masks refuse algorithms that send more.
      sees_server: Whether `encode` takes a fifth argument, the link's state on the server as the
        round began, which clients are told: an adaptive clipping norm.
      makes_finite: Whether `encode` turns what is not finite into numbers, so that such a job
        counts like any other instead of being left out. It still counts as `nonfinite`.
      release: (aggregate, server_state, round, key) -> (aggregate', server_state'), once a round
        behind all `absorb`, on what the link covers ({name: aggregate} for the whole message): what
        a server adds before anything of the sums is used, such as noise; None if nothing. `key` is
        one of seed, round and link.
      agree: (Participants) -> what the clients of a pass and the server agree on before anybody
        trains, once a pass: keys, a graph, shared coordinates; None for nothing. `encode` takes it
        as its last argument.
      decode_sum: Of linear links, in place of `decode`: (aggregate, server_state, agreed, arrived)
        -> aggregate' of what the link covers ({name: aggregate} for the whole message); `agreed` is
        () without `agree`, and `arrived` is bool[P], the positions whose messages are in the sum.
      weighs: Whether payloads hold their weights already: each is summed as it is, under a weight
        of 1, and `decode_sum` says what the weights were.
      reports: Whether `encode` returns a third result, {name: (value, weight)} of scalars. The
        record of a round has the mean over jobs as `train/NAME`, or as NAME if that has a slash.
      adds: Names that `encode` of a link of the whole message adds to it, each under the weight 1:
        numbers of its own, of which algorithms know nothing. Its `release` takes them away.
      sent_norm: Of a link of the whole message that rounds numbers, the bound of the norm of what
        is sent, times its weight; infinity where rounding may make messages longer. None where
        nothing is rounded.
      max_weight: Of a link that cuts off weights, the largest that it keeps; None for any.
      precedes: Whether it is what a client makes of its update before anything protects or
        compresses that: momentum, an attack. A mechanism of privacy stands behind it.
      refused_share: Of a link whose `decode_sum` may refuse a sum: (int[n] sizes of cohorts) ->
        bounds of the share of rounds in which it does, though all messages arrived. None for never.
      decodes_changes: Whether what it decodes is no value but a change of one that the server keeps
        the mean of, to which `absorb` adds the mean change: nobody sees single values then.
      to_wire: (payload of one name, on the host) -> its parts as bytes, of `bits` bits, each part
        filled up to whole bytes: what a deployment sends. None where these are the arrays of the
        payload as they are, which `dense_bits` counts.
      from_wire: (parts, shapes of a payload) -> the payload, of NumPy arrays.

    Example:
      >>> halved = UplinkLink(
      ...     encode=lambda value, state, job, key: (value.astype(jnp.float16), state),
      ...     decode=lambda payload, state: payload.astype(jnp.float32),
      ... )
      >>> payload, _ = halved.encode(jnp.ones(5), (), None, None)
      >>> int(halved.bits(payload)), halved.covers
      (80, 'update')
    """

    encode: Callable[..., tuple[PyTree, PyTree]]
    decode: Callable[[PyTree, PyTree], PyTree]
    bits: Callable[[PyTree], jax.Array] = dense_bits
    init_client: Callable[[PyTree], PyTree] = _stateless
    init_server: Callable[[PyTree], PyTree] = _stateless
    absorb: Callable[[Any, PyTree], tuple[Any, PyTree]] = lambda a, s: (a, s)
    linear: bool = False
    covers: str | None = UPDATE
    refuses_rest: bool = False
    sees_server: bool = False
    makes_finite: bool = False
    release: Callable[[Any, PyTree, jax.Array, jax.Array], tuple[Any, PyTree]] | None = None
    agree: Callable[[Participants], PyTree] | None = None
    decode_sum: Callable[[Any, PyTree, PyTree, jax.Array], Any] | None = None
    weighs: bool = False
    reports: bool = False
    adds: tuple[str, ...] = ()
    sent_norm: float | None = None
    max_weight: float | None = None
    refused_share: Callable[[np.ndarray], np.ndarray] | None = None
    precedes: bool = False
    decodes_changes: bool = False
    to_wire: Callable[[PyTree], tuple[bytes, ...]] | None = None
    from_wire: Callable[[Sequence[bytes], PyTree], PyTree] | None = None

    def meets(self, names: Collection[str | None]) -> bool:
        """Returns whether it covers some of these names; None among them stands for all."""
        return bool(names) and (self.covers is None or None in names or self.covers in names)

    def part(self, message: Mapping[str, Any]) -> Any:
        """Returns what it covers of a message."""
        return message if self.covers is None else message[self.covers]

    def with_part(self, message: Mapping[str, Any], part: Any) -> dict[str, Any]:
        """Returns the message with another value of what it covers."""
        return part if self.covers is None else {**message, self.covers: part}


class DownlinkLink(NamedTuple):
    """A transform of the broadcast message.

    Attributes:
      apply: (message, state, key) -> (message as clients receive it, state').
      bits: (message) -> uint32 scalar, the size on the wire for one client.
      init: (params) -> server-side state.

    Example:
      >>> halved = DownlinkLink(lambda message, state, key: (message.astype(jnp.float16), state))
      >>> halved.apply(jnp.ones(2), (), None)[0].dtype.name
      'float16'
    """

    apply: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, PyTree]]
    bits: Callable[[PyTree], jax.Array] = dense_bits
    init: Callable[[PyTree], PyTree] = _stateless


class Attackers(NamedTuple):
    """The hostile ones of a cohort, known before anybody trains.

    Links read it as `Job.attacker` and `Cohort.attackers`; servers, of course, do not know it.

    Attributes:
      among: (clients int32[P], present bool[P], round, key) -> bool[P], in cohort order; `clients`
        is -1 where a position has no job, and `key` one of the seed alone, the same in all rounds.

    Example:
      >>> three = Attackers(lambda clients, present, round, key: present & (clients == 3))
      >>> three.among(jnp.array([5, 3, -1]), jnp.array([True, True, False]), 0, None).tolist()
      [False, True, False]
    """

    among: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


class BatchLink(NamedTuple):
    """A transform of the batches that a client trains on: poisoned labels, triggers.

    Attributes:
      apply: (batch, job, key) -> batch', before the data set's preprocessing; "mask" in it says
        which rows are there. `key` is one of the step and the link.

    Example:
      >>> def zeros(batch, job, key):
      ...     return {**batch, "y": jnp.where(job.attacker, 0, batch["y"])}
      >>> job = fljax.core.algorithm.blank_job(None)._replace(attacker=jnp.bool_(True))
      >>> BatchLink(zeros).apply({"y": jnp.array([3, 4])}, job, None)["y"].tolist()
      [0, 0]
    """

    apply: Callable[[Mapping[str, jax.Array], Any, jax.Array], Mapping[str, jax.Array]]


class Trigger(NamedTuple):
    """The rows on which a backdoor opens, and what the model then says: how its success is judged.

    Attributes:
      rows: (x, y) -> (x', chosen), in NumPy, of rows as they are stored, such as those of the test
        set: the same rows with the trigger, or others in their place, and bool[rows of x'], which
        of them tell. Rows whose true class is the target's do not. Where rows open it as they are,
        x' is x itself.
      target: The class that the attacker wants.

    Example:
      >>> dark = Trigger(lambda x, y: (0 * x, y != 7), target=7)
      >>> x, chosen = dark.rows(np.ones((2, 3)), np.array([7, 1]))
      >>> chosen.tolist()
      [False, True]
    """

    rows: Callable[[Any, Any], tuple[Any, np.ndarray]]
    target: int


class Cohort(NamedTuple):
    """The facts a cohort link or a stack aggregator may use, in cohort order.

    Attributes:
      weights: float[P] weight of each update, 0 where a position has none.
      valid: bool[P].
      clients: int32[P] client numbers, -1 where a position has none.
      round: int32[].
      axis_name: Mesh axis over which parameters are sharded; sums over parameters need `psum`.
      attackers: bool[P] who is hostile; None where nobody is.
      key: Typed PRNG key of seed, round, pass and place, the same on all devices.
      num_params: How many parameters all shares have together; zeros behind them, which make shares
        equally wide, are none. None where nobody says.

    Example:
      >>> cohort = Cohort(
      ...     weights=jnp.array([2.0, 0.0]), valid=jnp.array([True, False]),
      ...     clients=jnp.array([7, -1]), round=jnp.int32(0), axis_name="devices",
      ... )
      >>> int(cohort.valid.sum())
      1
    """

    weights: jax.Array
    valid: jax.Array
    clients: jax.Array
    round: jax.Array
    axis_name: str
    attackers: jax.Array | None = None
    key: jax.Array | None = None
    num_params: int | None = None


class CohortLink(NamedTuple):
    """A transform of all updates at once: colluding attackers, pairwise masks.

    Attributes:
      apply: (stack[P, d], cohort, state, key) -> (stack'[P, d], state'), where d is this device's
        share of the flattened parameters.
      init: (params) -> state.

    Example:
      >>> flipped = CohortLink(lambda stack, cohort, state, key: (-stack, state))
      >>> flipped.apply(jnp.ones((2, 3)), None, (), None)[0].sum().tolist()
      -6.0
    """

    apply: Callable[[jax.Array, Cohort, PyTree, jax.Array], tuple[jax.Array, PyTree]]
    init: Callable[[PyTree], PyTree] = _stateless


class Aggregator(NamedTuple):
    """A rule that makes one update of those of a cohort.

    Attributes:
      needs: "sum" streams weighted sums; "stack" holds the whole cohort.
      apply: For "sum": (aggregate, state) -> (aggregate', state'). For "stack":
        (stack[P, d], cohort, state) -> (value[d], state'), where d is this device's share of the
        flattened parameters; the state is the same on all devices.
      init: (params) -> state.
      reports: Of a stack, the names of what `apply` returns as a third result, {name: (value[P],
        weight[P])} in cohort order; the record of a round has sum(value) / sum(weight), under NAME
        if that has a slash, else under `train/NAME`.
      weighs: Whether it counts clients by their weights. One that does not is refused where weights
        differ.
      problem: (number of updates) -> why it promises nothing for so few, or None; None for never.
      root: The client whose update it takes for the server's own, `FederatedDataset.root`; None of
        rules that know no such client, and are refused where the data have one.
      by_client: Whether it keeps something of each client, whose updates must reach it one by one.

    Example:
      >>> median = Aggregator(
      ...     needs="stack", apply=lambda stack, cohort, state: (jnp.median(stack, axis=0), state)
      ... )
      >>> median.apply(jnp.array([[1.0], [2.0], [9.0]]), None, ())[0].tolist()
      [2.0]
    """

    needs: str
    apply: Callable[..., tuple]
    init: Callable[[PyTree], PyTree] = _stateless
    reports: tuple[str, ...] = ()
    weighs: bool = True
    problem: Callable[[int], str | None] | None = None
    root: int | None = None
    by_client: bool = False


class ServerLink(NamedTuple):
    """A transform of the aggregate: central noise, adaptive clipping.

    Attributes:
      apply: (aggregate, state, round, key) -> (aggregate', state').
      init: (params) -> state.

    Example:
      >>> halved = ServerLink(
      ...     lambda aggregate, *rest: (aggregate._replace(sum=aggregate.sum / 2), rest[0])
      ... )
      >>> two = Aggregate(jnp.ones(2), jnp.float32(1), jnp.int32(1))
      >>> halved.apply(two, (), 0, None)[0].mean().tolist()
      [0.5, 0.5]
    """

    apply: Callable[[Aggregate, PyTree, jax.Array, jax.Array], tuple[Aggregate, PyTree]]
    init: Callable[[PyTree], PyTree] = _stateless


weighted_mean = Aggregator(needs="sum", apply=lambda aggregate, state: (aggregate, state))

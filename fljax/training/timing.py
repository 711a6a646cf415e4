"""Puts a run into simulated time: makes the fleet and the schedule that its options name."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core import transmission
from fljax.core.algorithm import AlgorithmSpec, blank_job
from fljax.core.parts import name_of
from fljax.core.sampler import Sampler
from fljax.core.schedule import Schedule, untimed
from fljax.core.settings import SYSTEMS
from fljax.core.task import Task
from fljax.core.transforms import Pipeline, as_configured
from fljax.data.dataset import FederatedDataset
from fljax.data.partitions.statistics import split_label_counts
from fljax.engine.plan.batching import LocalWork, steps_per_job
from fljax.systems import names
from fljax.systems.availability import Availability
from fljax.systems.completeness import in_part
from fljax.systems.devices import Devices
from fljax.systems.fleet import Fleet
from fljax.systems.jobs import with_flops
from fljax.systems.metering import draws_power, metered
from fljax.systems.own import checked_schedule
from fljax.training.device_memory import training_bytes, with_enough_memory
from fljax.training.flops import training_flops
from fljax.training.local_work import structure_of
from fljax.training.options import RoundOptions
from fljax.training.rehearsal import Rehearsal, rehearsed
from fljax.training.traffic import training_traffic

PyTree = Any
# (makes the sampler of so many clients a round, of a fleet; seed; number of the partition) -> it
ScheduleMaker = Callable[[Callable[..., Sampler], int, int], Schedule]
# Messages of random updates; where their sizes differ, the mean is planned with.
_MESSAGES = 4


def is_timed(options: RoundOptions) -> bool:
    """Returns whether a run has simulated time."""
    return any(getattr(options, name) is not None for name in SYSTEMS)


def devices_of(options: RoundOptions, num_clients: int, seed: int) -> Devices:
    """Returns the clients' devices as the options have them; all alike where they say nothing."""
    return names.make_devices(options.profiles or "equal", num_clients, seed)


def clock_keys(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the keys that options of `SYSTEMS` add to records; none without any."""
    if all(value is None for value in given.values()):
        return ()
    schedule = given.get("schedule")
    return () if isinstance(schedule, Schedule) else names.record_keys(schedule)


def schedule_maker(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    work: LocalWork,
    sizes: np.ndarray,
) -> ScheduleMaker:
    """Returns what makes the schedule of a trial.

    Args:
      dataset, task, spec, options: As `fljax.training.federation.build` takes them.
      work: The local work of a client.
      sizes: int64[partitions x N] rows of the clients of all partitions.

    Raises:
      ValueError: If devices or availability are not made for as many clients.
    """
    if not is_timed(options):
        return lambda sampler_of, seed, partition: untimed(sampler_of(options.clients_per_round))
    if dataset.root is not None:
        raise ValueError(
            f"The dataset has a client of the server's own ({dataset.root}), which has no device, "
            "and the run gives all clients one. Leave out the root, or the options of time."
        )
    num_clients = dataset.num_clients
    steps = steps_per_job(sizes, work).reshape(-1, num_clients)
    # where rounds say the steps, arrivals do not
    most = steps if options.steps_per_round is None else [None] * len(steps)
    if isinstance(options.schedule, Schedule):
        own = options.schedule
        return lambda sampler_of, seed, partition: checked_schedule(own, most[partition])
    structure = structure_of(task, spec)
    shapes = rehearsed(dataset, task, spec, options.pipeline)
    downlink, uplink = message_bytes(shapes, structure, as_configured(options.pipeline))
    rows = sizes.reshape(-1, num_clients)
    labels = None
    asked = names.asks_for("availability", options.availability)
    if "labels" in asked and dataset.num_classes is not None:
        labels = split_label_counts(dataset)

    made: dict[tuple[int, int], Schedule] = {}

    @functools.cache
    def needed() -> int:
        return training_bytes(dataset, task, spec, options, work.width, shapes)

    def make(sampler_of: Callable[..., Sampler], seed: int, partition: int) -> Schedule:
        # trials that differ in hyperparameters alone have one plan
        if (seed, partition) not in made:
            made[seed, partition] = new(sampler_of, seed, partition)
        return made[seed, partition]

    def new(sampler_of: Callable[..., Sampler], seed: int, partition: int) -> Schedule:
        devices = devices_of(options, num_clients, seed)
        if devices.step_seconds is None:
            spec_of_rows = dataset.train.examples.spec
            batches = (task, spec_of_rows, work.width, dataset.preprocess)
            moved = 0.0 if devices.bandwidth is None else training_traffic(*batches)
            devices = with_flops(devices, training_flops(*batches), moved)
        availability = None
        if options.availability is not None:
            known = {"num_clients": num_clients, "seed": seed, "sizes": rows[partition]}
            known["labels"] = labels
            availability = names.make_availability(options.availability, known)
        dropout: Any = options.dropout or 0.0
        if options.connectivity is not None:
            every = {"clients": np.arange(num_clients), "seed": seed}
            dropout = names.make_part("connectivity", options.connectivity, every)
        fleet = Fleet(devices, availability, steps[partition], downlink, uplink, dropout, seed)
        # samplers know how long jobs take on all devices, those that are too small included
        sampler_of = functools.partial(sampler_of, fleet=fleet)
        if np.isfinite(devices.memory_gb).any():
            private = options.privacy is not None and options.privacy.mechanism is not None
            keeps_cohorts = private and sampler_of(options.clients_per_round).is_uniform
            fleet = with_enough_memory(fleet, needed(), keeps_cohorts)
        offered = {
            "fleet": fleet,
            "sampler_of": sampler_of,
            "clients_per_round": options.clients_per_round,
            "num_rounds": options.num_rounds,
        }
        schedule = names.make_schedule(options.schedule or "wait_for_all", offered)
        if isinstance(options.schedule, str) and ":" in name_of(options.schedule):
            schedule = checked_schedule(schedule, most[partition])
        if options.completeness is not None:
            shares = names.make_part("completeness", options.completeness, {})
            schedule = in_part(schedule, fleet, shares)
        return metered(schedule, fleet) if draws_power(fleet) else schedule

    return make


def message_bytes(shapes: Rehearsal, structure: Any, pipeline: Pipeline) -> tuple[float, float]:
    """Returns the bytes that a client receives in a round, and those that it sends.

    They are exact where the shapes of a message decide on its size. Where its values do as well,
    as with codes of varying length, they are the mean of a few messages of normal numbers.

    Args:
      shapes: Of a round of one client.
      structure: The algorithm, of which the passes count that have a broadcast of their own.
      pipeline: Transforms between clients and server.
    """

    def bits(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        down, up = jnp.float32(0), jnp.float32(0)
        state, row = (_drawn(tree, key, zero=True) for tree in (shapes.state.pipeline, shapes.row))
        for each, message, sent in zip(
            structure.passes, shapes.messages, shapes.contributions, strict=True
        ):
            if each.broadcast is not None:
                drawn = _drawn(message, key)
                down += transmission.broadcast(pipeline, drawn, state.downlink, key)[2]
            job = blank_job(key)
            if pipeline.attackers is not None:
                job = job._replace(attacker=jnp.bool_(False))
            drawn = _drawn(sent, key)
            up += transmission.encode(pipeline, drawn, row.uplink, job, key, state.uplink)[2]
        return down, up

    keys = jax.random.split(jax.random.key(0), _MESSAGES)
    down, up = jax.device_get(jax.jit(jax.vmap(bits))(keys))
    return float(np.mean(down, dtype=np.float64)) / 8, float(np.mean(up, dtype=np.float64)) / 8


def _drawn(shapes: PyTree, key: jax.Array, zero: bool = False) -> PyTree:
    """Returns arrays of these shapes: normal numbers, and zeros where whole numbers stand."""

    def draw(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not zero:
            return jax.random.normal(key, leaf.shape, leaf.dtype)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(draw, shapes)


def named_systems(options: RoundOptions) -> dict[str, Any]:
    """Returns {key: text} of what names a run's time, for its config; nothing without any."""
    return {
        name: _described(value) for name in SYSTEMS if (value := getattr(options, name)) is not None
    }


def _described(value: Any) -> Any:
    """Returns a value as JSON has it; of devices a checksum, of functions what they are."""
    if isinstance(value, Devices):
        numbers = [column.tobytes() for column in value if isinstance(column, np.ndarray)]
        return f"<Devices {zlib.crc32(b''.join(numbers)):08x}>"
    return f"<{type(value).__name__}>" if isinstance(value, Availability | Schedule) else value

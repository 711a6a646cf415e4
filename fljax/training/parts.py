"""The parts of a federation that options decide on, checked against data and model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fljax.core import sampler as samplers
from fljax.core import transforms as links
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.core.gradients import bind
from fljax.core.per_client import check_length
from fljax.core.precision import check_numbers, check_trainable
from fljax.core.task import Task
from fljax.core.transforms import Pipeline, PipelineSpec, as_configured
from fljax.core.trees import batched
from fljax.data.dataset import FederatedDataset
from fljax.engine.devices.distributed import exchange
from fljax.engine.devices.execution import (
    ExecutionPlan,
    choose,
    host_memory_bytes,
    make_mesh,
    memory_of,
)
from fljax.engine.plan.batching import LocalWork, steps_per_job
from fljax.engine.plan.cohorts import Cohorts
from fljax.engine.program.round import ClientRows, OwnNumbers
from fljax.engine.store.client_store import ClientStore
from fljax.training.flops import training_flops
from fljax.training.initialization import initialized
from fljax.training.options import PER_CLIENT, RoundOptions

PyTree = Any

# Runs of fewer rounds, or on CPUs of less time, are over before a trial has paid for itself.
_CALIBRATED_ROUNDS = 50
_CALIBRATED_SECONDS = 5.0
# A guess at what a CPU takes, on the high side: a round without jobs, a job without steps, a step
# without arithmetic; and operations a second.
_ROUND_SECONDS, _JOB_SECONDS, _STEP_SECONDS, _CPU_FLOPS = 1e-3, 1e-4, 5e-5, 5e9


def scheduled(hparams, options: RoundOptions, round):
    """Returns the hyperparameters of a round."""
    schedules = {"client_lr": options.client_lr_schedule, "server_lr": options.server_lr_schedule}
    active = {
        name: hparams[name] * schedule(round)
        for name, schedule in schedules.items()
        if schedule is not None and name in hparams
    }
    return {**hparams, **active}


def check_batches(task: Task, sizes: np.ndarray, work: LocalWork) -> None:
    """Refuses partial batches for models that cannot mask them."""
    if not task.needs_full_batches:
        return
    if np.any(work.batch_size != work.width):
        raise ValueError(
            "The model keeps batch statistics and its __call__ takes no `mask`, so the padding of "
            "batches smaller than the largest would enter them. Give __call__ a `mask` argument "
            "and hand it to BatchNorm, or give all clients one batch_size."
        )
    if work.remainder == "partial" and (sizes % work.batch_size).any():
        raise ValueError(
            "The model keeps batch statistics and its __call__ takes no `mask`, so the padding of "
            "a partial last batch would enter them. Give __call__ a `mask` argument and hand it to "
            "BatchNorm, or set remainder to 'drop' or 'wrap' (an algorithm that reads every row "
            "once, such as fedsgd, has partial batches all the same)."
        )


def check_lengths(options: RoundOptions, num_clients: int) -> None:
    """Refuses numbers of clients' own that are not one for each client."""
    for name in PER_CLIENT:
        value = getattr(options, name)
        if isinstance(value, np.ndarray):
            check_length(name, value, num_clients)


def own_numbers(options: RoundOptions, dtype: Any) -> OwnNumbers:
    """Returns what clients have of their own, in the type of the hyperparameters."""
    return OwnNumbers(
        *(
            None if values is None else values.astype(dtype)
            for values in (options.client_weights, options.client_lr_factors)
        )
    )


def check_rounds_per_dispatch(rounds: int, store: ClientStore) -> None:
    """Refuses several rounds a dispatch where clients keep rows, which pass between the rounds."""
    if rounds > 1 and store.row_bytes:
        raise ValueError(
            f"rounds_per_dispatch = {rounds}, but clients of this algorithm or uplink keep state, "
            "which is read and written between rounds. Leave it at 1."
        )


def make_cohorts(dataset: FederatedDataset, options: RoundOptions, seeds: Sequence[int]) -> Cohorts:
    """Returns the cohorts of trials with these seeds."""
    groups = [np.asarray(values) for values in dataset.groups.values()]
    return Cohorts(
        tuple(make_sampler(dataset, options, seed) for seed in seeds),
        dataset.num_clients,
        # the first of the data set's groups, as numbers from 0
        np.unique(groups[0], return_inverse=True)[1].astype(np.int32) if groups else None,
        options.steps_per_round,
    )


def make_sampler(dataset: FederatedDataset, options: RoundOptions, seed: int) -> samplers.Sampler:
    """Returns the sampler that the options ask for."""
    if options.cohorts is not None:
        return samplers.replay(options.cohorts, dataset.num_clients)
    if isinstance(options.sampler, samplers.Sampler):
        if options.sampler.feedback != "none":
            raise ValueError(
                f"The sampler asks for {options.sampler.feedback} feedback, which no run gives "
                "yet; only samplers with feedback='none' can be used."
            )
        return options.sampler
    make = samplers.SAMPLERS[options.sampler]
    return make(dataset.num_clients, options.clients_per_round, seed)


def local_work(sizes: np.ndarray, options: RoundOptions) -> LocalWork:
    """Returns the local work of clients with these sizes; refuses contradictions."""
    if (options.local_epochs is None) == (options.local_steps is None):
        raise ValueError(
            f"local_epochs = {options.local_epochs} and local_steps = {options.local_steps}: "
            "give exactly one of them and set the other to None."
        )
    amount = options.local_epochs if options.local_steps is None else options.local_steps
    if np.min(amount) < 1:
        raise ValueError(f"Clients need at least one local epoch or step, not {amount}.")
    if options.remainder != "partial" and not np.all(options.batch_size):
        raise ValueError(
            f"remainder = {options.remainder!r} needs a batch_size; with 0 (all rows at once) "
            "there is no remainder."
        )
    planned = options.steps_per_round
    if planned is not None and len(planned) != options.num_rounds:
        raise ValueError(
            f"steps_per_round has {len(planned)} entries for num_rounds = {options.num_rounds}."
        )

    def by_partition(value):
        """Clients' own numbers, once for each of the partitions that the sizes are of."""
        several = isinstance(value, np.ndarray)
        return np.tile(value, len(sizes) // len(value)) if several else value

    batch = by_partition(options.batch_size)
    if options.remainder == "partial":
        # more than there are rows are none, and would make all batches wider
        most = np.maximum(sizes if isinstance(batch, np.ndarray) else sizes.max(), 1)
        batch = np.where(batch, np.minimum(batch, most), most)
    work = LocalWork(
        by_partition(options.local_epochs),
        by_partition(options.local_steps),
        batch if np.ndim(batch) else int(batch),
        options.remainder,
        options.shuffle,
    )
    if not (steps_per_job(sizes, work) > 0).any():
        raise ValueError(
            f"No client has a batch to train on: the largest has {sizes.max()} rows, batch_size is "
            f"{work.width}, remainder is {work.remainder!r}."
        )
    return work


def schedules_of(task: Task, spec: AlgorithmSpec) -> list[str]:
    """Returns the schedule of each pass of an algorithm, which no number decides on."""
    algorithm = spec.build(bind(task, {}), {**spec.hparams, "num_clients": 1})
    return [one.schedule for one in algorithm.passes]


def check_plan_size(steps: np.ndarray, work: LocalWork, max_jobs: int) -> None:
    """Refuses local work whose plan would not fit into memory, or into the counters of steps.

    Args:
      steps: int64[N] local steps of each client.
      work: The local work.
      max_jobs: Largest number of jobs in a round.
    """
    longest = np.sort(steps)[::-1][:max_jobs]
    needed = int(longest.sum()) * work.width * np.dtype(np.int64).itemsize
    host = min(exchange(host_memory_bytes()))
    if needed > host or longest[0] > np.iinfo(np.int32).max:
        amount = (
            f"local_epochs = {work.epochs}" if work.steps is None else f"local_steps = {work.steps}"
        )
        raise ValueError(
            f"{amount} with batches of {work.width} rows give a client up to {longest[0]:,} "
            f"steps a round, and the plan of a round would take {needed / 1e9:,.1f} GB of the "
            f"machine's {host / 1e9:,.1f} GB. Lower them, or clients_per_round."
        )


def plan_execution(
    dataset: FederatedDataset,
    max_jobs: int,
    param_bytes: int,
    steps: np.ndarray,
    options: RoundOptions,
) -> ExecutionPlan:
    """Chooses the execution plan of a run.

    Args:
      dataset: The federated data.
      max_jobs: Largest number of jobs in a round.
      param_bytes: Size of one model.
      steps: int64[N] local steps of each client.
      options: What a round does.
    """
    examples = dataset.train.examples
    in_memory = examples.arrays is not None
    if options.placement == "device" and not in_memory:
        raise ValueError(
            "placement = 'device' needs the training data in memory, but these examples are "
            "generated on demand. Leave it at 'auto', or materialize the data set."
        )
    return choose(
        cohort=max_jobs,
        equal_steps=bool((steps == steps[0]).all()),
        data_bytes=examples.nbytes if in_memory else np.iinfo(np.int64).max,
        param_bytes=param_bytes,
        needs_stack=as_configured(options.pipeline).needs_stack,
        devices=options.devices,
        lanes=options.lanes,
        wave=options.wave,
        placement=options.placement,
    )


def default_rows(
    algorithm: Algorithm, pipeline: Pipeline | PipelineSpec, variables: Variables
) -> ClientRows:
    """Returns the state of clients that never took part, NumPy leaves [S, ...] like `variables`."""

    def default(variables):
        return default_row(algorithm, pipeline, variables)

    trials = len(jax.tree.leaves(variables)[0])
    _refuse_keys(jax.eval_shape(batched(default, trials), variables))
    return jax.device_get(jax.jit(batched(default, trials))(variables))


def _refuse_keys(row: ClientRows) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(row):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"What a client keeps has a PRNG key at {jax.tree_util.keystr(path)}. A job has "
                "its own, of seed, round and client: derive keys from job.key, or keep "
                "jax.random.key_data(key)."
            )


def default_row(
    algorithm: Algorithm, pipeline: Pipeline | PipelineSpec, variables: Variables
) -> ClientRows:
    """Returns the state of a client that never took part, of one trial."""
    own = () if algorithm.init_client is None else algorithm.init_client(variables)
    return ClientRows(own, links.init_client(as_configured(pipeline), variables.params))


def make_store(default: ClientRows, num_clients: int, mesh: Mesh, largest: int) -> ClientStore:
    """Makes the client store for at most `largest` participations, on the devices if it fits.

    Args:
      default: State of clients that never took part, leaves [S, ...].
      num_clients: Size of the population.
      mesh: The devices.
      largest: The most participations.

    Raises:
      ValueError: If the machine's memory does not hold the state of so many clients.
    """
    leaves = jax.tree.leaves(default)
    rows = min(num_clients * max((len(leaf) for leaf in leaves), default=1), largest)
    needed = rows * sum(leaf[0].nbytes for leaf in leaves)
    host, memory = min(exchange(host_memory_bytes())), memory_of(mesh)
    if needed > host:
        raise ValueError(
            f"The state that {rows:,} clients keep needs {needed / 1e9:.2f} GB, and the machine "
            f"has {host / 1e9:.2f} GB. Use fewer clients or rounds, or a smaller model."
        )
    on_host = mesh.local_devices[0].platform != "cpu" and needed > memory // 4 * mesh.size
    return ClientStore(default, num_clients, mesh, on_host=on_host, most_rows=rows)


def init_model(task: Task, key: jax.Array, params: PyTree = None) -> tuple[PyTree, PyTree, PyTree]:
    """Returns (params, frozen, model_state) of the initial model; given parameters replace its own.

    Where the parameters are all there is, nothing is computed for the model's own.
    """
    model = _initial(task, key, params)
    check_trainable(model[0])
    check_numbers(model[2], "model_state")
    return model


def _initial(task: Task, key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree, PyTree]:
    if params is None:
        return initialized(task.init, key)
    try:
        own, *others = jax.eval_shape(task.init, key)
        known = not jax.tree.leaves(others)
    except jax.errors.JAXTypeError:
        known = False  # it works on the host: with weights from a file, say
    if not known:
        own, *others = initialized(task.init, key)
    return _like_model(params, own), *others


def _like_model(given: PyTree, expected: PyTree) -> PyTree:
    """Returns copies of given parameters, checked against the model's and in its types."""
    shapes = lambda tree: {  # noqa: E731
        jax.tree_util.keystr(path): tuple(np.shape(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    have, want = shapes(given), shapes(expected)
    if have != want:
        wrong = sorted(key for key in have | want if have.get(key) != want.get(key))[0]
        raise ValueError(
            f"initial_params do not fit the model: at {wrong} there is the shape "
            f"{have.get(wrong, 'of nothing')}, and the model has {want.get(wrong, 'nothing')}."
        )
    return jax.tree_util.tree_map_with_path(_in_type, given, expected)


def _in_type(path: Any, leaf: Any, like: Any) -> np.ndarray:
    """Returns a copy of given parameters on the host, in the type of the model's."""
    where, leaf, dtype = jax.tree_util.keystr(path), np.asarray(leaf), jnp.result_type(like)
    if not any(jnp.issubdtype(leaf.dtype, kind) for kind in (np.floating, np.integer, np.bool_)):
        raise ValueError(f"initial_params are no real numbers at {where}, but {leaf.dtype}.")
    with np.errstate(over="ignore"):
        found = leaf.astype(dtype)
    if wrong := np.count_nonzero(~np.isfinite(found)):
        raise ValueError(
            f"initial_params at {where} have {wrong} numbers that are not finite in the model's "
            f"type, {dtype}. Give finite ones that are in its range."
        )
    return found


def is_calibrated(
    options: RoundOptions,
    dataset: FederatedDataset,
    task: Task,
    steps: np.ndarray,
    work: LocalWork,
    max_jobs: int,
) -> bool:
    """Whether devices, lanes and waves are found by trial: where they are free and it pays.

    Args:
      options: What a round does.
      dataset: The federated data.
      task: What is trained.
      steps: int64[N] local steps of each client.
      work: What they are made of.
      max_jobs: Largest number of jobs in a round.
    """
    if options.lanes or options.wave:
        return False
    if options.calibrate is not None:
        return options.calibrate
    rounds = options.num_rounds
    if rounds < _CALIBRATED_ROUNDS or jax.default_backend() != "cpu":
        return rounds >= _CALIBRATED_ROUNDS
    jobs = max_jobs / make_mesh(options.devices).size
    taken = _ROUND_SECONDS + jobs * (_JOB_SECONDS + steps.mean() * _STEP_SECONDS)
    if rounds * taken < _CALIBRATED_SECONDS:
        spec, batch = dataset.train.examples.spec, work.width
        flops = training_flops(task, spec, batch, dataset.preprocess)
        taken += jobs * steps.mean() * flops / _CPU_FLOPS
    return bool(rounds * taken >= _CALIBRATED_SECONDS)

"""Makes the parts of a federation that depend on where it runs, from its blueprint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fljax.core import transforms as links
from fljax.core.algorithm import Variables, sent_params
from fljax.core.memory import in_place
from fljax.core.transforms import as_configured
from fljax.core.trees import batched, nbytes
from fljax.engine.devices.execution import ClientBytes, ExecutionPlan, Forms, make_mesh
from fljax.engine.devices.memory import has_own_memory
from fljax.engine.devices.placement import own_devices, put_same
from fljax.engine.plan.planner import Planner, make_planner
from fljax.engine.program.inputs import Inputs, RoundState
from fljax.engine.program.versions import empty_ring
from fljax.engine.store.client_store import ClientStore
from fljax.training.blueprint import Blueprint, algorithm_builder
from fljax.training.client_memory import client_bytes
from fljax.training.client_state import default_rows, make_store
from fljax.training.execution import JobLayout, plan_execution
from fljax.training.hyperparameters import own_numbers
from fljax.training.local_work import check_batches
from fljax.training.trials import InitialTrials


def execution_of(blueprint: Blueprint, layout: JobLayout | None) -> ExecutionPlan:
    """Returns the execution plan of a layout; None chooses it by rule."""
    wanted, client = blueprint.options, None
    forms = Forms() if layout is None else layout.forms
    if wanted.fused_updates is not None:
        forms = forms._replace(fused_updates=wanted.fused_updates)
    if layout is not None:
        numbers = {"devices": layout.devices, "lanes": layout.lanes, "wave": layout.wave}
        placement = layout.placement or wanted.placement
        wanted = dataclasses.replace(wanted, placement=placement, **numbers)
    elif has_own_memory(make_mesh(wanted.devices)):
        # on a CPU, one lane is the rule
        client = client_bytes_of(blueprint)
    param_bytes = nbytes(blueprint.model.params)
    jobs = blueprint.cohorts.max_jobs
    plan = plan_execution(
        blueprint.dataset, jobs, param_bytes, blueprint.steps, wanted, client,
        needs_stack=blueprint.pipeline.needs_stack,
    )  # fmt: skip
    return plan._replace(forms=forms)


def client_bytes_of(blueprint: Blueprint) -> ClientBytes:
    """Returns what a client takes on a device while it trains."""
    pipeline = as_configured(blueprint.options.pipeline)
    return client_bytes(
        blueprint.algorithm, pipeline, blueprint.model, blueprint.batch, len(blueprint.trials)
    )


def planner_of(blueprint: Blueprint, execution: ExecutionPlan, mesh: Mesh) -> Planner:
    """Returns what plans the rounds of a federation on these devices."""
    trials, steps_per_round = blueprint.trials, blueprint.options.steps_per_round
    planner = make_planner(
        blueprint.split,
        blueprint.work,
        blueprint.schedules,
        execution,
        max_cohort=blueprint.cohorts.max_jobs,
        seeds=[trial.seed for trial in trials],
        begins=[trial.partition * blueprint.dataset.num_clients for trial in trials],
        max_steps=None if steps_per_round is None else max(steps_per_round),
        fewer_steps=blueprint.cohorts.has_steps,
        staged_devices=own_devices(mesh),
        num_versions=blueprint.num_versions,
    )
    for work in planner.works:
        check_batches(blueprint.task, blueprint.split.partition.sizes, work)
    return planner


def store_of(blueprint: Blueprint, mesh: Mesh) -> ClientStore:
    """Returns the store, on these devices, of what clients keep from round to round."""
    options = blueprint.options
    default = default_rows(blueprint.algorithm, options.pipeline, blueprint.initial.variables)
    participations = options.num_rounds * blueprint.cohorts.max_jobs
    return make_store(default, blueprint.dataset.num_clients, mesh, participations)


def place_inputs(blueprint: Blueprint, mesh: Mesh, placement: str) -> Inputs:
    """Returns what stays the same from round to round, on the devices."""
    initial, data = blueprint.initial, None
    if placement == "device":
        data = jax.tree.map(in_place, blueprint.split.examples.arrays)
    dtype = initial.hparams["num_clients"].dtype
    own = own_numbers(blueprint.options, blueprint.dataset.num_clients, dtype)
    return put_same(Inputs(data, initial.frozen, initial.hparams, initial.keys, own), mesh)


def make_starter(blueprint: Blueprint, mesh: Mesh) -> Callable[[InitialTrials], RoundState]:
    """Returns the compiled function from what trials start from to the state of round 0."""
    build_algorithm, pipeline = algorithm_builder(blueprint), blueprint.options.pipeline
    num_versions = blueprint.num_versions

    def first_state(variables: Variables, several: Variables | None, frozen, hparams) -> RoundState:
        algorithm = build_algorithm(frozen, hparams, 0)
        server = algorithm.init(variables if several is None else several)
        params = sent_params(algorithm, variables)
        chains = links.init_server(as_configured(pipeline), params)
        past = () if num_versions == 1 else empty_ring(algorithm, server, num_versions)
        return jax.tree.map(_strongly_typed, RoundState(server, chains, past))

    each_trial = batched(first_state, len(blueprint.trials), (0, 0, None, 0))
    start = jax.jit(each_trial, out_shardings=NamedSharding(mesh, PartitionSpec()))
    return lambda initial: start(
        *put_same((initial.variables, initial.several, initial.frozen, initial.hparams), mesh)
    )


def _strongly_typed(leaf: Any) -> jax.Array:
    """Returns a leaf typed as the program returns it: a weak type compiles anew."""
    array = jnp.asarray(leaf)
    return jnp.asarray(array, array.dtype)

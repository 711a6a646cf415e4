"""Compiles round programs for an H100 on a machine without one.

XLA's compiler for GPUs needs a description of the card (`h100.txtpb`), not the card. What comes out
is what the card would run: kernels, command buffers, buffers in memory. Nothing is autotuned, so
products may run as other kernels there. It takes JAX's plugin for CUDA 13 and NVIDIA's compiler,
beside a JAX of the plugin's version:

    pip install --no-deps jax-cuda13-pjrt jax-cuda13-plugin nvidia-cuda-nvcc nvidia-nvvm \
        nvidia-cuda-runtime nvidia-cuda-cccl nvidia-cuda-cupti
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fljax.benchmarks.gpu.common import exchanging
from fljax.benchmarks.measure import round_options
from fljax.benchmarks.workloads import Workload, generate, make_model, make_task
from fljax.core.algorithm import AlgorithmSpec
from fljax.engine.devices import execution
from fljax.engine.devices.execution import AXIS, ExecutionPlan
from fljax.engine.devices.memory import program_bytes
from fljax.engine.plan.packed_plan import pack
from fljax.engine.plan.round_plan import HostPlan, PassPlan
from fljax.engine.program.round import make_round_program
from fljax.training.assembly import (
    client_bytes_of,
    execution_of,
    make_starter,
    place_inputs,
    planner_of,
    store_of,
)
from fljax.training.blueprint import algorithm_builder, draw_blueprint

PyTree = Any

CARD = Path(__file__).with_name("h100.txtpb")
# three quarters of the 80 GiB: what JAX takes of them
MEMORY_BYTES = 63_700_000_000
_SAME = PartitionSpec()


class Memory(NamedTuple):
    """XLA's own figures of a program's memory, in bytes.

    Attributes:
      total: What the device holds while it runs, arguments and results included.
      temporary: What it needs beside those.
    """

    total: int
    temporary: int


class Compiled(NamedTuple):
    """A program as the card would run it.

    Attributes:
      hlo: The scheduled module, as text.
      thunks: What the host tells the card to do, in XLA's text: one line a thunk.
      names: {number of a thunk: name of its instruction in the module}.
      memory: What it takes.
    """

    hlo: str
    thunks: str
    names: Mapping[int, str]
    memory: Memory


class Schedule(NamedTuple):
    """The trip counts of a round's loops, which are data of the program.

    Attributes:
      jobs: Clients that train.
      waves: Waves of all passes.
      exchanges: Exchanges at which jobs end, of all passes.
      steps: Steps of all passes.
      plan_bytes: Size of the plan, which travels to the device each round.
      utilization: Rows trained on ÷ rows computed.
    """

    jobs: int
    waves: int
    exchanges: int
    steps: int
    plan_bytes: int
    utilization: float


class CompiledRound(NamedTuple):
    """The compiled round program of a workload.

    Attributes:
      execution: Its layout.
      schedule: The first round's.
      program: What XLA has made of it.
      estimate: The temporary memory that was expected of that layout, in bytes.
    """

    execution: ExecutionPlan
    schedule: Schedule
    program: Compiled
    estimate: int


def missing() -> str | None:
    """Returns what keeps this machine from compiling for an H100, or None."""
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        return "there is no JAX plugin for CUDA 13 (jax-cuda13-pjrt, jax-cuda13-plugin)"
    if not (_toolkit() / "bin" / "ptxas").is_file():
        return "there is no CUDA compiler (nvidia-cuda-nvcc)"
    return None


def _toolkit() -> Path:
    """Returns the folder of NVIDIA's compiler, which pip has put beside the plugin."""
    plugin = importlib.util.find_spec("jax_cuda13_plugin")
    return Path(plugin.submodule_search_locations[0]).parent / "nvidia" / "cu13"


@contextlib.contextmanager
def accelerator() -> Iterator[Mesh]:
    """Lets whatever chooses by platform see an H100; yields its mesh, to lower programs for."""
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # there is no driver
    described = topologies.get_topology_desc(
        "h100", platform="cuda", target_config=CARD.read_text(), topology="1x1x1"
    )
    with (
        mock.patch.object(jax, "default_backend", lambda: "gpu"),
        mock.patch.object(jax, "devices", lambda: list(described.devices)),
        mock.patch.object(execution, "device_memory_bytes", lambda device: MEMORY_BYTES),
        mock.patch.object(execution, "taken_bytes", lambda device: 0),
    ):
        yield Mesh(np.array(described.devices), (AXIS,))


def shapes(tree: PyTree, mesh: Mesh, spec: PartitionSpec = _SAME) -> PyTree:
    """Returns the shapes of arrays as if they lay on a mesh."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def compile_for_card(
    lowered: jax.stages.Lowered, compiler_options: Mapping[str, Any] | None = None
) -> Compiled:
    """Compiles what was lowered for the mesh of `accelerator`.

    Args:
      lowered: Of a jitted function.
      compiler_options: Options of XLA beyond those of the function.

    Raises:
      RuntimeError: If XLA does not say what it has compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "xla_gpu_cuda_data_dir": str(_toolkit()),
            "xla_gpu_autotune_level": 0,
            # without autotuning, some products have no kernel of Triton's
            "xla_gpu_enable_triton_gemm": False,
            "xla_dump_to": folder,
            "xla_dump_hlo_as_text": True,
            **(compiler_options or {}),
        }
        compiled = lowered.compile(compiler_options=options)
        # the passes are those that gather thunks in command buffers, where they do
        thunks = _read(folder, "thunk_sequence_after_thunk_passes", "thunk_sequence")
        metadata = _read(folder, "thunk_metadata")
    pairs = re.findall(r'profile_annotation: "([^"]*)"\s+thunk_id: (\d+)', metadata)
    temporary = compiled.memory_analysis().temp_size_in_bytes
    memory = Memory(program_bytes(compiled), temporary)
    return Compiled(
        compiled.as_text(), thunks, {int(number): name for name, number in pairs}, memory
    )


def _read(folder: str, *kinds: str) -> str:
    """Returns the first of XLA's texts of some kinds that there is."""
    for kind in kinds:
        for path in Path(folder).glob(f"*.{kind}.txt"):
            return path.read_text()
    raise RuntimeError(
        f"XLA has written no {kinds[-1]}. It writes none for a program that it takes from JAX's "
        "compilation cache: switch that off (jax_enable_compilation_cache)."
    )


def compile_workload(
    workload: Workload,
    algorithm: AlgorithmSpec,
    *,
    exchange_size: int = 0,
    compiler_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> CompiledRound:
    """Compiles the round program of a workload for an H100.

    Args:
      workload: What is compiled; a small `pool` keeps its data small, and their share of the
        memory.
      algorithm: What clients and server do.
      exchange_size: Lanes that exchange at once; 0 leaves it to the rule.
      compiler_options: Options of XLA beyond those of the program.
      **options: Fields of `RoundOptions`, such as lanes.
    """
    host = Mesh(np.array(jax.devices("cpu")[:1]), (AXIS,))
    task = make_task(workload, make_model(workload))
    dataset = generate(workload)
    with accelerator() as mesh:
        chosen = round_options(workload, 10, **{"calibrate": False, **options})
        blueprint = draw_blueprint(dataset, task, algorithm, chosen)
        layout = exchanging(execution_of(blueprint, None), exchange_size)
        drawn = blueprint.cohorts.draw(0, blueprint.cohorts.init())
        plan, facts = planner_of(blueprint, layout, mesh).plan(0, drawn.jobs, drawn.states)
        packed = pack(plan)
        program = make_round_program(
            algorithm_builder(blueprint),
            chosen.pipeline,
            mesh,
            len(blueprint.trials),
            forms=layout.forms,
        )
        per_job = PartitionSpec(AXIS)
        # of the card there are shapes alone; values lie on the host
        state = make_starter(blueprint, host)(blueprint.initial)
        rows = store_of(blueprint, host).gather(facts.trials, facts.clients)
        inputs = place_inputs(blueprint, host, layout.placement)
        lowered = program.lower(
            shapes(state, mesh),
            shapes(rows, mesh, per_job),
            shapes(packed, mesh, per_job),
            shapes(inputs, mesh),
        )
        compiled = compile_for_card(lowered, compiler_options)
        estimate = client_bytes_of(blueprint).held(layout.lanes, layout.wave, layout.exchange_size)
    schedule = _schedule(plan.passes, facts, packed.numbers.nbytes)
    return CompiledRound(layout, schedule, compiled, estimate)


def _schedule(passes: tuple[PassPlan, ...], facts: HostPlan, plan_bytes: int) -> Schedule:
    waves = [int(one_pass.num_waves[0]) for one_pass in passes]
    events = [one_pass.exchange_times(0) for one_pass in passes]
    return Schedule(
        jobs=facts.num_jobs,
        waves=sum(waves),
        exchanges=sum(map(len, events)),
        steps=sum(int(times.max()) for times in events),
        plan_bytes=plan_bytes,
        utilization=facts.rows_real / facts.rows_computed,
    )

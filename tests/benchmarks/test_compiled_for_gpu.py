"""Round programs compiled for an H100 on this CPU: what keeps a card busy, or waiting.

Skipped where JAX's plugin for CUDA and NVIDIA's compiler are not installed (`compiled.py`).
"""

import dataclasses
import functools
from unittest import mock

import jax
import pytest

from fljax import algorithms
from fljax.benchmarks.gpu import compiled, program_figures
from fljax.benchmarks.round_cost import links_of
from fljax.benchmarks.workloads import WORKLOADS, make_model, make_task
from fljax.engine.program import round as round_program
from fljax.engine.program.layout import as_given

pytestmark = pytest.mark.skipif(compiled.missing() is not None, reason=str(compiled.missing()))

# counters and masks of the lanes, a hidden state
_SMALL = 1e-3
# where cuBLAS works, whatever the program
_WORKSPACE = 32 << 20


@dataclasses.dataclass(frozen=True)
class Case:
    """A round program, and the most kernels that a step and an exchange may launch."""

    workload: str
    lanes: int
    step: int
    exchange: int
    algorithm: str = "fedavg"
    uplink: str = "none"
    cohort: int = 12
    kernels: bool = False
    compute_dtype: str = "float32"


CASES = {
    # clients of one size start and end together; the others by and by
    "equal": Case("cifar10_cnn_50", 12, step=45, exchange=60),
    "kernels": Case("cifar10_cnn_50", 12, step=40, exchange=60, kernels=True),
    "kernels, ragged": Case("emnist_cnn_100", 4, step=40, exchange=60, kernels=True),
    "ragged": Case("softmax_100", 4, step=14, exchange=22),
    "in turn": Case("softmax_100", 1, step=14, exchange=22),
    "scaffold": Case("softmax_100", 4, step=16, exchange=40, algorithm="scaffold"),
    "top k": Case("softmax_100", 4, step=14, exchange=48, uplink="top_k(0.01) + error_feedback"),
    "recurrent": Case("shakespeare_10", 4, step=900, exchange=60, cohort=6),
    "recurrent kernels": Case("shakespeare_10", 4, step=460, exchange=60, cohort=6, kernels=True),
    "bfloat16": Case("cifar10_cnn_50", 12, step=50, exchange=66, compute_dtype="bfloat16"),
}


@functools.cache
def compiled_case(name: str) -> compiled.CompiledRound:
    case = CASES[name]
    workload = dataclasses.replace(
        WORKLOADS[case.workload], population=case.cohort, cohort=case.cohort, pool=200
    )
    if case.kernels:
        option = "lstm_form" if workload.model == "char_lstm" else "conv_form"
        workload = dataclasses.replace(workload, model_options={option: "pallas"})
    params, _, _ = jax.eval_shape(make_task(workload, make_model(workload)).init, jax.random.key(0))
    return compiled.compile_workload(
        workload,
        algorithms.make(case.algorithm, client_lr=0.1),
        lanes=case.lanes,
        pipeline=links_of(case.uplink, params, workload.population),
        fused_updates=case.kernels,
        compute_dtype=case.compute_dtype,
    )


@pytest.fixture(params=CASES)
def name(request):
    return request.param


def test_the_host_waits_for_no_predicate(name):
    found = program_figures.loops(compiled_case(name))
    assert program_figures.total(found).predicates == 0
    assert len(found) > 1 and all(loop.in_buffer for loop in found[1:])
    # clients of one size take a number of steps that the program knows
    assert any(loop.is_data for loop in found) == (CASES[name].workload != "cifar10_cnn_50")


def test_loops_copy_no_carries(name):
    case, found = CASES[name], compiled_case(name)
    works = {loop.function: loop.work for loop in program_figures.loops(found)[1:]}
    share = {function: work.copied / work.bytes for function, work in works.items()}
    if case.lanes == 1:
        # a lane alone begins with a copy of the model
        del share["_wave"]
    if CASES[name].workload == "shakespeare_10":
        # what time steps leave is put together in arrays that begin as copies of zeros
        step = program_figures.iteration(program_figures.loops(found), "_steps")
        share["_steps"] = 0 if step.copied < 0.03 * step.bytes else 1
    assert share and max(share.values()) <= _SMALL, share


def test_steps_and_exchanges_launch_few_kernels(name):
    case, found = CASES[name], program_figures.describe(name, compiled_case(name))
    assert found["steps"]["kernels"] <= case.step
    # where there is one exchange, it is the round
    exchange = found["exchanges"] or found["loops"][0]["work"]
    assert exchange["kernels"] <= case.exchange


def test_kernels_for_cards_move_a_third_of_the_bytes():
    step, plain = (
        program_figures.iteration(program_figures.loops(compiled_case(name)), "_steps").bytes
        for name in ("kernels", "equal")
    )
    assert step <= 0.36 * plain


def test_steps_read_no_weights_to_cast_them():
    with mock.patch.object(round_program, "carried_casts", as_given):
        as_written = compiled_case.__wrapped__("bfloat16")
    less, more = (
        program_figures.iteration(program_figures.loops(found), "_steps").bytes
        for found in (compiled_case("bfloat16"), as_written)
    )
    # the largest dense layer is read in float32 for its update alone
    assert more - less >= 0.99 * 4 * 12_544 * 128 * CASES["bfloat16"].lanes


@pytest.mark.parametrize("name", ["equal", "recurrent", "recurrent kernels"])
def test_memory_is_what_was_expected(name):
    found = compiled_case(name)
    temporary, expected = found.program.memory.temporary, found.estimate
    assert 0.8 * expected <= temporary <= 1.2 * expected + _WORKSPACE


def test_what_is_counted_would_be_seen():
    """Without fljax's options, and with exchanges of one lane, there are predicates."""
    with mock.patch.object(round_program, "gpu_options", lambda device: {}):
        found = compiled.compile_workload(
            dataclasses.replace(WORKLOADS["softmax_60"], population=6, cohort=6, pool=200),
            algorithms.fedavg(0.1), lanes=2, exchange_size=1,
        )  # fmt: skip
    loops = program_figures.loops(found)
    assert program_figures.total(loops).predicates >= found.schedule.exchanges
    assert not any(loop.in_buffer for loop in loops)

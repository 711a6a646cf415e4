"""Figures out of XLA's texts: launches, predicates, trip counts, bytes and operations."""

import jax
import jax.numpy as jnp
import pytest

from fljax.benchmarks.gpu import hlo, thunks

THUNKS = """\
000: kCommandBuffer [source       | next=003 (1)] 
    001: kCopy         [source | sink] kCopy
    002: kCustomKernel [source | sink] loop_add grid: [1, 1, 1] threads: [1, 1, 1]
003: kWhile [prev=000 (1) | sink        ]   
condition:
    004: kCustomKernel [source | sink] wrapped_compare grid: [1, 1, 1] threads: [1, 1, 1]
  body:
    005: kWhile [source       | next=008 (1)]       
condition:
        006: kCustomKernel [source | sink] wrapped_compare grid: [1, 1, 1] threads: [1, 1, 1]
      body:
        007: kCustomKernel [source | sink] gemm grid: [1, 1, 1] threads: [1, 1, 1]
    008: kCublasLtMatmul [prev=005 (1) | sink] kCublasLtMatmul
"""  # noqa: W291, as XLA writes it

MODULE = """\
HloModule jit_f, is_scheduled=true

FunctionNames
1 "main"
2 "_steps"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=0 end_column=1}
2 {file_name_id=1 function_name_id=2 line=2 end_line=2 column=0 end_column=1}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}


%fused (p0: f32[64,100], p1: f32[1,100], p2: s32[]) -> f32[64,100] {
  %p0 = f32[64,100]{1,0} parameter(0)
  %p1 = f32[1,100]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %put = f32[64,100]{1,0} dynamic-update-slice(%p0, %p1, %p2, %zero)
}

%taken (q0: f32[64,100], q1: s32[]) -> bf16[100] {
  %q0 = f32[64,100]{1,0} parameter(0)
  %q1 = s32[] parameter(1)
  %none = s32[] constant(0)
  %row = f32[1,100]{1,0} dynamic-slice(%q0, %q1, %none), dynamic_slice_sizes={1,100}
  %flat = f32[100]{0} bitcast(%row)
  ROOT %cast = bf16[100]{0} convert(%flat)
}

%copied (r0: f32[64,100]) -> f32[64,100] {
  %r0 = f32[64,100]{1,0} parameter(0)
  ROOT %copy.1 = f32[64,100]{0,1} copy(%r0)
}

ENTRY %main (a: f32[64,100], b: f32[1,100], i: s32[], c: f32[8,4,5], d: f32[8,5,6]) -> f32[64,100] {
  %a = f32[64,100]{1,0} parameter(0)
  %b = f32[1,100]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %c = f32[8,4,5]{2,1,0} parameter(3)
  %d = f32[8,5,6]{2,1,0} parameter(4)
  %taken.1 = bf16[100]{0} fusion(%a, %i), kind=kLoop, calls=%taken, metadata={op_name="x" stack_frame_id=2}
  %gemm = (f32[8,4,6]{2,1,0}, s8[4194304]{0}) custom-call(%c, %d), custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]}}}
  %copied.1 = f32[64,100]{0,1} fusion(%a), kind=kLoop, calls=%copied
  ROOT %fused.1 = f32[64,100]{1,0} fusion(%a, %b, %i), kind=kLoop, calls=%fused
}
"""  # noqa: E501, as XLA writes it


def test_thunks_become_a_tree():
    names = {1: "copy.1", 2: "loop_add.1", 3: "while.1", 5: "while.2", 7: "gemm.1", 8: "gemm.2"}
    buffer, outer = thunks.parse(THUNKS, names)
    assert buffer.kind == "kCommandBuffer" and [t.name for t in buffer.held] == [
        "copy.1", "loop_add.1",
    ]  # fmt: skip
    assert (outer.name, [t.role for t in outer.held]) == ("while.1", ["condition", "body", "body"])
    inner, product = outer.held[1:]
    assert (inner.name, [t.role for t in inner.held]) == ("while.2", ["condition", "body"])
    assert product.launches and not inner.launches and not buffer.launches
    # a thunk that XLA gives no instruction keeps its kind
    assert outer.held[0].name == "kCustomKernel"


def test_bytes_and_operations_are_those_that_reach_memory():
    module = hlo.parse(MODULE)
    find = module.find
    # in place: the update and its index are read, the update is written
    assert hlo.moved_bytes(module, find("fused.1")) == 2 * 400 + 4
    # a row of a matrix is read, and half as much written
    assert hlo.moved_bytes(module, find("taken.1")) == 400 + 4 + 200
    # without the room that a product works in
    assert hlo.moved_bytes(module, find("gemm")) == 4 * 8 * (4 * 5 + 5 * 6 + 4 * 6)
    assert hlo.product_operations(module, find("gemm")) == 2 * 8 * 4 * 5 * 6
    assert [hlo.is_copy(module, find(name)) for name in ("copied.1", "fused.1")] == [True, False]
    assert module.function_of(find("taken.1")) == "_steps"
    assert module.function_of(find("gemm")) == "" and module.find("absent") is None


def test_a_module_of_this_machine_is_read():
    """A CPU's module: other instructions, the same language."""
    body = lambda _, x: x @ x  # noqa: E731
    program = jax.jit(lambda x: jax.lax.fori_loop(0, 7, body, x))
    module = hlo.parse(program.lower(jnp.ones((16, 16))).compile().as_text())
    found = [operation for held in module.computations.values() for operation in held.values()]
    (loop,) = [operation for operation in found if operation.opcode == "while"]
    assert hlo.trip_count(loop) == 7 and loop.called("body") in module.computations
    products = [operation for operation in found if operation.opcode == "dot"]
    assert [hlo.product_operations(module, product) for product in products] == [2 * 16**3]


@pytest.mark.parametrize(
    "shape, size", [("f32[]", 4), ("(pred[3], bf16[2,5])", 23), ("s8[4]{0}", 4), ("()", 0)]
)
def test_sizes_of_shapes(shape, size):
    assert hlo.array_bytes(shape) == size

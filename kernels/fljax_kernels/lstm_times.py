"""Each time of an LSTM as one kernel of an NVIDIA card (Pallas): the product and the cell together.

    advance   gates[t] += outputs[t - 1] @ kernel; cells[t] and outputs[t] follow
    retreat   of outputs[t]: its gradient + dgates[t + 1] @ kernel.T; dgates[t] follow

A program of the grid makes some rows and some hidden units, with all four of their gates. The times
lie in arrays that are written in place: gates[t] where the inputs' share of them was, and dgates[t]
where gates[t] was. A kernel reads of the time before it what the kernel before it has written.

The kernels are for Pallas's Triton backend, which JAX 0.11 has and intends to remove one day.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

# Kernels an iteration of the loop over times, of which one more only counts.
_TIMES = 8
# Hidden units of a program, and numbers that it multiplies at once.
_UNITS, _CHUNK = 32, 64


def advance(gates, kernel, interpret=False):
    """Runs through the times.

    Args:
      gates: [T, B, 4 * hidden], the inputs' share.
      kernel: [hidden, 4 * hidden].
      interpret: Whether to run the kernels without a card, slowly.

    Returns:
      (outputs [T, B, hidden], cells [T, B, hidden], gates [T, B, 4 * hidden]).
    """
    times, rows, hidden = *gates.shape[:2], kernel.shape[0]
    room = jnp.zeros(times * rows * hidden, gates.dtype)
    step = _step(_advance_kernel, (times, rows, hidden), kernel, (), 3, interpret)
    outputs, cells, gates = _run(times, step, (room, room, gates.reshape(-1)))
    shape = times, rows, hidden
    return outputs.reshape(shape), cells.reshape(shape), gates.reshape(times, rows, -1)


def retreat(doutputs, cells, gates, kernel, interpret=False):
    """Returns the gradient by the gates of all times, [T, B, 4 * hidden].

    Args:
      doutputs: [T, B, hidden], the gradient by the outputs as far as others read them.
      cells, gates: As `advance` returns them.
      kernel, interpret: As for `advance`.
    """
    times, rows, hidden = cells.shape
    given = doutputs.reshape(-1), cells.reshape(-1)
    step = _step(_retreat_kernel, cells.shape, kernel, given, 2, interpret)
    dcell = jnp.zeros(rows * hidden, cells.dtype)
    _, dgates = _run(times, step, (dcell, gates.reshape(-1)))
    return dgates.reshape(gates.shape)


def _run(times, step, written):
    """Runs the steps of all times; those beyond the last one do nothing."""

    def one_block(number, written):
        for place in range(_TIMES):
            written = step(_one(number), _one(place), written)
        return written

    return lax.fori_loop(0, pl.cdiv(times, _TIMES), one_block, written)


def _one(number):
    return jnp.full(1, number, jnp.int32)


def _step(kernel_of_a_time, sizes, kernel, given, num_written, interpret):
    """Returns (number of the block, place in it, arrays to write) -> the arrays."""
    _, rows, hidden = sizes
    tile = max(16, min(32, pl.next_power_of_2(rows)))
    kernel, read = kernel.reshape(-1), 3 + len(given)

    @jax.jit  # traced once for all places
    def step(block, place, written):
        return pl.pallas_call(
            partial(
                kernel_of_a_time,
                sizes=sizes,
                tile=tile,
                total=jnp.promote_types(kernel.dtype, jnp.float32),
            ),
            grid=(pl.cdiv(rows, tile), pl.cdiv(hidden, _UNITS)),
            out_shape=[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in written],
            input_output_aliases={read + number: number for number in range(num_written)},
            compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=3),
            interpret=interpret,
            name=kernel_of_a_time.__name__.strip("_"),
        )(block, place, kernel, *given, *written)

    return step


def _advance_kernel(block, place, kernel, outputs_in, cells_in, gates_in, outputs, cells, gates,
                    *, sizes, tile, total):  # fmt: skip
    times, _, hidden = sizes
    time = block[0] * _TIMES + place[0]
    row, unit, real = _places(sizes, tile, time)
    before = _at(sizes, time - 1, row)

    def add(step, sums):
        chunk = step * _CHUNK + _iota(_CHUNK, 1)
        output = _load(outputs_in, before * hidden + chunk, (time > 0) & real[0] & (chunk < hidden))
        chunk = step * _CHUNK + _iota(_CHUNK, 0)
        weights = [
            _load(kernel, (chunk * 4 + gate) * hidden + unit, (chunk < hidden) & real[1])
            for gate in range(4)
        ]
        return tuple(s + _dot(output, w, total) for s, w in zip(sums, weights, strict=True))

    sums = (jnp.zeros((tile, _UNITS), total),) * 4
    sums = lax.fori_loop(0, pl.cdiv(hidden, _CHUNK), add, sums)
    real = real[0] & real[1]
    here = _at(sizes, time, row)
    values = []
    for gate in range(4):
        at = (here * 4 + gate) * hidden + unit
        values.append(sums[gate] + _load(gates_in, at, real).astype(total))
        _store(gates, at, values[-1], real)
    write, new, forget, read = _activations(values)
    cell_before = _load(cells_in, before * hidden + unit, real & (time > 0)).astype(total)
    cell = forget * cell_before + write * new
    _store(cells, here * hidden + unit, cell, real)
    _store(outputs, here * hidden + unit, read * jnp.tanh(cell), real)


def _retreat_kernel(block, place, kernel, doutputs, cells, dcell_in, gates_in, dcell_out, dgates,
                    *, sizes, tile, total):  # fmt: skip
    times, _, hidden = sizes
    time = times - 1 - (block[0] * _TIMES + place[0])
    row, unit, real = _places(sizes, tile, time)
    later = _at(sizes, time + 1, row)

    def add(step, doutput):
        chunk = step * _CHUNK + _iota(_CHUNK, 1)
        inside = (time + 1 < times) & real[0] & (chunk < 4 * hidden)
        slopes = _load(gates_in, later * 4 * hidden + chunk, inside)
        chunk = step * _CHUNK + _iota(_CHUNK, 0)
        weights = _load(kernel, unit * 4 * hidden + chunk, (chunk < 4 * hidden) & real[1])
        return doutput + _dot(slopes, weights, total)

    doutput = jnp.zeros((tile, _UNITS), total)
    doutput = lax.fori_loop(0, pl.cdiv(4 * hidden, _CHUNK), add, doutput)
    real = real[0] & real[1]
    here, before = _at(sizes, time, row), _at(sizes, time - 1, row)
    places = [(here * 4 + gate) * hidden + unit for gate in range(4)]
    values = [_load(gates_in, at, real).astype(total) for at in places]
    write, new, forget, read = _activations(values)
    shown = jnp.tanh(_load(cells, here * hidden + unit, real).astype(total))
    cell_before = _load(cells, before * hidden + unit, real & (time > 0)).astype(total)
    doutput = doutput + _load(doutputs, here * hidden + unit, real).astype(total)
    state = row * hidden + unit
    dcell = _load(dcell_in, state, real).astype(total) + doutput * read * (1 - shown * shown)
    slopes = [
        dcell * new * write * (1 - write),
        dcell * write * (1 - new * new),
        dcell * cell_before * forget * (1 - forget),
        doutput * shown * read * (1 - read),
    ]
    for at, slope in zip(places, slopes, strict=True):
        _store(dgates, at, slope, real)
    _store(dcell_out, state, dcell * forget, real)


def _places(sizes, tile, time):
    """Returns a program's rows and units, and (rows and time exist, units exist)."""
    times, rows, hidden = sizes
    row = pl.program_id(0) * tile + _iota(tile, 0)
    unit = pl.program_id(1) * _UNITS + _iota(_UNITS, 1)
    return row, unit, ((row < rows) & (time >= 0) & (time < times), unit < hidden)


def _at(sizes, time, row):
    return time * sizes[1] + row


def _activations(gates):
    write, new, forget, read = gates
    return jax.nn.sigmoid(write), jnp.tanh(new), jax.nn.sigmoid(forget + 1), jax.nn.sigmoid(read)


def _load(ref, index, mask):
    return plgpu.load(ref.at[index], mask=jnp.broadcast_to(mask, index.shape), other=0)


def _store(ref, index, values, mask):
    plgpu.store(ref.at[index], values.astype(ref.dtype), mask=mask)


def _dot(a, b, total):
    return lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=total)


def _iota(size, axis):
    return lax.broadcasted_iota(jnp.int32, (size, 1) if axis == 0 else (1, size), axis)

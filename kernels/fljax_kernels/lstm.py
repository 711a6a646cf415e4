"""The recurrence of an LSTM, with a gradient that multiplies by few and large matrices.

JAX's own gradient of a scan adds to the weights' gradient at every time. Here it is a single
product over all times, and the weights are transposed once. In return there is no forward mode
(`jax.jvp`).

Three forms of the same function:

"scan": one time an iteration; what a gradient needs of the cells is computed where it is used, in
the processor's cache.

"blocks": for accelerators, where launching a kernel takes longer than these kernels run. At each
time a product and one kernel for everything else run, forward as well as backward; what writes
results down and counts serves as many times as a block has. So there are 2.3 kernels a time instead
of 6 (forward) and 5 (backward), by XLA's compiler for an H100.

"pallas": kernels of our own for NVIDIA cards, one a time (`lstm_times.py`). Results are written in
place, and nothing is transposed or copied for the loops.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from fljax_kernels.forms import form_of

FORMS = ("auto", "scan", "blocks", "pallas")
# more times a block save little and compile longer
_BLOCK = 16
# of the five parts of a cell's gradient, the one that the output alone leads to
_READ = 3


def lstm(gates: jax.Array, kernel: jax.Array, *, form: str = "auto") -> jax.Array:
    """Runs an LSTM through the times, from a state of zeros.

    Args:
      gates: float[T, B, 4 * hidden], what the inputs and biases add to the gates write, new, forget
        and read; 1 is added to the forget gate's.
      kernel: float[hidden, 4 * hidden], by which the output of the time before is multiplied.
      form: "scan", "blocks", "pallas", or "auto": "scan" on a CPU, "blocks" elsewhere, unless
        `fljax_kernels.forms.choosing` says otherwise. "pallas" is "blocks" where there is no NVIDIA
        card, as known when the program is lowered, and for float64.

    Returns:
      float[T, B, hidden], the outputs.

    Raises:
      ValueError: For an unknown form.

    Example:
      >>> lstm(jnp.zeros((7, 2, 4 * 3)), jnp.zeros((3, 4 * 3))).shape
      (7, 2, 3)
    """
    if form not in FORMS:
        raise ValueError(f"form = {form!r}; choose one of {', '.join(map(repr, FORMS))}.")
    form = form_of("lstm", form)
    if form == "auto":
        form = "scan" if jax.default_backend() == "cpu" else "blocks"
    if form == "pallas" and gates.dtype == jnp.float64:
        form = "blocks"
    return _lstm(form, gates, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lstm(form, gates, kernel):
    return _forward(form, gates, kernel)[0]


def _forward(form, gates, kernel):
    advance = partial(_advance, times=1 if form == "scan" else _BLOCK)
    if form == "pallas":
        from fljax_kernels import lstm_times

        advance = partial(jax.lax.platform_dependent, cuda=lstm_times.advance, default=advance)
    outputs, cells, gates = advance(gates, kernel)
    return outputs, (outputs, cells, gates, kernel)


def _backward(form, residuals, doutputs):
    outputs, cells, gates, kernel = residuals
    retreat = _retreat if form == "scan" else _retreat_in_blocks
    if form == "pallas":
        from fljax_kernels import lstm_times

        retreat = partial(jax.lax.platform_dependent, cuda=lstm_times.retreat, default=retreat)
    dgates = ready = retreat(doutputs, cells, gates, kernel)
    if form != "scan":
        # else XLA computes the gradients of both of a layer's kernels as one product, with copies
        ready = jax.lax.optimization_barrier(dgates)
    return dgates, jnp.einsum("tbh,tbg->hg", _before(outputs), ready)


_lstm.defvjp(_forward, _backward)


def _advance(gates, kernel, times):
    """Returns outputs, cells and gates of all times; an iteration has `times` of them."""

    def advance(state, gates):
        output, cell = state
        gates = gates + output @ kernel
        state = _advance_cell(gates, cell)
        return state, (*state, gates)

    zeros = jnp.zeros((gates.shape[1], kernel.shape[0]), gates.dtype)
    return jax.lax.scan(advance, (zeros, zeros), gates, unroll=times)[1]


def _retreat(doutputs, cells, gates, kernel):
    """Returns the gradient by the gates of all times."""
    transposed = kernel.T

    def retreat(dstate, at):
        doutput, dcell = dstate
        doutput_here, cell_before, gates = at
        pull_back = jax.vjp(_advance_cell, gates, cell_before)[1]
        dgates, dcell = pull_back((doutput + doutput_here, dcell))
        return (dgates @ transposed, dcell), dgates

    zeros = jnp.zeros_like(doutputs[0])
    return jax.lax.scan(retreat, (zeros, zeros), (doutputs, _before(cells), gates), reverse=True)[1]


def _retreat_in_blocks(doutputs, cells, gates, kernel):
    transposed = kernel.T
    slopes = _slopes(gates, cells, _before(cells))
    by_output = jnp.arange(5)[:, None] == _READ

    def retreat(dstate, at):
        doutput, dcell = dstate
        doutput_here, cell_slopes, slopes = at
        doutput = doutput + doutput_here
        dcell = dcell + doutput * cell_slopes
        # all five as one array, which one kernel makes
        parts = jnp.where(by_output, doutput[:, None], dcell[:, None]) * slopes
        return (_of_gates(parts) @ transposed, parts[:, 4]), parts

    zeros = jnp.zeros_like(doutputs[0])
    scan = partial(jax.lax.scan, retreat, (zeros, zeros), reverse=True, unroll=_BLOCK)
    return _of_gates(scan((doutputs, *slopes))[1])


def _before(states):
    """Returns the states before each time."""
    return jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])


def _of_gates(parts):
    """[..., 5, hidden] -> [..., 4 * hidden], without the cell's part."""
    return parts[..., :4, :].reshape(*parts.shape[:-2], -1)


def _slopes(gates, cells, cells_before):
    """Returns the slopes of a cell at all times.

    Returns:
      That of the output in the cell, [..., hidden]; and, [..., 5, hidden], those of the cell in
      write, new and forget, of the output in read, and of the cell in the cell before.
    """
    write, new, forget, read = _activations(gates)
    shown = jnp.tanh(cells)
    slopes = [
        new * write * (1 - write),
        write * (1 - new**2),
        cells_before * forget * (1 - forget),
        shown * read * (1 - read),
        forget,
    ]
    return read * (1 - shown**2), jnp.stack(slopes, axis=-2)


def _advance_cell(gates, cell):
    """Returns output and cell of one time."""
    write, new, forget, read = _activations(gates)
    cell = forget * cell + write * new
    return read * jnp.tanh(cell), cell


def _activations(gates):
    write, new, forget, read = jnp.split(gates, 4, axis=-1)
    return jax.nn.sigmoid(write), jnp.tanh(new), jax.nn.sigmoid(forget + 1), jax.nn.sigmoid(read)

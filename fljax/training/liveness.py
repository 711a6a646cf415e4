"""Estimates the memory that a traced computation needs beside its arguments.

What XLA makes of it on a GPU is foreseen, not asked: operations entry by entry are computed where
they are read, in one kernel with what reads them, and hold nothing, unless several read them and
they are smaller than what they are computed from; products, sums and loops write their results, and
read what has been written. Kernels run in the order in which they were traced, and an array is
there from the kernel that writes it to the last one that reads it.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import jax

from fljax.training.flops import as_inside, jaxprs

# They read arrays that have been written, and write others.
_WHOLE = {
    "dot_general", "conv_general_dilated", "ragged_dot_general", "scan", "while", "cond", "sort",
    "top_k", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "fft", "ffi_call",
    "custom_call", "triangular_solve", "cholesky", "eigh", "svd", "qr",
}  # fmt: skip
# They compute what they read, and write what is left of it; so does reduce_<anything>.
_REDUCTIONS = {"argmax", "argmin", "select_and_scatter_add", "select_and_gather_add", "random_bits"}
# They write into their first operand.
_IN_PLACE = {"scatter", "scatter-add", "scatter_add", "dynamic_update_slice"}
# Their result is their operand under another shape.
_SAME_ARRAY = {"reshape", "squeeze", "expand_dims", "copy", "stop_gradient", "bitcast_convert_type"}

# What a value is computed from: numbers of arrays in memory.
_Arrays = frozenset[int]


class _Value(NamedTuple):
    """The value of a variable: an array in memory, or what is computed from arrays when read."""

    arrays: _Arrays = frozenset()
    written: bool = False


class _Kernel(NamedTuple):
    """A kernel that reads arrays, writes others, and holds so many bytes meanwhile.

    A loop also moves bytes between its own kernels.
    """

    reads: _Arrays
    writes: _Arrays
    inside: int
    by_entry: bool
    moves: float = 0.0


class _Program:
    """The kernels of a computation in their order, and the sizes of the arrays between them."""

    def __init__(self):
        self.sizes: list[int] = []
        self.kernels: list[_Kernel] = []
        # {shape: bytes} of zeros that results of loops begin as
        self.zeros: dict[str, int] = {}

    def array(self, size: int) -> _Value:
        self.sizes.append(size)
        return _Value(frozenset([len(self.sizes) - 1]), written=True)

    def add(
        self,
        read: Sequence[_Value],
        sizes: Sequence[int],
        inside: int = 0,
        by_entry: bool = False,
        moves: float = 0.0,
    ) -> list[_Value]:
        """Adds a kernel that writes arrays of these sizes, and returns them."""
        written = [self.array(size) for size in sizes]
        self.kernels.append(_Kernel(_arrays(read), _arrays(written), inside, by_entry, moves))
        return written

    def add_early(self, read: _Value) -> None:
        """Adds the kernel that computes a result, right behind those that write what it reads."""
        places = [n for n, kernel in enumerate(self.kernels) if kernel.writes & read.arrays]
        kernel = _Kernel(read.arrays, frozenset(), 0, by_entry=True)
        self.kernels.insert(max(places, default=-1) + 1, kernel)

    def bytes_of(self, arrays: _Arrays) -> int:
        return sum(self.sizes[number] for number in arrays)


def peak_bytes(jaxpr: Any, given_up: Collection[int] = ()) -> int:
    """Returns the most bytes that a computation holds at once, beside arguments and results.

    Results are taken to be written over arguments, or to be used as soon as they are there.

    Args:
      jaxpr: The computation.
      given_up: Places of arguments that count as well, until they have been read.
    """
    program = _Program()
    given = [
        program.array(_nbytes(variable) if place in given_up else 0)
        for place, variable in enumerate(jaxpr.invars)
    ]
    for result in _trace(program, jaxpr, given):
        if not result.written:
            program.add_early(result)
    return _peak(program, _arrays(given)) + sum(program.zeros.values())


def moved_bytes(jaxpr: Any) -> float:
    """Returns the bytes that a computation reads from memory and writes to it.

    Each kernel reads what it needs once and writes its results once; a loop does so in every turn,
    one of unknown length in one.

    Args:
      jaxpr: The computation.
    """
    program = _Program()
    given = [program.array(_nbytes(variable)) for variable in jaxpr.invars]
    moved = 0.0
    for atom, result in zip(jaxpr.outvars, _trace(program, jaxpr, given), strict=True):
        if not result.written:
            program.add_early(result)
            moved += _nbytes(atom)
    for kernel in program.kernels:
        moved += kernel.moves or program.bytes_of(kernel.reads | kernel.writes)
    return moved


def _trace(program: _Program, jaxpr: Any, given: Sequence[_Value]) -> list[_Value]:
    """Adds the kernels of a computation to a program; returns its results."""
    values = dict.fromkeys(jaxpr.constvars, _Value())
    uses = _uses(jaxpr)

    def value_of(atom) -> _Value:
        # literals are constants, and cannot be looked up
        return _Value() if hasattr(atom, "val") else values[atom]

    def written(atom) -> _Value:
        value = value_of(atom)
        if not value.written and value.arrays:
            (values[atom],) = program.add([value], [_nbytes(atom)], by_entry=True)
        return value_of(atom)

    def define(variables, found) -> None:
        for variable, value in zip(variables, found, strict=True):
            values[variable] = value
            # read several times, and smaller than what it would be computed from each time
            if uses[variable] > 1 and _nbytes(variable) < program.bytes_of(value.arrays):
                written(variable)

    define(jaxpr.invars, given)
    for equation in jaxpr.eqns:
        name, operands = equation.primitive.name, equation.invars
        sizes = [_nbytes(result) for result in equation.outvars]
        inner = [found for value in equation.params.values() for found in jaxprs(value)]
        if name == "pallas_call":
            results = _own_kernel(program, equation, [written(atom) for atom in operands])
        elif (chosen := _of_this_platform(equation)) is not None:
            results = _trace(program, chosen, [value_of(atom) for atom in operands[1:]])
        elif name in _WHOLE:
            inside = max(map(peak_bytes, inner), default=0)
            turns = equation.params.get("length", 1)
            moves = turns * max(map(moved_bytes, inner), default=0)
            results = program.add([written(atom) for atom in operands], sizes, inside, moves=moves)
            if name == "scan":
                program.zeros |= _stacked(equation, inner[0])
        elif len(inner) == 1 and len(inner[0].invars) == len(operands):
            results = _trace(program, inner[0], [value_of(atom) for atom in operands])
        elif name in _IN_PLACE:
            results = [written(operands[0])]
            program.add([written(atom) for atom in operands], [])
        elif name in _REDUCTIONS or name.startswith("reduce_"):
            results = program.add([value_of(atom) for atom in operands], sizes, by_entry=True)
        elif name in _SAME_ARRAY:
            results = [value_of(operands[0])]
        else:
            results = [_Value(_arrays(map(value_of, operands)))] * len(sizes)
        define(equation.outvars, results)
    return [value_of(atom) for atom in jaxpr.outvars]


def _own_kernel(program: _Program, call: Any, read: Sequence[_Value]) -> list[_Value]:
    """Adds a kernel of our own, which may write over what it reads; returns its results."""
    over = {result: operand for operand, result in call.params.get("input_output_aliases", ())}
    new = [place for place in range(len(call.outvars)) if place not in over]
    made = program.add(read, [_nbytes(call.outvars[place]) for place in new])
    results = dict(zip(new, made, strict=True)) | {
        place: read[operand] for place, operand in over.items()
    }
    return [results[place] for place in range(len(call.outvars))]


def _of_this_platform(choice: Any) -> Any | None:
    """Returns the branch of `jax.lax.platform_dependent` that accelerators here take, if it is one.

    GPUs are taken for NVIDIA's.
    """
    platforms = choice.params.get("branches_platforms")
    if platforms is None:
        return None
    backend = jax.default_backend()
    here = "cuda" if backend == "gpu" else backend
    places = [n for n, names in enumerate(platforms) if names is None or here in names]
    return jaxprs(choice.params["branches"])[places[0]] if places else None


def _uses(jaxpr: Any) -> collections.Counter:
    """Returns how many equations read each variable; to be a result counts as well."""
    readers = [*(equation.invars for equation in jaxpr.eqns), jaxpr.outvars]
    variables = ({atom for atom in atoms if not hasattr(atom, "val")} for atoms in readers)
    return collections.Counter(itertools.chain.from_iterable(variables))


def _stacked(loop: Any, body: Any) -> dict[str, int]:
    """Returns {shape: bytes} of what a loop stacks: XLA begins with zeros, made once for all."""
    return {
        outer.aval.str_short(): _nbytes(outer)
        for outer, result in zip(loop.outvars, body.outvars, strict=True)
        if not as_inside(outer, result)
    }


def _peak(program: _Program, given: _Arrays) -> int:
    """Returns the most bytes of arrays that are there at once."""
    last = {}
    for place, kernel in enumerate(program.kernels):
        last |= dict.fromkeys(kernel.reads | kernel.writes, place)
    live = peak = program.bytes_of(given)
    for place, kernel in enumerate(program.kernels):
        read = frozenset(number for number in kernel.reads if last[number] == place)
        new, dead = program.bytes_of(kernel.writes), program.bytes_of(read)
        # entry by entry, a result is written over what it is computed from, if nobody reads that
        over = new if kernel.by_entry and new in map(program.sizes.__getitem__, read) else 0
        peak = max(peak, live + new - over + kernel.inside)
        unread = frozenset(number for number in kernel.writes if last[number] == place)
        live += new - dead - program.bytes_of(unread)
    return peak


def _arrays(values: Iterable[_Value]) -> _Arrays:
    return frozenset().union(*(value.arrays for value in values))


def _nbytes(atom: Any) -> int:
    """Returns the bytes of a variable; of a PRNG key, those of a number."""
    return atom.aval.size * getattr(atom.aval.dtype, "itemsize", 4)

"""Follows the axes of parameters through the equations of a model.

A narrower model has fewer units, and the arrays of the wide one with zeros in the places of the
others compute the same only where these zeros add nothing: where each sum over units is a product
with weights that are zero there. So two things are followed, equation by equation: which axes are
the same (`fljax.core.axes`), and in which of them an array is zero where units are cut. What reads
several units together in another way (the mean of a layer normalization, a softmax over them) makes
their axis whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from fljax.core.axes import (
    Axis,
    axis_of,
    is_dead,
    keep_whole,
    parts_of,
    pieces_of,
    remains_of,
    reshaped,
    tie,
)
from fljax.core.jaxprs import PLAIN_CALLS, bodies

# Elementwise operations of several operands: zero where one of them is, where all of them are.
_PRODUCTS = ("mul", "and")
_SUMS = ("add", "add_any", "sub", "max", "min", "or", "select_n", "clamp")
# Of one operand: zero where it is.
_KEEP_ZERO = (
    *("neg", "abs", "sign", "square", "sqrt", "cbrt", "tanh", "sin", "tan", "sinh", "asin", "atan"),
    *(
        "asinh",
        "atanh",
        "erf",
        "expm1",
        "log1p",
        "floor",
        "ceil",
        "round",
        "real",
        "copy",
        "copy_p",
    ),
    *("convert_element_type", "reduce_precision", "stop_gradient", "optimization_barrier", "name"),
)
# Of any number of operands, whatever they make of a zero.
_ELEMENTWISE = (
    *("exp", "exp2", "log", "logistic", "cos", "cosh", "acos", "acosh", "rsqrt", "pow", "rem"),
    *("not", "xor", "eq", "ne", "lt", "le", "gt", "ge", "is_finite", "nextafter", "atan2", "erfc"),
    *("erf_inv", "lgamma", "digamma", "integer_pow", "div", "shift_left", "shift_right_logical"),
    "bitcast_convert_type",
)
_CALLS = {
    **PLAIN_CALLS,
    **{"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"},
    **{"checkpoint": "jaxpr", "remat2": "jaxpr"},
}
_SHARED_CHANNELS = "convolved in groups of channels"


class Flow(NamedTuple):
    """Facts about an array of a model's program.

    Attributes:
      axes: One for each axis.
      leaves: Numbers of the parameters that it is made of, and nothing else; None where it is made
        of the inputs as well.
      learned: Whether it is made of parameters, whatever else.
      product: Number of the kernel that it is the product with, up to its shape; None of others.
      is_zero: Whether it is a constant of zeros.
    """

    axes: list[Axis]
    leaves: frozenset[int] | None = frozenset()
    learned: bool = False
    product: int | None = None
    is_zero: bool = False


class Layers(NamedTuple):
    """Findings about a model's layers.

    Attributes:
      kernels: {parameter: the axis of its units} of those that products with inputs are taken of.
      biases: {parameter: the kernel whose product it is added to}.
    """

    kernels: dict[int, Axis]
    biases: dict[int, int]


def follow(jaxpr: core.Jaxpr, arguments: Sequence[Flow], layers: Layers) -> list[Flow]:
    """Follows axes through equations, and notes what it finds.

    Args:
      jaxpr: The equations.
      arguments: What is known of their arguments.
      layers: Receives kernels and biases.

    Returns:
      What is known of the results.

    Raises:
      ValueError: If parameters are read within a loop or a branch.
    """
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= {var: _constant(var.aval.shape) for var in jaxpr.constvars}

    def read(var):
        if isinstance(var, core.Literal):
            return _constant(np.shape(var.val), is_zero=not np.any(var.val))
        return known[var]

    for equation in jaxpr.eqns:
        operands = [read(var) for var in equation.invars]
        name, params = equation.primitive.name, equation.params
        if name in _CALLS:
            inner = params[_CALLS[name]]
            results = follow(getattr(inner, "jaxpr", inner), operands, layers)
        else:
            shapes = [getattr(var.aval, "shape", ()) for var in equation.outvars]
            results = _results(equation, operands, shapes, layers)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _constant(shape: Sequence[int], is_zero: bool = False) -> Flow:
    return Flow([axis_of(size, dead=is_zero) for size in shape], is_zero=is_zero)


def _results(equation: Any, operands: list[Flow], shapes: list, layers: Layers) -> list[Flow]:
    """Returns what is known of the results of an equation."""
    name, params = equation.primitive.name, equation.params
    leaves, learned = _union(operands), any(operand.learned for operand in operands)
    rule = _RULES.get(name)
    if name in _PRODUCTS or name in _SUMS or name in _KEEP_ZERO or name in _ELEMENTWISE:
        if name in ("add", "add_any", "sub"):
            _note_bias(operands, layers)
        flows = [_elementwise(name, operands, shapes[0])]
        if name in ("add", "add_any", *_KEEP_ZERO):
            flows = [flows[0]._replace(product=_one_product(operands))]
    elif name.startswith(("reduce_window", "cum")):
        flows = [_windowed(operands, params, shapes[0])] * len(shapes)
    elif name.startswith(("reduce_", "arg")) and "axes" in params:
        flows = [_reduced(operands, params["axes"])] * len(shapes)
    elif name == "split":
        flows = _split(operands[0], params, shapes)
    elif rule is not None:
        flows = [rule(operands, params, shapes[0], layers)]
    else:
        flows = _unknown(equation, operands, shapes)
    return [flow._replace(leaves=leaves, learned=learned) for flow in flows]


def _union(operands: list[Flow]) -> frozenset[int] | None:
    found = [operand.leaves for operand in operands]
    return None if None in found else frozenset().union(*found)


def _unknown(equation: Any, operands: list[Flow], shapes: list) -> list[Flow]:
    name = equation.primitive.name
    if bodies(equation.params) and any(operand.leaves for operand in operands):
        raise ValueError(
            f"it reads parameters inside a loop or a branch ({name}), as recurrent networks do"
        )
    for operand in operands:
        keep_whole(operand.axes, f"read by {name}")
    # what reads nothing, such as random numbers, has as many places as are asked for
    reason = f"made by {name}" if any(operand.axes for operand in operands) else None
    lost = any(operand.learned for operand in operands)
    return [Flow([axis_of(size, reason=reason, lost=lost) for size in shape]) for shape in shapes]


def _one_product(operands: list[Flow]) -> int | None:
    """Returns the kernel whose product all operands but zeros are."""
    found = {operand.product for operand in operands if not operand.is_zero}
    return found.pop() if len(found) == 1 else None


def _elementwise(name: str, operands: list[Flow], shape: Sequence[int]) -> Flow:
    """Ties the axes of operands that have one shape, or a single place in an axis."""
    axes = []
    for number, size in enumerate(shape):
        full = [o.axes[number] for o in operands if o.axes and _length(o, number) == size]
        for other in full[1:]:
            tie(full[0], other)
        dead = _is_zero_after(name, operands, number, size)
        axes.append([cell._replace(dead=dead) for cell in full[0]] if full else axis_of(size))
    return Flow(axes, is_zero=name in _KEEP_ZERO and operands[0].is_zero)


def _length(flow: Flow, number: int) -> int:
    return int(np.prod([part.size for part in parts_of(flow.axes[number])], dtype=np.int64))


def _is_zero_after(name: str, operands: list[Flow], number: int, size: int) -> bool:
    def zero(operand: Flow) -> bool:
        if operand.is_zero:
            return True
        spans = bool(operand.axes) and _length(operand, number) == size
        return spans and is_dead(operand.axes[number])

    if name in _PRODUCTS:
        return any(map(zero, operands))
    if name in _SUMS:
        cases = operands[1:] if name == "select_n" else operands
        return all(map(zero, cases[1:2] if name == "clamp" else cases)) and (
            name != "clamp" or operands[0].is_zero
        )
    if name == "div" or name in _KEEP_ZERO:
        return zero(operands[0])
    return False


def _note_bias(operands: list[Flow], layers: Layers) -> None:
    """Notes the parameter that is added to a product."""
    for product, other in (operands, operands[::-1]):
        if product.product is not None and other.leaves and len(other.leaves) == 1:
            layers.biases.setdefault(*other.leaves, product.product)


def _reduced(operands: list[Flow], axes: Sequence[int]) -> Flow:
    for operand in operands:
        keep_whole([operand.axes[number] for number in axes], "averaged or compared with others")
    left = [axis for number, axis in enumerate(operands[0].axes) if number not in axes]
    return Flow(left)


def _windowed(operands: list[Flow], params: dict, shape: Sequence[int]) -> Flow:
    """Follows axes that windows leave alone; of those with zeros, maxima and sums are zero."""
    source = operands[0]
    sizes = params.get("window_dimensions")
    axes = []
    for number, size in enumerate(shape):
        alone = number != params["axis"] if sizes is None else sizes[number] == 1
        if alone and _length(source, number) == size:
            axes.append(source.axes[number])
        else:
            axes.append(remains_of(source.axes[number], size, "read in windows"))
    return Flow(axes)


def _reshape(operands, params, shape, layers) -> Flow:
    source = operands[0]
    if not source.learned and source.leaves is not None:
        return _constant(shape, source.is_zero)  # random numbers, say
    return Flow(reshaped(source.axes, shape), product=source.product, is_zero=source.is_zero)


def _broadcast(operands, params, shape, layers) -> Flow:
    source = operands[0]
    axes = [axis_of(size, dead=source.is_zero) for size in shape]
    for number, place in enumerate(params["broadcast_dimensions"]):
        if _length(source, number) == shape[place]:
            axes[place] = source.axes[number]
    return Flow(axes, is_zero=source.is_zero)


def _transpose(operands, params, shape, layers) -> Flow:
    source = operands[0]
    axes = [source.axes[number] for number in params["permutation"]]
    return Flow(axes, product=source.product, is_zero=source.is_zero)


def _sliced(operands, params, shape, layers) -> Flow:
    """Follows axes that keep their length and order; of the others some places are taken."""
    source, axes = operands[0], []
    moved = params.get("dimensions", ()) if "operand" not in params else ()
    padding = params.get("padding_config", ((0, 0, 0),) * len(shape))
    for number, size in enumerate(shape):
        if _length(source, number) == size and not any(padding[number]) and number not in moved:
            axes.append(source.axes[number])
        else:
            axes.append(remains_of(source.axes[number], size, "taken apart into places"))
    return Flow(axes, product=source.product, is_zero=source.is_zero)


def _split(source: Flow, params: dict, shapes: list) -> list[Flow]:
    """Follows axes; one that comes apart into the copies that it is made of is that of each."""
    along = params["axis"]
    first, *rest = pieces_of(source.axes[along]) or [None]
    copies = bool(rest) and first.part.size == len(shapes)
    if copies and len(set(map(tuple, shapes))) == 1:
        every = [rest] * len(shapes)
    else:
        axis = source.axes[along]
        every = [remains_of(axis, shape[along], "taken apart into places") for shape in shapes]
    return [
        Flow([*source.axes[:along], axis, *source.axes[along + 1 :]], product=source.product)
        for axis in every
    ]


def _concatenated(operands, params, shape, layers) -> Flow:
    """Follows copies of one axis beside each other, which are an axis of two parts."""
    along, axes = params["dimension"], []
    for number, size in enumerate(shape):
        every = [operand.axes[number] for operand in operands]
        if number == along and len({_length(operand, number) for operand in operands}) > 1:
            axes.append(remains_of([c for axis in every for c in axis], size, "put beside others"))
            continue
        for other in every[1:]:
            tie(every[0], other)
        dead = all(is_dead(axis) or o.is_zero for axis, o in zip(every, operands, strict=True))
        copies = axis_of(len(operands), reason="") if number == along else []
        axes.append([*copies, *(cell._replace(dead=dead) for cell in every[0])])
    return Flow(axes)


def _dot(operands, params, shape, layers) -> Flow:
    (of_left, of_right), (left_batch, right_batch) = params["dimension_numbers"]
    left, right = operands
    batch = []
    for mine, other in zip(left_batch, right_batch, strict=True):
        tie(left.axes[mine], right.axes[other])
        dead = is_dead(left.axes[mine]) or is_dead(right.axes[other])
        batch.append([cell._replace(dead=dead) for cell in left.axes[mine]])
    for mine, other in zip(of_left, of_right, strict=True):
        tie(left.axes[mine], right.axes[other])
        _sum_over(left, left.axes[mine], right, right.axes[other])
    rest = [
        [axis for number, axis in enumerate(flow.axes) if number not in (*summed, *batched)]
        for flow, summed, batched in (
            (left, of_left, left_batch),
            (right, of_right, right_batch),
        )
    ]
    product = _note_kernel(operands, rest, layers)
    return Flow([*batch, *rest[0], *rest[1]], product=product)


def _convolution(operands, params, shape, layers) -> Flow:
    numbers = params["dimension_numbers"]
    images, kernel = operands
    inputs = images.axes[numbers.lhs_spec[1]]
    units, channels = (kernel.axes[number] for number in numbers.rhs_spec[:2])
    if params["feature_group_count"] == params["batch_group_count"] == 1:
        tie(inputs, channels)
        _sum_over(images, inputs, kernel, channels)
    else:
        keep_whole([inputs, channels, units], _SHARED_CHANNELS)
    product = _note_kernel(operands, [[], [units]], layers)
    axes = [axis_of(size, reason="") for size in shape]
    axes[numbers.out_spec[0]] = images.axes[numbers.lhs_spec[0]]
    axes[numbers.out_spec[1]] = units
    return Flow(axes, product=product)


def _sum_over(left: Flow, mine: Axis, right: Flow, other: Axis) -> None:
    """Notes that a product sums over an axis, which must be zero on one side where it is cut."""
    if not (is_dead(mine) or is_dead(other)):
        keep_whole([mine, other], "summed over where a narrower model has nothing")
    for part in parts_of(mine):
        part.read |= bool(left.leaves or right.leaves)


def _note_kernel(operands: list[Flow], rest: list[list[Axis]], layers: Layers) -> int | None:
    """Notes the kernel of a product with inputs, and its units; returns its number."""
    (kernels, units), (inputs, _) = zip(operands, rest, strict=True)
    if inputs.leaves is not None:
        (kernels, units), (inputs, _) = (inputs, rest[1]), (kernels, units)
    if inputs.leaves is not None or not kernels.leaves:
        return None
    for part in parts_of(*units):
        part.made = True
    if len(kernels.leaves) > 1 or len(units) != 1:
        return None
    (number,) = kernels.leaves
    layers.kernels[number] = units[0]
    return number


def _gather(operands, params, shape, layers) -> Flow:
    """Follows the axes of a table whose rows are taken as they are, such as embeddings."""
    table, places = operands
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    kept = [
        number
        for number in range(len(sizes))
        if number not in numbers.collapsed_slice_dims
        and number not in numbers.operand_batching_dims
    ]
    axes = [axis_of(size, reason="") for size in shape]
    keep_whole(places.axes)
    for number, axis in enumerate(table.axes):
        if number in kept and sizes[number] == _length(table, number):
            axes[numbers.offset_dims[kept.index(number)]] = axis
            for part in parts_of(axis):
                part.made |= bool(table.leaves)
        else:
            keep_whole([axis], "taken apart into places")
    return Flow(axes)


_RULES = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "slice": _sliced,
    "pad": _sliced,
    "rev": _sliced,
    "concatenate": _concatenated,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "gather": _gather,
}

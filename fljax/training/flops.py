"""Counts the floating-point operations of training in the traced loss.

What is counted is the model's mathematics, the same on every backend: a convolution is a direct
one, whatever form computes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from fljax.core.gradients import bind
from fljax.core.task import Task
from fljax.data.dataset import Preprocess
from fljax.data.examples import batch_spec
from fljax_kernels.conv import direct_share


def training_flops(
    task: Task,
    spec: Mapping[str, jax.ShapeDtypeStruct],
    batch_size: int,
    preprocess: Preprocess | None = None,
) -> float:
    """Returns the operations of one gradient of a full batch; nothing is compiled or run.

    Counted are matrix products and direct convolutions, a multiplication and an addition each as
    one operation: those of the forward pass, and as many again for each factor that the trained
    parameters have a part in, since the backward pass computes its gradient by one more product of
    the same size. XLA's own count would take the body of a loop only once.

    Args:
      task: The model and its loss.
      spec: Shape and dtype of one example, as in `Examples.spec`.
      batch_size: Rows of the batch.
      preprocess: That of the data set.
    """

    def loss(params, frozen, model_state, batch, key):
        return bind(task, frozen, preprocess).loss(params, model_state, batch, key, True)

    variables = jax.eval_shape(task.init, jax.random.key(0))
    batch = batch_spec(spec, batch_size)
    key = jax.eval_shape(lambda: jax.random.key(0))
    jaxpr = jax.make_jaxpr(loss)(*variables, batch, key).jaxpr
    trained = len(jax.tree.leaves(variables[0]))
    return _count(jaxpr, [place < trained for place in range(len(jaxpr.invars))])[0]


def forward_flops(jaxpr: Any) -> float:
    """Returns the operations of a computation that nothing is trained by.

    Args:
      jaxpr: What is computed.
    """
    return _count(jaxpr, [False] * len(jaxpr.invars))[0]


def _count(jaxpr: Any, trained: Sequence[bool], names: str = "") -> tuple[float, list[bool]]:
    """Counts forward and backward.

    Args:
      jaxpr: What is computed.
      trained: Which inputs the parameters have a part in.
      names: Scopes that it was traced in.

    Returns:
      (operations, which outputs the parameters have a part in).
    """
    known = dict(zip(jaxpr.invars, trained, strict=True))

    def is_trained(atom) -> bool:
        # literals are constants, and cannot be looked up
        return not hasattr(atom, "val") and known.get(atom, False)

    total = 0.0
    for equation in jaxpr.eqns:
        inputs = [is_trained(atom) for atom in equation.invars]
        operations, outputs = _count_equation(equation, inputs, names)
        total += operations
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return total, [is_trained(atom) for atom in jaxpr.outvars]


def _count_equation(equation: Any, trained: list[bool], names: str) -> tuple[float, list[bool]]:
    name, params = equation.primitive.name, equation.params
    # what is called has names of its own alone
    names = f"{names}/{equation.source_info.name_stack}"
    touched = [any(trained)] * len(equation.outvars)
    if name in _PRODUCTS:
        return _PRODUCTS[name](equation) * direct_share(names) * (1 + sum(trained)), touched
    if name == "scan":
        return _count_scan(equation, trained, names)
    inner = [jaxpr for value in params.values() for jaxpr in jaxprs(value)]
    if name == "cond":
        branches = [_count(jaxpr, trained[1:], names)[0] for jaxpr in inner]
        return max(branches), touched
    if len(inner) == 1 and len(inner[0].invars) == len(trained):
        return _count(inner[0], trained, names)
    called = [_count(jaxpr, [any(trained)] * len(jaxpr.invars), names)[0] for jaxpr in inner]
    return sum(called), touched


def _count_scan(equation: Any, trained: list[bool], names: str) -> tuple[float, list[bool]]:
    """Counts a loop; what the parameters reach in one iteration, they reach in the next."""
    params, body = equation.params, equation.params["jaxpr"].jaxpr
    # versions of JAX differ in how they name the parts: constants, carry, and what is scanned,
    # which has an axis more outside than inside
    carried = sum(map(as_inside, equation.outvars, body.outvars))
    constants = sum(map(as_inside, equation.invars, body.invars)) - carried
    carry = slice(constants, constants + carried)
    while True:
        operations, outputs = _count(body, trained, names)
        reached = [a or b for a, b in zip(trained[carry], outputs[:carried], strict=True)]
        if reached == trained[carry]:
            return params["length"] * operations, outputs
        trained = [*trained[:constants], *reached, *trained[carry.stop :]]


def as_inside(outer: Any, inner: Any) -> bool:
    """Returns whether a variable of a loop has the shape of its body's: it is not scanned."""
    return outer.aval.ndim == inner.aval.ndim


def _of_product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    outputs = math.prod(equation.outvars[0].aval.shape)
    return 2.0 * outputs * math.prod(shape[axis] for axis in contracted)


def _of_convolution(equation: Any) -> float:
    kernel = equation.invars[1].aval
    features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    # a transposed convolution has zeros between its inputs, which need no product
    zeros = math.prod(equation.params["lhs_dilation"] or ())
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * kernel.size / features / zeros


_PRODUCTS = {"dot_general": _of_product, "conv_general_dilated": _of_convolution}


def jaxprs(value: Any) -> list[Any]:
    """Returns the jaxprs in a parameter of an equation."""
    values = value if isinstance(value, tuple | list) else (value,)
    return [value for value in (getattr(v, "jaxpr", v) for v in values) if hasattr(value, "eqns")]

"""Adapters: a model stays as it is, and clients train a small change of its weights (LoRA).

Hu et al. (arXiv:2106.09685) replace a matrix of weights W by W + alpha / rank * A B, where A has
`rank` columns and B as many rows; W is constant. A starts at random and B at zero, so that nothing
changes at first. Here the model becomes a network whose parameters are A and B alone: they are what
clients train, send, clip and compress. All else is among its constants, of which all clients share
one copy.

An adapter is a dict {"a", "b", "scale"} in place of a dense layer's `dot_general`, or beside a leaf
NAME as "NAME_lora"; `merged` adds it to its weights.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jax import lax

from fljax.core.network import Network, as_network, is_nnx
from fljax.core.personal import Filter, asked, check_filter
from fljax.core.values import COUNT, POSITIVE, Field, checked, shown

PyTree = Any
_Path = tuple[str, ...]
_Flat = dict[_Path, Any]

DENSE = "dense"
_DOT, _BESIDE, _KERNEL = "dot_general", "_lora", "kernel"
_SCALE = "scale"
# Paths that an error lists.
_LISTED = 20


class Adapter(nnx.Module):
    """Multiplies by a kernel and by its change, x W + scale (x A) B, as a layer's `dot_general`.

    W is the same for all clients side by side, whose rows then are one product with it.
    """

    def __init__(self, matrices: dict[str, jax.Array], base: Callable):
        self.a, self.b = nnx.LoRAParam(matrices["a"]), nnx.LoRAParam(matrices["b"])
        self.scale = nnx.Param(matrices[_SCALE])
        self.base = base

    def __call__(self, x: jax.Array, kernel: jax.Array, dimensions: Any, **options) -> jax.Array:
        a, b, scale = (leaf[...].astype(kernel.dtype) for leaf in (self.a, self.b, self.scale))
        low = scale * self.base(x, a, dimensions, **options)
        change = jnp.tensordot(low, b, 1, precision=options.get("precision"))
        return self.base(x, kernel, dimensions, **options) + change


def lora(
    model: Any,
    rank: int = 8,
    alpha: float | None = None,
    *,
    targets: Filter = DENSE,
    train: Filter | None = None,
    freeze_a: bool = False,
    fast_layers: bool = True,
) -> Network:
    """Returns a network that trains low-rank changes of a model's weights and nothing else.

    Args:
      model: As `fljax.tasks.classification` takes it: an NNX module or a function that makes one, a
        linen module, a pair of functions, or a `Network`, such as one that starts from a file.
      rank: Columns of A and rows of B.
      alpha: The change is alpha / rank times A B; unset: 1 times.
      targets: Which weights change. "dense" is all dense layers of an NNX module (`nnx.Linear` and
        `nnx.LinearGeneral`), and all matrices of other models. Else paths of layers or leaves, as
        in "trunk/blocks/*/attention/*, head", of at least two axes, or a function (path, leaf) ->
        bool. What is no dense layer, such as a convolution's kernel, is changed in each step,
        which takes memory of its size for each client side by side.
      train: Paths of what is trained as a whole, and not by adapters, such as a new "head".
      freeze_a: Whether A stays as it was drawn, the same for every seed, and clients send B alone
        (FFA-LoRA, Sun et al., arXiv:2403.12313): the mean of B then is the mean of the changes.
      fast_layers: As for `fljax.tasks.from_nnx`.

    Returns:
      The network. Its constants hold the model, and `fljax.models.merged` puts both together.

    Raises:
      ValueError: If the model has no such weights, or an argument is out of its range.
      TypeError: For what is no model.

    Example:
      >>> network = models.lora(models.mlp((64, 32, 10)), rank=2)
      >>> params, frozen, _ = jax.eval_shape(network.init, jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))  # 2 * (64 + 32 + 32 + 10)
      276
    """
    rank = checked("rank", rank, Field(None, int, COUNT))
    alpha = rank if alpha is None else checked("alpha", alpha, Field(None, float, POSITIVE))
    freeze_a = checked("freeze_a", freeze_a, Field(False, bool))
    check_filter("targets", targets)
    if train is not None:
        check_filter("train", train)
    make = _matrices_of(rank, alpha / rank, freeze_a)
    network = as_network(model, fast_layers=fast_layers)
    leaves = _flat(_shapes(network)[0])
    whole = _meant("train", train, leaves)
    if train is not None and not whole:
        raise ValueError(f"train = {shown(train)} means no parameter. {_listed(leaves)}")
    adapters: set[_Path] = set()
    if is_nnx(model):
        model = _adapted(model, _meant("targets", targets, leaves, leaves) - whole, make)
        network = as_network(model, fast_layers=fast_layers)
        adapters = set(_adapters_in(_flat(_shapes(network)[0])))
    others = {
        path: leaf
        for path, leaf in leaves.items()
        if len(leaf.shape) > 1 and path not in whole | {_kernel_of(each) for each in adapters}
    }
    matrices = () if is_nnx(model) else [path for path in others if len(others[path].shape) == 2]
    beside = _meant("targets", targets, others, matrices)
    if not adapters | beside:
        raise ValueError(_no_target(targets, leaves))
    network = _with_adapters_beside(network, beside, make)
    adapters |= {(*path[:-1], path[-1] + _BESIDE) for path in beside}
    names = ("b",) if freeze_a else ("a", "b")
    return _training(network, whole | {(*path, name) for path in adapters for name in names})


def merged(params: PyTree, frozen: PyTree) -> PyTree:
    """Returns the parameters of the model that adapters change, with their changes.

    Args:
      params, frozen: Of a network of `lora`, trained or not. Parameters and constants of others
        come back as one tree.

    Example:
      >>> network = models.lora(models.mlp((4, 3)), rank=1)
      >>> jax.tree.map(jnp.shape, models.merged(*network.init(jax.random.key(0))[:2]))
      {'layers': {'0': {'bias': (3,), 'kernel': (4, 3)}}}
    """
    if not jax.tree.leaves(frozen):
        return params
    flat = _flat(frozen) | _flat(params)
    return traverse_util.unflatten_dict(_changed(flat, list(_adapters_in(flat))))


def has_adapters(frozen: PyTree) -> bool:
    """Returns whether constants are those of a network of `lora`."""
    return isinstance(frozen, dict) and any(True for _ in _adapters_in(_flat(frozen)))


def _matrices_of(rank: int, scale: float, freeze_a: bool) -> Callable:
    """Returns a function (path, shape, axes of inputs, key) -> {"a", "b", "scale"}."""

    def make(path: str, shape: Sequence[int], inner: int, key: jax.Array) -> dict[str, jax.Array]:
        inputs, outputs = shape[:inner], shape[inner:]
        if freeze_a:  # a constant of the model, which trials of unlike seeds share
            key = jax.random.fold_in(jax.random.key(0), zlib.crc32(path.encode()))
        a = jax.random.normal(key, (*inputs, rank)) * math.prod(inputs) ** -0.5
        return {"a": a, "b": jnp.zeros((rank, *outputs)), _SCALE: jnp.asarray(scale, a.dtype)}

    return make


def _adapted(model: Any, meant: set[_Path], make: Callable) -> Any:
    """Returns an NNX model whose dense layers that are meant have adapters."""

    def adapt(module, rngs):
        for path, layer, inner in list(_dense_layers(module)):
            if path in meant:
                matrices = make("/".join(path), layer.kernel[...].shape, inner, rngs.params())
                adapter = Adapter(matrices, layer.dot_general or lax.dot_general)
                layer.dot_general = nnx.data(adapter)
        return module

    if isinstance(model, nnx.Module):
        return adapt(nnx.clone(model), nnx.Rngs(0))
    # the model draws first, and so the same numbers as without adapters
    return lambda rngs: adapt(model(rngs), rngs)


def _dense_layers(module: nnx.Module) -> Iterator[tuple[_Path, Any, int]]:
    """Yields (path of the kernel, layer, axes of its kernel that inputs are summed over)."""
    for path, layer in nnx.iter_modules(module):
        where = (*map(str, path), _KERNEL)
        if isinstance(layer, nnx.Linear):
            yield where, layer, 1
        elif isinstance(layer, nnx.LinearGeneral):
            if not layer.batch_axis and layer.dot_general_cls is None:
                yield where, layer, len(layer.axis)


def _with_adapters_beside(network: Network, targets: set[_Path], make: Callable) -> Network:
    """Returns a network with adapters beside some leaves, which are added in each call."""
    if not targets:
        return network

    def init(key):
        params, *others = network.init(key)
        flat = _flat(params)
        for number, path in enumerate(sorted(targets)):
            shape, draw = flat[path].shape, jax.random.fold_in(key, number)
            for name, leaf in make("/".join(path), shape, len(shape) - 1, draw).items():
                flat[(*path[:-1], path[-1] + _BESIDE, name)] = leaf
        return traverse_util.unflatten_dict(flat), *others

    def apply(params, *rest):
        flat = _flat(params)
        flat = _changed(flat, [path for path in _adapters_in(flat) if path[-1] != _DOT])
        return network.apply(traverse_util.unflatten_dict(flat), *rest)

    return network._replace(init=init, apply=apply)


def _training(network: Network, trained: set[_Path]) -> Network:
    """Returns a network of which some parameters are trained and the others are constants."""
    own = _flat(_shapes(network)[1]).keys()

    def init(key):
        params, frozen, model_state = network.init(key)
        flat = _flat(params)
        mine = {path: flat.pop(path) for path in trained}
        return *map(traverse_util.unflatten_dict, (mine, flat | _flat(frozen))), model_state

    def apply(params, frozen, *rest):
        flat = _flat(frozen) | _flat(params)
        constants = {path: flat.pop(path) for path in own}
        return network.apply(*map(traverse_util.unflatten_dict, (flat, constants)), *rest)

    return network._replace(init=init, apply=apply)


def _shapes(network: Network) -> tuple[PyTree, PyTree, PyTree]:
    try:
        return jax.eval_shape(network.init, jax.random.key(0))
    except jax.errors.JAXTypeError:  # it works on the host: with weights from a file, say
        return network.init(jax.random.key(0))


def _changed(flat: _Flat, adapters: Sequence[_Path]) -> _Flat:
    """Returns leaves without some adapters, which are added to their weights."""
    flat = dict(flat)
    for path in adapters:
        a, b, scale = (flat.pop((*path, name)) for name in ("a", "b", _SCALE))
        kernel = flat[_kernel_of(path)]
        change = scale.astype(kernel.dtype) * jnp.tensordot(a, b, 1, precision="highest")
        flat[_kernel_of(path)] = kernel + change.astype(kernel.dtype)
    return flat


def _adapters_in(flat: _Flat) -> Iterator[_Path]:
    """Yields the paths of adapters."""
    for path in flat:
        *adapter, name = path
        if name == _SCALE and adapter and (adapter[-1] == _DOT or adapter[-1].endswith(_BESIDE)):
            yield tuple(adapter)


def _kernel_of(adapter: _Path) -> _Path:
    """Returns the path of the weights that an adapter changes."""
    *layer, name = adapter
    return (*layer, _KERNEL if name == _DOT else name.removesuffix(_BESIDE))


def _flat(tree: PyTree) -> _Flat:
    if not isinstance(tree, dict):
        raise ValueError(
            f"lora takes models whose parameters are dicts of arrays, by name, not "
            f"{type(tree).__name__}."
        )
    return traverse_util.flatten_dict(tree)


def _meant(
    name: str, part: Filter | None, leaves: _Flat, dense: Collection[_Path] = ()
) -> set[_Path]:
    """Returns the paths of leaves that a filter means; `dense` is what "dense" means."""
    return {
        path
        for path, leaf in leaves.items()
        if asked(name, part, "/".join(path), leaf, {DENSE: path in dense})
    }


def _no_target(targets: Filter, shapes: _Flat) -> str:
    if targets == DENSE:
        return (
            "lora: the model has no dense layer (nnx.Linear, or a matrix). Name other weights in "
            f"targets. {_listed(shapes)}"
        )
    return f"lora: targets = {shown(targets)} means no weights of two axes. {_listed(shapes)}"


def _listed(shapes: _Flat) -> str:
    paths = sorted("/".join(path) for path in shapes)
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return f"The model has {', '.join(paths[:_LISTED])}{more}."

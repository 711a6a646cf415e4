"""Starts models from weights of files, and names weights for files.

    gpt2 = models.gpt(50257, layers=12, heads=12, width=768)
    model = models.with_weights(gpt2, "gpt2.safetensors")

Names decide which array goes where: those that we write ourselves, those of PyTorch for a module of
the same structure, and those of Hugging Face's GPT-2 for `gpt`; see `fljax.core.weight_names`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from fljax.core.network import as_network, check_model, is_nnx
from fljax.core.personal import Filter, asked, check_filter
from fljax.core.safetensors import read_tensors
from fljax.core.values import Field, brief, checked, shown
from fljax.core.weight_names import CONVENTIONS, Convention, Path

PyTree = Any
Rename = Callable[[str], str | None] | Mapping[str, str]
Source = str | os.PathLike | Mapping[str, Any]

# Names that an error lists, of each kind.
_LISTED = 8
_NAMES = Field(None, str, tuple(CONVENTIONS))


def with_weights(
    model: Any,
    source: Source,
    *,
    rename: Rename | None = None,
    new: Filter | None = None,
    names: str | None = None,
) -> Any:
    """Returns a model whose first weights are those of a file.

    Args:
      model: As `fljax.tasks.classification` takes it.
      source: A safetensors file, or {name: array}, such as the `state_dict()` of a PyTorch module.
      rename: Changes names of the file before they are looked up: {how it begins: how it is to
        begin}, or a function name -> name, or None for what is to be left out.
      new: Which leaves are not in the file, or not of this shape, and start as the model has it:
        paths such as "head", or a function (path, leaf) -> bool.
      names: Whose names the file has: "fljax", "torch" or "gpt2"; unset: those that fit best. A
        kernel of PyTorch has its outputs first and is transposed; a dense layer behind a flattened
        image has its inputs in another order there (channels first), which names cannot tell.

    Returns:
      A model like the one given: of NNX a function (nnx.Rngs) -> module, or a module; else a
      `Network`.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the file is damaged, or names and shapes are not those of the model: the
        message lists what is missing, what is left over, and what has another shape.

    Example:
      >>> weights = {"layers.0.weight": np.ones((3, 4)), "layers.0.bias": np.zeros(3)}
      >>> model = models.with_weights(models.mlp((4, 3)), weights)
      >>> model(nnx.Rngs(0))(jnp.ones((1, 4)))
      Array([[4., 4., 4.]], dtype=float32)
    """
    check_model(model)
    if is_nnx(model):
        return _module_with(model, source, rename, new, names)
    network = as_network(model)
    try:
        shapes = jax.eval_shape(network.init, jax.random.key(0))
    except jax.errors.JAXTypeError:  # it works on the host
        shapes = network.init(jax.random.key(0))
    held = [traverse_util.flatten_dict(tree) for tree in shapes]
    found = load_weights(
        source, held[0] | held[1] | held[2], rename=rename, new=new, names=names
    )  # fmt: skip

    def init(key):
        trees = [traverse_util.flatten_dict(tree) for tree in network.init(key)]
        filled = ({path: found.get(path, leaf) for path, leaf in tree.items()} for tree in trees)
        return tuple(map(traverse_util.unflatten_dict, filled))

    return network._replace(init=init)


def load_weights(
    source: Source,
    leaves: Mapping[Path, Any],
    *,
    rename: Rename | None = None,
    new: Filter | None = None,
    names: str | None = None,
) -> dict[Path, np.ndarray]:
    """Returns the arrays of a file for the leaves of a model, in their shapes and types.

    Args:
      source, rename, new, names: As for `with_weights`.
      leaves: {path: array or shape} of the model.

    Returns:
      {path: array}, without those that are new.

    Raises:
      FileNotFoundError, ValueError: As for `with_weights`.

    Example:
      >>> load_weights({"w": np.ones(2)}, {("w",): np.zeros(2)})
      {('w',): array([1., 1.])}
    """
    where, arrays = _arrays_of(source)
    arrays = _renamed(arrays, rename)
    if new is not None:
        check_filter("new", new)
    fresh = {path for path, leaf in leaves.items() if asked("new", new, "/".join(path), leaf)}
    if new is not None and not fresh:
        raise ValueError(f"new = {shown(new)} means no weights. The model has {_some(leaves)}.")
    choices = tuple(CONVENTIONS) if names is None else (checked("names", names, _NAMES),)
    known = {name: _without_prefix(arrays, CONVENTIONS[name]) for name in choices}
    best = max(choices, key=lambda name: _hits(known[name], leaves, CONVENTIONS[name]))
    return _taken(where, known[best], leaves, fresh, CONVENTIONS[best])


def named_weights(leaves: Mapping[Path, Any], names: str = "fljax") -> dict[str, np.ndarray]:
    """Returns {name in a file: array} of a model's leaves; the inverse of `load_weights`.

    Args:
      leaves: {path: array}.
      names: Whose names and order of axes: "fljax", "torch" or "gpt2".

    Raises:
      ValueError: If two leaves would have one name.

    Example:
      >>> named_weights({("dense", "kernel"): np.ones((4, 3))}, "torch")["dense.weight"].shape
      (3, 4)
    """
    convention = CONVENTIONS[checked("names", names, _NAMES)]
    found: dict[str, np.ndarray] = {}
    for path, leaf in leaves.items():
        name, axes = convention.place(path, np.ndim(leaf))
        if name in found:
            raise ValueError(f"two weights would be called {name} by names = {names!r}.")
        found[name] = np.asarray(leaf).transpose(axes)
    return found


def _module_with(
    model: Any, source: Source, rename: Rename | None, new: Filter | None, names: str | None
) -> Any:
    """Returns an NNX model that starts from weights."""
    kept = nnx.Not(nnx.RngState)
    is_made = isinstance(model, nnx.Module)
    shapes = model if is_made else nnx.eval_shape(lambda: _made(model, nnx.Rngs(0)))
    flat = dict(nnx.to_flat_state(nnx.state(shapes, kept)))
    leaves = {tuple(map(str, path)): leaf.get_value() for path, leaf in flat.items()}
    found = load_weights(source, leaves, rename=rename, new=new, names=names)

    def filled(module):
        state = dict(nnx.to_flat_state(nnx.state(module, kept)))
        changed = [
            (path, leaf.replace(jnp.asarray(found[tuple(map(str, path))])))
            for path, leaf in state.items()
            if tuple(map(str, path)) in found
        ]
        nnx.update(module, nnx.from_flat_state(changed))
        return module

    return filled(nnx.clone(model)) if is_made else lambda rngs: filled(_made(model, rngs))


def _made(model: Any, rngs: nnx.Rngs) -> nnx.Module:
    module = model(rngs)
    if not isinstance(module, nnx.Module):
        raise TypeError(
            f"The model function must return an nnx.Module, not {type(module).__name__}. Give a "
            "function of nnx.Rngs, such as fljax.models.mlp((784, 200, 10))."
        )
    return module


def _arrays_of(source: Source) -> tuple[str, dict[str, np.ndarray]]:
    """Returns (what the weights are of, {name: array})."""
    if not isinstance(source, Mapping):
        return os.fspath(source), read_tensors(source)[0]
    arrays = {}
    for name, value in source.items():
        try:
            arrays[str(name)] = np.asarray(value)
        except Exception as error:
            raise ValueError(f"the weights {shown(name)} are no array ({brief(error)}).") from error
    return "the weights", arrays


def _renamed(arrays: Mapping[str, np.ndarray], rename: Rename | None) -> dict[str, np.ndarray]:
    if rename is None:
        return dict(arrays)
    if isinstance(rename, Mapping):
        beginnings = rename

        def changed(name):
            fits = [begin for begin in beginnings if name.startswith(begin)]
            longest = max(fits, key=len, default="")
            return beginnings.get(longest, "") + name[len(longest) :]

        rename = changed
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        new = rename(name)
        if new in found:
            raise ValueError(f"rename gives the name {shown(new)} to two arrays of the file.")
        if new is not None:
            found[new] = array
    return found


def _without_prefix(
    arrays: Mapping[str, np.ndarray], convention: Convention
) -> dict[str, np.ndarray]:
    for prefix in convention.prefixes:
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return dict(arrays)


def _hits(
    arrays: Mapping[str, np.ndarray], leaves: Mapping[Path, Any], convention: Convention
) -> int:
    return sum(
        convention.place(path, np.ndim(leaf)).name in arrays for path, leaf in leaves.items()
    )


def _taken(
    where: str,
    arrays: Mapping[str, np.ndarray],
    leaves: Mapping[Path, Any],
    fresh: set[Path],
    convention: Convention,
) -> dict[Path, np.ndarray]:
    """Returns {path: array}, or says everything that does not fit."""
    found, missing, misfits, used = {}, [], [], set()
    for path, leaf in leaves.items():
        name, axes = convention.place(path, np.ndim(leaf))
        used.add(name)
        if path in fresh:
            continue
        if name not in arrays:
            missing.append(name)
        elif (misfit := _misfit(arrays[name], leaf, axes)) is not None:
            misfits.append((misfit[0], f"{name} {misfit[1]}"))
        else:
            # of the file, axis k is our axis axes[k]
            found[path] = _in_type(arrays[name].transpose(np.argsort(axes)), leaf)
    left = [
        name for name in arrays if name not in used and not re.fullmatch(convention.ignored, name)
    ]
    faults = {"without": missing, "left over:": left}
    faults |= {f"{what}:": [text for kind, text in misfits if kind == what] for what in _REMEDIES}
    if problems := [f"{what} {_some(names)}" for what, names in faults.items() if names]:
        remedies = [remedy for what, remedy in _REMEDIES.items() if faults[f"{what}:"]]
        if missing or left or faults[f"{_SHAPES}:"]:
            remedies.append(
                'rename= changes their names or, by None, leaves some out, and new="head" leaves a '
                "layer as the model starts it."
            )
        raise ValueError(
            f"{where}: these weights are not those of the model: {'; '.join(problems)}. "
            f"{' '.join(remedies)}"
        )
    return found


# what is wrong with arrays -> what to do
_SHAPES, _TYPES, _RANGE = "of other shapes", "of other types", "not finite"
_REMEDIES = {
    _SHAPES: "Give the model the sizes of the weights.",
    _TYPES: "Save them in the model's types.",
    _RANGE: "Save finite numbers that are in the range of the model's types.",
}


def _misfit(array: np.ndarray, leaf: Any, axes: tuple[int, ...]) -> tuple[str, str] | None:
    """Returns (kind, why) where an array cannot stand in a leaf's place; None if it can."""
    wanted = tuple(np.shape(leaf)[axis] for axis in axes)
    if array.shape != wanted:
        return _SHAPES, f"is {list(array.shape)}, and {list(wanted)} is wanted"
    dtype = jnp.result_type(leaf)
    kinds = [
        next(kind for kind in (np.bool_, np.integer, np.inexact) if jnp.issubdtype(each, kind))
        for each in (array.dtype, dtype)
    ]
    if kinds[0] is not kinds[1]:
        return _TYPES, f"is {array.dtype}, and {dtype} is wanted"
    if wrong := np.count_nonzero(~np.isfinite(_in_type(array, leaf))):
        return _RANGE, f"has {wrong} numbers that are not finite in {dtype}"
    return None


def _in_type(array: np.ndarray, leaf: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array.astype(jnp.result_type(leaf)))


def _some(names: Any) -> str:
    texts = [name if isinstance(name, str) else "/".join(name) for name in names]
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return ", ".join(texts[:_LISTED]) + more

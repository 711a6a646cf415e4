"""Writes and reads trained models: one `.npz` file each, which NumPy alone can read.

    model/final.npz     params/layers/0/kernel, params/layers/0/bias, ..., manifest

Every leaf of the trees is an array under its path. The entry `manifest` is a JSON text: the
structure of the trees, each array's dtype, shape and checksum, and what the model is for.
"""

from __future__ import annotations

import json
import urllib.parse
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.core.algorithm import Variables
from fljax.core.archives import read_npz
from fljax.core.files import atomic_file, check_kind
from fljax.core.values import checked_path
from fljax.recording import jsonio

PyTree = Any

MODELS = "model"
FINAL, BEST = "final", "best"
_MANIFEST = "manifest"
_FORMAT = 1


class SavedModel(NamedTuple):
    """A model as it was read.

    Attributes:
      variables: `Variables` of NumPy arrays.
      frozen: Its constants.
      about: What was said of it: its round, and what `fljax.predictor` needs to know.
    """

    variables: Variables
    frozen: PyTree
    about: dict[str, Any]

    def __repr__(self) -> str:
        return f"SavedModel({self.variables!r}, round {self.about.get('round')})"


def model_path(directory: str | Path, which: str) -> Path:
    """Returns where a run keeps a model.

    Raises:
      ValueError: `which` is neither "final" nor "best".
    """
    if which not in (FINAL, BEST):
        raise ValueError(f"which = {which!r}; choose {FINAL!r} or {BEST!r}.")
    return Path(directory) / MODELS / f"{which}.npz"


def save_model(path: Path, variables: Variables, frozen: PyTree, about: Mapping[str, Any]) -> None:
    """Writes a model atomically.

    Args:
      path: The file; its directory is created if absent.
      variables: The trained model, of NumPy or JAX arrays.
      frozen: Constants of the model.
      about: JSON values that go with it.

    Example:
      >>> from fljax.core.algorithm import Variables
      >>> from fljax.recording.models import model_path
      >>> trained = Variables(params={"w": np.ones((2, 3))}, model_state={})
      >>> path = model_path("runs/first", "final")
      >>> recording.save_model(path, trained, frozen={}, about={"round": 10})
      >>> recording.load_model("runs/first").params["w"].shape
      (2, 3)
    """
    arrays: dict[str, np.ndarray] = {}
    leaves: dict[str, dict[str, Any]] = {}
    trees = {"params": variables.params, "model_state": variables.model_state, "frozen": frozen}

    def keep(place: tuple, leaf: Any) -> str:
        name = _spelled(place)
        stored, description = _stored(leaf)
        arrays[name] = stored
        leaves[name] = description | {"crc32": _checksum(stored)}
        return name

    structure = {name: _structure(tree, (name,), keep) for name, tree in trees.items()}
    manifest = {
        "format": _FORMAT,
        "structure": structure,
        "leaves": leaves,
        "about": jsonio.plain(about),
    }
    arrays[_MANIFEST] = np.array(json.dumps(manifest, allow_nan=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        np.savez(file, **arrays)


def read_model(path: Path) -> SavedModel:
    """Reads a model.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged; the message names it.
    """
    check_kind(path)
    arrays = read_npz(path)
    try:
        manifest = json.loads(str(arrays.pop(_MANIFEST)))
        leaves = {
            name: _restored(arrays[name], description)
            for name, description in manifest["leaves"].items()
        }
        trees = {name: _tree(node, leaves) for name, node in manifest["structure"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no model of fljax, or is damaged: {error}") from None
    variables = Variables(trees["params"], trees["model_state"])
    return SavedModel(variables, trees["frozen"], manifest["about"])


def load_saved(directory: str | Path, which: str = FINAL) -> SavedModel:
    """Returns a model of a run with all that was kept of it; arguments as for `load_model`."""
    directory = checked_path("directory", directory)
    path = model_path(directory, which)
    if path.exists():
        return read_model(path)
    if not directory.is_dir():
        raise FileNotFoundError(f"no run at {directory}: there is no such directory")
    final = model_path(directory, FINAL)
    if which == FINAL or not final.exists():
        raise FileNotFoundError(
            f"{path} does not exist: a run writes its final model when it ends, and the best one "
            "with each checkpoint. Finish the run by resuming it."
        )
    saved = read_model(final)
    warnings.warn(
        f"{directory} kept no best model, because {saved.about['no_best']}; this is the final one.",
        stacklevel=3,
    )
    return saved


def load_model(directory: str | Path, which: str = FINAL, like: PyTree = None) -> Variables:
    """Reads the trained model of a run.

    Args:
      directory: The run's workdir.
      which: "final", or "best": the one of the evaluation that was best on validation data. A run
        without validation data kept no such model; then the final one is returned, with a warning.
      like: A tree of the parameters' structure, such as `run.variables.params` or what the model's
        init returns. Without it, dicts, lists and tuples come back as they were, and containers of
        other classes as dicts.

    Returns:
      `Variables` with the fields `params` and `model_state`, of NumPy arrays, bit for bit as they
      were trained.

    Raises:
      FileNotFoundError: there is no run, or it has not ended yet.
      ValueError: the file is damaged, or `like` has another structure.

    Example:
      >>> from fljax.core.algorithm import Variables
      >>> from fljax.recording.models import model_path
      >>> trained = Variables(params={"layers": [{"w": np.ones((2, 3))}]}, model_state={})
      >>> path = model_path("runs/first", "final")  # as `fljax.simulate` writes it
      >>> recording.save_model(path, trained, frozen={}, about={"round": 10})
      >>> jax.tree.map(np.shape, fljax.load_model("runs/first").params)
      {'layers': [{'w': (2, 3)}]}
    """
    variables = load_saved(directory, which).variables
    if like is None:
        return variables
    return variables._replace(params=in_structure_of(like, variables.params))


def in_structure_of(like: PyTree, tree: PyTree) -> PyTree:
    """Returns a tree that was read in the structure of another one.

    Raises:
      ValueError: If they have not the same leaves, by path and shape.
    """
    mine, wanted = (
        {
            _spelled(map(_key, path)): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(each)
        }
        for each in (tree, like)
    )
    for name in [*wanted, *mine]:
        have, want = (
            np.shape(leaves[name]) if name in leaves else "nothing" for leaves in (mine, wanted)
        )
        if have != want:
            raise ValueError(
                f"The saved model is not one of this kind: at {name or 'its root'} it has {have}, "
                f"where {want} is wanted."
            )
    return jax.tree.unflatten(jax.tree.structure(like), [mine[name] for name in wanted])


def _spelled(keys: Iterable[Any]) -> str:
    """Returns a path as a text, different for different ones: a slash in a key is %2F."""
    return "/".join(urllib.parse.quote(str(key), safe="'\" ()[]<>") for key in keys)


def _key(entry: Any) -> Any:
    """Returns the key of an entry of a JAX path, whatever kind of container it leads into."""
    for name in ("key", "name", "idx"):
        if hasattr(entry, name):
            return getattr(entry, name)
    return str(entry)


def _structure(tree: PyTree, place: tuple, keep: Any) -> Any:
    """Returns the structure of a tree as JSON values; `keep(place, leaf)` names its leaves."""

    def inner(key, child):
        return _structure(child, (*place, key), keep)

    if tree is None:
        return {"none": True}
    if type(tree) in (list, tuple):
        kind = "list" if type(tree) is list else "tuple"
        return {kind: [inner(number, child) for number, child in enumerate(tree)]}
    if type(tree) is dict:
        return {"dict": [[key, inner(key, child)] for key, child in sorted(tree.items())]}
    children = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)[0]
    if len(children) == 1 and not children[0][0]:
        return {"leaf": keep(place, tree)}
    pairs = [[str(_key(path[0])), child] for path, child in children]
    return {
        "dict": [[key, inner(key, child)] for key, child in pairs],
        "class": type(tree).__name__,
    }


def _tree(node: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> PyTree:
    """Returns the tree of which `_structure` has told the structure."""
    match node:
        case {"none": _}:
            return None
        case {"leaf": name}:
            return leaves[name]
        case {"list": children}:
            return [_tree(child, leaves) for child in children]
        case {"tuple": children}:
            return tuple(_tree(child, leaves) for child in children)
        case {"dict": children}:
            return {key: _tree(child, leaves) for key, child in children}
    raise ValueError(f"the manifest has a node {node!r}")


def _stored(leaf: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns a leaf as NumPy can store it, and how to get it back."""
    description: dict[str, Any] = {}
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        description["key"] = str(jax.random.key_impl(leaf))
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    description |= {"dtype": str(array.dtype), "shape": list(array.shape)}
    if array.dtype.kind == "V":  # bfloat16 and its like, which NumPy does not know: their bits
        array = array.view(f"u{array.dtype.itemsize}")
    return array, description


def _restored(array: np.ndarray, description: Mapping[str, Any]) -> Any:
    if _checksum(array) != description["crc32"]:
        raise ValueError("a checksum does not fit")
    if str(array.dtype) != description["dtype"]:
        array = array.view(jax.numpy.dtype(description["dtype"]))
    if list(array.shape) != description["shape"]:
        raise ValueError(f"an array has the shape {array.shape}")
    if "key" in description:
        return jax.random.wrap_key_data(array, impl=description["key"])
    return array


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())

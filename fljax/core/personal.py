"""Says which part of a model is a client's own, and takes models apart and together.

A filter is a text, or a function of a path and a leaf. Texts stand one behind the other, with
commas, and mean all that one of them means; `not` before the first one means all but that:

    "head"            the last layer (`fljax.core.representation`)
    "norm"            normalization layers, and the statistics that they keep
    "layers/0"        the layer of that path; "*" stands for anything: "*/bias", "Conv_*"
    "all", "none"     everything, nothing
    "not head, norm"  all but the last layer and the normalization layers

Paths are those of the parameters, and of the model's state, whose statistics go with the layer that
keeps them. A part of a tree is the tree with None where a leaf is not in it, so that whatever maps
over trees takes it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax

from fljax.core.algorithm import Variables
from fljax.core.gradients import LocalTask
from fljax.core.trees import leaf_paths
from fljax.core.values import brief, shown, wrong

PyTree = Any
Filter = str | Callable[[str, Any], bool]

_NOT = "not "
# Paths that an error lists.
_LISTED = 20


def check_filter(name: str, part: Filter) -> None:
    """Raises ValueError for what is neither a function nor a text that names something.

    Args:
      name: How the user calls it.
      part: What the user gave.
    """
    if callable(part):
        return
    if not isinstance(part, str) or not all(texts_of(part)[1]):
        must = (
            "a text such as 'head', 'norm', 'layers/0' or 'not head, norm', or a function (path, "
            "leaf) -> bool"
        )
        raise wrong(name, part, must)


def chosen(name: str, part: Filter, task: LocalTask, variables: Variables) -> Variables:
    """Returns which leaves of a model a filter means.

    Args:
      name: How the user calls the filter, for errors.
      part: The filter.
      task: Whose model it is.
      variables: The model; shapes will do.

    Returns:
      `Variables` of bools.

    Raises:
      ValueError: If a text means nothing in this model, with the paths that there are.
    """
    params, state = variables
    paths = leaf_paths(params), _state_paths(params, state)
    if callable(part):
        leaves = [
            [_answer(name, part, path, leaf) for path, leaf in zip(names, tree, strict=True)]
            for names, tree in zip(paths, map(jax.tree.leaves, variables), strict=True)
        ]
    else:
        negated, texts = texts_of(part)
        found = [_meant(name, text, task, variables, paths) for text in texts]
        leaves = [
            [any(each) != negated for each in zip(*of_tree, strict=True)]
            for of_tree in zip(*found, strict=True)
        ]
    return Variables(*map(jax.tree.unflatten, map(jax.tree.structure, variables), leaves))


def part_of(tree: PyTree, mask: PyTree) -> PyTree:
    """Returns the leaves that a mask takes, and None in the place of the others.

    Example:
      >>> part_of({"base": 1, "head": 2}, {"base": False, "head": True})
      {'base': None, 'head': 2}
    """
    return jax.tree.map(lambda is_in, leaf: leaf if is_in else None, mask, tree)


def rest_of(tree: PyTree, mask: PyTree) -> PyTree:
    """Returns the leaves that `part_of` leaves out."""
    return jax.tree.map(lambda is_in, leaf: None if is_in else leaf, mask, tree)


def like_part(tree: PyTree, part: PyTree) -> PyTree:
    """Returns the leaves of a tree in whose places a part has some.

    Example:
      >>> like_part({"base": 1, "head": 2}, {"base": None, "head": 0})
      {'base': None, 'head': 2}
    """
    return jax.tree.map(
        lambda mine, leaf: None if mine is None else leaf, part, tree, is_leaf=_is_none
    )


def together(part: PyTree, rest: PyTree) -> PyTree:
    """Returns the tree of two parts; where both have a leaf, that of the first.

    Example:
      >>> together({"base": None, "head": 2}, {"base": 1, "head": None})
      {'base': 1, 'head': 2}
    """
    return jax.tree.map(
        lambda mine, other: other if mine is None else mine, part, rest, is_leaf=_is_none
    )


def texts_of(part: str) -> tuple[bool, list[str]]:
    """Returns (whether all but them is meant, the texts of a filter)."""
    negated = part.lstrip().startswith(_NOT)
    return negated, [text.strip() for text in part.lstrip().removeprefix(_NOT).split(",")]


def fits(path: str, pattern: str) -> bool:
    """Returns whether a pattern fits a leaf, or a layer that it belongs to.

    Example:
      >>> fits("layers/0/bias", "layers/*"), fits("layers/0/bias", "bias")
      (True, False)
    """
    names = path.split("/")
    return any(
        fnmatchcase("/".join(names[:length]), pattern) for length in range(1, len(names) + 1)
    )


def asked(
    name: str, part: Filter | None, path: str, leaf: Any, words: Mapping[str, bool] | None = None
) -> bool:
    """Returns whether a filter of paths means a leaf, without a look at the model as a whole.

    Args:
      name: How the user calls the filter, for errors.
      part: The filter; None means nothing.
      path: Of the leaf.
      leaf: The leaf; its shape will do.
      words: Of texts that are no paths, whether they mean the leaf.

    Example:
      >>> asked("train", "not head", "layers/0/bias", np.zeros(3))
      True
    """
    if part is None:
        return False
    if callable(part):
        return _answer(name, part, path, leaf)
    negated, texts = texts_of(part)
    found = (words[text] if text in (words or ()) else fits(path, text) for text in texts)
    return any(found) != negated


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _meant(
    name: str, text: str, task: LocalTask, variables: Variables, paths: tuple[list, list]
) -> tuple[list[bool], list[bool]]:
    """Returns which leaves of parameters and of state one text means."""
    params, state = paths
    if text in ("all", "none"):
        return [text == "all"] * len(params), [text == "all"] * len(state)
    if text == "head":
        return jax.tree.leaves(task.head(*variables)), [False] * len(state)
    if text == "norm":
        layers = _normalizations(*paths)
        found = (
            [_layer(path) in layers for path in params],
            [_layer(path) in layers for path in state],
        )
        what = "no normalization layer (one with a scale and no kernel, or with a mean and a var)"
    else:
        found = [fits(path, text) for path in params], [fits(path, text) for path in state]
        what = "no parameter of that path"
    if not any(map(any, found)):
        every = [path for of_tree in paths for path in of_tree]
        more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
        raise ValueError(
            f"{name} = {text!r}, but the model has {what}. It has "
            f"{', '.join(every[:_LISTED])}{more}."
        )
    return found


def _state_paths(params: PyTree, state: PyTree) -> list[str]:
    """Returns the paths of a model's state as its parameters have them.

    Linen's begin with the name of a collection ("batch_stats/BatchNorm_0/mean").
    """
    first = {path.split("/")[0] for path in leaf_paths(params)}

    def within(path):
        collection, _, rest = path.partition("/")
        return rest if rest and collection not in first else path

    return [within(path) for path in leaf_paths(state)]


def _normalizations(params: Sequence[str], state: Sequence[str]) -> set[str]:
    """Returns the paths of normalization layers."""

    def names_of(paths):
        names: dict[str, set[str]] = {}
        for path in paths:
            names.setdefault(_layer(path), set()).add(path.rpartition("/")[2])
        return names

    scaled = {
        layer
        for layer, names in names_of(params).items()
        if "scale" in names and names.isdisjoint(("kernel", "embedding"))
    }
    return scaled | {layer for layer, names in names_of(state).items() if names >= {"mean", "var"}}


def _layer(path: str) -> str:
    return path.rpartition("/")[0]


def _answer(name: str, function: Callable, path: str, leaf: Any) -> bool:
    """Returns what a filter of the user's says of a leaf."""
    shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    try:
        answer = function(path, shape)
    except Exception as error:
        raise ValueError(
            f"{name} = {shown(function)} cannot be called with the path {path!r} and a leaf "
            f"({brief(error)}). It is a function (path, leaf) -> bool."
        ) from error
    if not isinstance(answer, bool):
        raise ValueError(
            f"{name} = {shown(function)} returned {shown(answer)} for the path {path!r}. It must "
            "return True or False."
        )
    return answer

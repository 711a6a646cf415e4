"""Networks: one record for modules of Flax (NNX and linen) and for plain functions.

A framework's module is taken apart into plain nested dicts once, when the record is made. `apply`
puts a fresh module together from them within the caller's trace, so no module object is shared
between traces and nothing of a trace stays behind in one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from fljax.core.fast_layers import with_fast_layers
from fljax.core.parts import FailedCall
from fljax.core.settings import MODEL
from fljax.core.values import brief, checked, sequence, shown, wrong

PyTree = Any


class Network(NamedTuple):
    """A model without its loss.

    Attributes:
      init: (key) -> (params, frozen, model_state), three plain nested dicts of arrays. The last two
        are often empty.
      apply: (params, frozen, model_state, x, key, train, mask) -> (outputs, model_state'). `key`
        may be None without training, `mask` is bool[B] or None.
      needs_full_batches: Whether padding rows of a batch would change the statistics the model
        keeps: it has BatchNorm, and its `__call__` takes no `mask`.
      replaced_layers: Names of the layers whose place a faster one took.

    Example:
      >>> network = tasks.from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
      >>> params, _, _ = network.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      15
    """

    init: Callable[[jax.Array], tuple[PyTree, PyTree, PyTree]]
    apply: Callable[..., tuple[PyTree, PyTree]]
    needs_full_batches: bool = False
    replaced_layers: tuple[str, ...] = ()


def as_network(model: Any, frozen: Any = None, fast_layers: bool = True) -> Network:
    """Returns the network of anything that this module knows how to read.

    Args:
      model: A `Network`; a pair of functions for `from_functions`; an NNX module, or a function
        (nnx.Rngs) -> module, for `from_nnx`.
      frozen: For NNX only: a filter of the `nnx.Param`s that are constants.
      fast_layers: For NNX only: as in `from_nnx`.

    Raises:
      TypeError: For anything else.
    """
    if is_nnx(model):
        return from_nnx(model, frozen=frozen, fast_layers=fast_layers)
    if frozen is not None:
        raise TypeError(
            "frozen= is a filter of NNX modules. With plain functions or linen, keep the constants "
            "out of the parameters, or return them as `frozen` from an own Network."
        )
    if isinstance(model, Network):
        return model
    check_model(model)
    return from_functions(*model)


def is_nnx(model: Any) -> bool:
    """Returns whether a model is one for `from_nnx`: an NNX module, or what may make one."""
    if isinstance(model, nnx.Module):
        return True
    return callable(model) and not (isinstance(model, Network) or _is_linen(model))


def check_model(model: Any) -> None:
    """Raises TypeError for what `as_network` does not read, before it is read."""
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return
    if isinstance(model, Network | nnx.Module) or (callable(model) and not _is_linen(model)):
        return
    if _is_linen(model):
        raise TypeError(
            "A linen module needs an example input to be initialized: pass "
            "fljax.tasks.from_linen(module, example_x)."
        )
    by_name = f" By name: fljax.models.make({shown(model)}, num_classes, input_shape)."
    raise TypeError(
        f"{shown(model)} is no model. Pass a function (nnx.Rngs) -> nnx.Module, an nnx.Module, "
        "from_linen(module, example_x), or a pair of functions (init, apply)."
        f"{by_name if isinstance(model, str) else ''}"
    )


def from_functions(init: Callable, apply: Callable) -> Network:
    """Makes a network of two plain functions.

    Args:
      init: (key) -> params.
      apply: (params, x, *, key=None, train=False, mask=None) -> outputs; of the three keywords,
        those that it names are passed.

    Example:
      >>> init = lambda key: {'w': jnp.zeros((4, 3))}
      >>> apply = lambda params, x, *, key=None, train=False: x @ params['w']
      >>> tasks.classification(tasks.from_functions(init, apply), num_classes=3)
      Task('classification', 3 classes)
    """
    for name, function in (("init", init), ("apply", apply)):
        if not callable(function):
            raise wrong(name, function, "a function")
    accepted = _keywords(apply)

    def network_apply(params, frozen, model_state, x, key, train, mask):
        options = {"key": key, "train": train, "mask": mask}
        options = {name: value for name, value in options.items() if name in accepted}
        return apply(params, x, **options), model_state

    def network_init(key):
        try:
            return init(key), {}, {}
        except Exception as error:
            raise TypeError(
                f"init = {shown(init)} cannot be called with a random key ({brief(error)}). The "
                "init of a model (init, apply) is a function from a key to parameters."
            ) from error

    return Network(network_init, network_apply)


def from_nnx(
    model: nnx.Module | Callable[[nnx.Rngs], nnx.Module],
    *,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Network:
    """Makes a network of a Flax NNX module.

    Every `nnx.Param` is a parameter, everything else but random streams is model state. Streams
    (dropout) start anew from the key of each call. `train` switches the whole module between
    `module.train()` and `module.eval()`.

    Args:
      model: A function of `nnx.Rngs` that makes the module, such as
        `lambda rngs: MLP(64, rngs=rngs)`. Or a module: then `init` returns the parameters that it
        has now, whatever the key.
      frozen: An NNX filter of the `nnx.Param`s that are never trained, such as
        `nnx.Not(nnx.LoRAParam)`.
      fast_layers: Whether convolutions compute their function in a form that is fast in compiled
        loops and for kernels that differ between clients; see `with_fast_layers`. Parameters, their
        names and their first values are the module's in any case; results differ in rounding.

    Raises:
      TypeError: If `model` returns no module.

    Example:
      >>> network = tasks.from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
      >>> tasks.classification(network, num_classes=3)
      Task('classification', 3 classes)
      >>> network = tasks.from_nnx(lambda rngs: nnx.Conv(1, 8, (3, 3), rngs=rngs))
      >>> network.replaced_layers, network.init(jax.random.key(0))[0]["kernel"].shape
      (('',), (3, 3, 1, 8))
    """
    kinds = _kinds(_checked_filter(frozen))
    fast_layers = checked("fast_layers", fast_layers, MODEL["fast_layers"])

    def make(rngs):
        try:
            module = model(rngs)
        except FailedCall:
            raise  # it says which text is wrong
        except Exception as error:
            raise TypeError(
                f"The model {shown(model)} cannot be made with model(nnx.Rngs(0)) "
                f"({brief(error)}). Give a function of nnx.Rngs that makes it, such as "
                "fljax.models.mlp((784, 200, 10)) or lambda rngs: MyModule(64, rngs=rngs)."
            ) from error
        if not isinstance(module, nnx.Module):
            raise TypeError(
                f"The model function must return an nnx.Module, not {type(module).__name__}. Give "
                "a function of nnx.Rngs, such as fljax.models.mlp((784, 200, 10))."
            )
        return module

    is_made = isinstance(model, nnx.Module)
    module = model if is_made else nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    module, replaced = with_fast_layers(module) if fast_layers else (module, ())
    graph, *parts = nnx.split(module, *kinds)
    current = tuple(_to_dict(part) for part in parts[:3]) if is_made else None
    templates = [dict(nnx.to_flat_state(part)) for part in parts]
    takes_mask = "mask" in _keywords(nnx.merge(graph, *parts).__call__)
    keeps_statistics = any(isinstance(v, nnx.BatchStat) for v in templates[2].values())

    def init(key):
        if current is not None:
            return jax.tree.map(jnp.copy, current)
        return tuple(_to_dict(part) for part in nnx.split(make(nnx.Rngs(key)), *kinds)[1:4])

    def apply(params, frozen, model_state, x, key, train, mask):
        states = [
            _to_state(template, tree)
            for template, tree in zip(templates, (params, frozen, model_state), strict=False)
        ]
        module = nnx.merge(graph, *states, _seeded(templates[3], key))
        module.train() if train else module.eval()
        outputs = module(x, mask=mask) if takes_mask else module(x)
        if not train:
            return outputs, model_state
        return outputs, _like(model_state, _to_dict(nnx.split(module, *kinds)[3]))

    return Network(init, apply, keeps_statistics and not takes_mask, replaced)


def from_linen(
    module: Any, example_x: PyTree, *, rng_names: tuple[str, ...] = ("dropout",)
) -> Network:
    """Makes a network of a Flax linen module.

    The collection "params" holds the parameters, the others are model state. If the module's
    `__call__` has an argument `train`, `training`, `deterministic` or `use_running_average`, it is
    given, and so is `mask`.

    Args:
      module: A `flax.linen.Module`.
      example_x: Input of the right shape and dtype, for initialization.
      rng_names: Random streams that training draws from.

    Returns:
      The `Network`.

    Example:
      >>> from flax import linen
      >>> network = tasks.from_linen(linen.Dense(3), jnp.zeros((1, 4)))
      >>> tasks.classification(network, num_classes=3)
      Task('classification', 3 classes)
      >>> network = tasks.from_nnx(lambda rngs: nnx.Conv(1, 8, (3, 3), rngs=rngs))
      >>> network.replaced_layers, network.init(jax.random.key(0))[0]["kernel"].shape
      (('',), (3, 3, 1, 8))
    """
    if not (_is_linen(module) and callable(module)):
        raise wrong("module", module, "a flax.linen.Module")
    accepted = _keywords(module.__call__)
    takes_mask = "mask" in accepted

    def options(train, mask):
        modes = {
            "train": train,
            "training": train,
            "deterministic": not train,
            "use_running_average": not train,
            "mask": mask,
        }
        return {name: value for name, value in modes.items() if name in accepted}

    def streams(key, names):
        return (
            {} if key is None else dict(zip(names, jax.random.split(key, len(names)), strict=True))
        )

    def init(key):
        rngs = streams(key, ("params", *rng_names))
        variables = dict(module.init(rngs, example_x, **options(False, None)))
        params = variables.pop("params", {})
        variables.pop("intermediates", None)
        return params, {}, variables

    def apply(params, frozen, model_state, x, key, train, mask):
        outputs, updated = module.apply(
            {"params": params, **model_state},
            x,
            **options(train, mask),
            rngs=streams(key, rng_names),
            mutable=list(model_state),
        )
        return outputs, _like(model_state, dict(updated)) if train else model_state

    rng_names = tuple(sequence("rng_names", rng_names, "a tuple of names"))
    try:
        collections = jax.eval_shape(init, jax.random.key(0))[2]
    except Exception as error:
        raise ValueError(
            f"The linen module cannot be initialized with example_x = {shown(example_x)} and "
            f"rng_names = {shown(rng_names)} ({brief(error)})."
        ) from error
    return Network(init, apply, "batch_stats" in collections and not takes_mask)


def _checked_filter(frozen: Any) -> Any:
    """Returns an NNX filter that says so where it is none; None stays None."""
    if frozen is None:
        return None
    problem = f"frozen = {shown(frozen)} is no filter of NNX, such as nnx.Not(nnx.LoRAParam)"
    try:
        is_frozen = nnx.filterlib.to_predicate(frozen)
    except Exception as error:
        raise TypeError(f"{problem}.") from error

    def checked_filter(path, value):
        try:
            return is_frozen(path, value)
        except Exception as error:
            raise TypeError(f"{problem} ({brief(error)}).") from error

    return checked_filter


def _kinds(frozen: Any) -> tuple:
    """Returns the NNX filters of (params, frozen, model state, random streams)."""
    streams = nnx.RngState
    constant = nnx.Nothing() if frozen is None else nnx.All(nnx.Param, frozen)
    return nnx.All(nnx.Param, nnx.Not(constant)), constant, nnx.Not(streams), streams


def _to_dict(state: nnx.State) -> dict:
    """Returns the values as nested dicts with string keys (lists of layers have integers)."""
    values = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    return traverse_util.unflatten_dict(
        {tuple(map(str, path)): value for path, value in values.items()}
    )


def _to_state(template: dict, tree: dict) -> nnx.State:
    """Returns the values of `tree` in the variables of `template`."""
    values = traverse_util.flatten_dict(tree)
    names = {path: tuple(map(str, path)) for path in template}
    missing, unknown = set(names.values()) - set(values), set(values) - set(names.values())
    if missing or unknown:
        raise ValueError(
            "The parameters do not fit the module: "
            f"missing {sorted('/'.join(map(str, path)) for path in missing)}, "
            f"unknown {sorted('/'.join(map(str, path)) for path in unknown)}."
        )
    return nnx.from_flat_state(
        [(path, _filled(leaf, values[names[path]])) for path, leaf in template.items()]
    )


def _filled(leaf: Any, value: jax.Array) -> Any:
    """Returns a new variable, of the current trace, like `leaf`; or `value` for a bare array."""
    return jax.tree.map(lambda _: value, leaf)


def _seeded(template: dict, key: jax.Array | None) -> nnx.State:
    """Returns random streams that start from `key`, each from its own."""
    key = jax.random.key(0) if key is None else key

    def start(number, leaf):
        if not isinstance(leaf, nnx.RngKey):
            return _filled(leaf, jnp.zeros(leaf.shape, leaf.dtype))
        return _filled(leaf, jax.random.split(jax.random.fold_in(key, number), leaf.shape))

    return nnx.from_flat_state(
        [(path, start(number, leaf)) for number, (path, leaf) in enumerate(template.items())]
    )


def _like(old: PyTree, new: PyTree) -> PyTree:
    """Returns the entries of `new` that `old` has, in its dtypes: a fixed point for loops."""
    values = traverse_util.flatten_dict(new)
    return traverse_util.unflatten_dict(
        {
            path: values[path].astype(leaf.dtype)
            for path, leaf in traverse_util.flatten_dict(old).items()
        }
    )


def _keywords(function: Callable) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except ValueError:  # some functions written in C tell nothing of themselves
        return set()


def _is_linen(model: Any) -> bool:
    return hasattr(model, "init") and hasattr(model, "apply")

"""Checks the numbers and the optimizers that users give to algorithms."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import optax

from fljax.core import parts
from fljax.core.algorithm import OptimizerFactory
from fljax.core.names import foreign, nearest
from fljax.core.per_client import is_per_client
from fljax.core.settings import ALGORITHM
from fljax.core.values import FINITE, Field, brief, checked, shown, wrong

# Names that the engine adds to every algorithm's hyperparameters.
_RESERVED = ("num_clients",)
_NUMBER = Field(None, float, FINITE)


def defaults_of(function: Callable) -> dict[str, float]:
    """Returns {name: number} of the numbers that a function has as defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if isinstance(parameter.default, float)
    }


def given_of(function: Callable, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a function that are not at their defaults."""
    defaults = parts.defaults_of(function)
    return {name: value for name, value in values.items() if value != defaults[name]}


def check_idle(given: Mapping[str, Any], beside: str, remedy: str) -> None:
    """Raises ValueError for arguments that have no effect beside others.

    Args:
      given: {name: value}, those that were given.
      beside: What takes their effect, such as "restarts = 1".
      remedy: What gives it back, such as "set restarts, such as 4".
    """
    for name, value in given.items():
        raise ValueError(
            f"{name} = {shown(value)} has no effect with {beside}. Leave it out, or {remedy}."
        )


def hyperparameters(
    algorithm: str,
    own: Mapping[str, Any],
    further: Mapping[str, Any] | None = None,
    optimizers: Iterable[OptimizerFactory | None] = (),
    **optional: Any,
) -> dict[str, Any]:
    """Returns the hyperparameters of an algorithm, each a finite number in its range.

    Args:
      algorithm: Its name, for messages.
      own: {name: number} of those that it has.
      further: Those that only an optimizer of the user's can read.
      optimizers: What the user gave as optimizers.
      **optional: Further ones that it has, of which None is switched off.

    Raises:
      TypeError: For further ones where no optimizer can read them.
      ValueError: For values that are no finite numbers, or out of range.
    """
    further = further or {}
    for name in further:
        if name in _RESERVED:
            raise TypeError(
                f"{algorithm}: {name} is set by the run itself; give yours another name."
            )
        if all(optimizer is None for optimizer in optimizers):
            meant = hint(name, {**own, **optional})
            raise TypeError(
                f"{algorithm} has no hyperparameter {name!r}. {meant} A number of an optimizer of "
                "your own goes with client_optimizer or server_optimizer, which read it."
            )
    optional = {name: value for name, value in optional.items() if value is not None}
    given = {**own, **further, **optional}
    return {
        # a traced one was checked where it came from
        name: value if isinstance(value, jax.core.Tracer) else checked_hyperparameter(name, value)
        for name, value in given.items()
    }


def checked_hyperparameter(name: str, value: Any) -> float:
    """Returns a hyperparameter as a float, by its line of the table or as any finite number."""
    if name == "client_lr" and is_per_client(value):
        must = "one number; for rates of clients' own give simulate(..., client_lr_factors=[...])"
        raise wrong(name, value, must)
    return checked(name, value, ALGORITHM.get(name, _NUMBER)._replace(optional=False))


def hint(name: str, known: Iterable[str]) -> str:
    """Returns a sentence on the hyperparameter that was probably meant."""
    known = list(known)
    near = nearest(name, known)
    theirs = foreign(name, known)
    return theirs or (f"Did you mean {near!r}?" if near else f"It has {', '.join(known)}.")


def optimizer(name: str, factory: OptimizerFactory) -> OptimizerFactory:
    """Returns an optimizer factory that says what is wrong with what it makes.

    Args:
      name: "client_optimizer" or "server_optimizer".
      factory: hparams -> optax optimizer, as the user gave it.

    Raises:
      TypeError: If it is no function; when it is called, if it makes no optimizer.
    """
    example = f"{name} = lambda hp: optax.sgd(hp[{name.split('_')[0] + '_lr'!r}])"
    if isinstance(factory, optax.GradientTransformation):
        raise TypeError(
            f"{name} is an optimizer; it must be a function of the hyperparameters that makes one: "
            f"{example}."
        )
    if not callable(factory):
        raise wrong_part(name, factory, f"a function of the hyperparameters: {example}")

    def make(hparams):
        made = _made(name, factory, hparams, example)
        return made._replace(
            init=lambda params: _begun(name, made, params),
        )

    return make


def wrong_part(name: str, value: Any, must: str) -> TypeError:
    """Returns the error of a part of another kind than it must be."""
    return TypeError(str(wrong(name, value, must)))


def _made(name, factory, hparams, example) -> optax.GradientTransformation:
    try:
        made = factory(hparams)
    except KeyError as error:
        missing = error.args[0] if error.args else error
        if missing in hparams:
            raise
        raise TypeError(
            f"{name} reads the hyperparameter {missing!r}, which nobody gave. "
            f"{hint(str(missing), sorted(hparams))} Give it beside the optimizer: "
            f"fedavg({name}=..., {missing}=0.1)."
        ) from error
    except Exception as error:
        raise TypeError(
            f"{name} = {shown(factory)} cannot be called with the hyperparameters "
            f"({brief(error)}). It is a function of them: {example}."
        ) from error
    if not isinstance(made, optax.GradientTransformation):
        raise TypeError(
            f"{name} made {shown(made)} ({type(made).__name__}), which is no optax optimizer. "
            f"Write {example}."
        )
    return made


def _begun(name: str, made: optax.GradientTransformation, params: Any) -> Any:
    """Returns an optimizer's first state; says what is wrong if it cannot step with gradients."""
    try:
        state = made.init(params)
        after = jax.eval_shape(lambda p, s: made.update(p, s, p), params, state)[1]
    except Exception as error:
        if "value" in str(error) and "argument" in str(error):
            raise TypeError(
                f"{name} asks for the value of the loss, as optax.lbfgs, its line searches and "
                "optax.contrib.reduce_on_plateau do. Optimizers see gradients alone here: of a "
                "batch on a client, of a round's mean change on the server. Use one without a "
                "line search; for rates that fall, client_lr_schedule and server_lr_schedule."
            ) from error
        raise TypeError(
            f"{name} cannot step with a gradient of the model's parameters "
            f"({brief(error)}). It is a function of the hyperparameters: "
            f"lambda hp: optax.sgd(hp[{name.split('_')[0] + '_lr'!r}])."
        ) from error
    if changed := _changed(state, after):
        raise TypeError(
            f"{name}: a step changes its state from {changed[0]} to {changed[1]}, and states must "
            "keep their shapes and types."
        )
    return state


def _changed(before: Any, after: Any) -> tuple[str, str] | None:
    """Returns (before, after) of the first leaf whose shape or type a step changes."""
    typed = [
        jax.tree.map(lambda leaf: jax.eval_shape(lambda: leaf), tree) for tree in (before, after)
    ]
    if jax.tree.structure(before) != jax.tree.structure(after):
        return str(jax.tree.structure(before)), str(jax.tree.structure(after))
    pairs = zip(*map(jax.tree.leaves, typed), strict=True)
    kinds = [(f"{a.dtype}{list(a.shape)}", f"{b.dtype}{list(b.shape)}") for a, b in pairs]
    return next((pair for pair in kinds if pair[0] != pair[1]), None)

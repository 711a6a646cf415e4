"""Trials: what tells the trials of one round program apart, stacked over them.

A run has one trial. A sweep has as many as trials train side by side: each with its own seed,
hyperparameters and division of the data, all under one compilation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.algorithm import Variables
from fljax.core.task import Task
from fljax.engine.program.keys import ATTACKERS
from fljax.training.initialization import init_model

PyTree = Any

# Streams of random keys for the initial models; rounds count from 0.
_INIT, _FURTHER = 0x7FFFFFFF, 0x7FFFFFFE


class TrialInputs(NamedTuple):
    """One trial.

    Attributes:
      seed: Seed of everything random in it, apart from the data.
      hparams: {name: number}, with the same names in every trial.
      partition: Which of the partitions of the data it trains on.
    """

    seed: int
    hparams: Mapping[str, float]
    partition: int = 0


class InitialTrials(NamedTuple):
    """The initial models and numbers of trials, stacked over them.

    Attributes:
      variables: `Variables` of the initial models, leaves [S, ...].
      frozen: The model's constants, which all share.
      hparams: {name: [S]}.
      keys: PRNG keys [S] of their rounds.
      several: Where servers start from several models, `Variables` of all of them, leaves
        [S, models, ...]; the first is that of `variables`. None where from one.
    """

    variables: Variables
    frozen: PyTree
    hparams: dict[str, np.ndarray]
    keys: jax.Array
    several: Variables | None = None

    @property
    def model_shapes(self) -> Variables:
        """Shapes of the model of one trial."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.variables
        )

    def hparams_of(self, trial: int) -> dict[str, Any]:
        """Returns {name: number} of one trial."""
        return {name: values[trial] for name, values in self.hparams.items()}


def initial_trials(
    task: Task,
    trials: Sequence[TrialInputs],
    participants: Sequence[int],
    params: PyTree = None,
    num_models: int = 1,
) -> InitialTrials:
    """Returns what trials start from.

    Args:
      task: The task.
      trials: The trials.
      participants: Clients that ever take part, of each partition of the data; their number joins
        the hyperparameters as `num_clients`.
      params: Parameters to start from instead of the task's.
      num_models: Models that a server starts from.

    Raises:
      ValueError: If the trials do not fit into one program, or several models would start alike.
    """
    if num_models > 1 and params is not None:
        raise ValueError(
            f"initial_params are one model, and the server starts from {num_models} that must "
            "differ, or all of them would stay alike. Leave initial_params out."
        )
    words = np.asarray([trial.seed & 0xFFFFFFFF for trial in trials], np.uint32)
    models = {
        trial.seed: init_model(task, key, params)
        for trial, key in zip(trials, _init_keys(words), strict=True)
    }
    check_frozen([(seed, frozen) for seed, (_, frozen, _) in models.items()])
    each = [Variables(models[trial.seed][0], models[trial.seed][2]) for trial in trials]
    variables = _stack(each)
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(variables.params))
    hparams = _stacked_hparams(trials, dtype)
    hparams["num_clients"] = np.asarray([participants[trial.partition] for trial in trials], dtype)
    _, frozen, _ = models[trials[0].seed]
    several = None
    if num_models > 1:
        several = _stack(
            [
                _several(task, model, trial.seed, num_models)
                for trial, model in zip(trials, each, strict=True)
            ]
        )
    return InitialTrials(variables, frozen, hparams, _keys(words), several)


def _several(task: Task, first: Variables, seed: int, num_models: int) -> Variables:
    """Returns a trial's initial model and further ones, leaves [models, ...]."""
    numbers = np.arange(1, num_models, dtype=np.uint32)
    keys = _further_keys(np.uint32(seed & 0xFFFFFFFF), numbers)
    further = [init_model(task, key) for key in keys]
    if all(map(np.array_equal, jax.tree.leaves(first.params), jax.tree.leaves(further[0][0]))):
        raise ValueError(
            f"The server starts from {num_models} models that must differ, and the model's init "
            "gives the same parameters whatever its key is, such as zeros. Take a model that draws "
            "its weights, or an algorithm that starts from one, such as hypcluster."
        )
    return _stack([first, *(Variables(params, state) for params, _, state in further)])


def check_frozen(frozen: Sequence[tuple[int, PyTree]]) -> None:
    """Refuses constants of the model that depend on the seed: trials share them.

    Args:
      frozen: (seed, constants) of each model.

    Raises:
      ValueError: If two of them differ.
    """
    (first, shared), *others = frozen
    for seed, other in others:
        same = jax.tree.map(
            lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), shared, other
        )
        if not all(jax.tree.leaves(same)):
            raise ValueError(
                f"The model's frozen constants differ between the seeds {first} and {seed}, and "
                "trials that run together share them. Make them independent of the key, or run "
                "one sweep for each seed."
            )


def _stacked_hparams(trials: Sequence[TrialInputs], dtype: Any) -> dict[str, np.ndarray]:
    """Returns {name: [S]}; refuses trials with different names."""
    names = trials[0].hparams.keys()
    for trial in trials:
        if odd := sorted(trial.hparams.keys() ^ names):
            raise ValueError(
                f"Trials that run together need the same hyperparameters, but {odd[0]!r} belongs "
                "to some of them only."
            )
    return {name: np.asarray([trial.hparams[name] for trial in trials], dtype) for name in names}


@jax.jit
def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def attackers_key(seed: int) -> jax.Array:
    """Returns the key by which a trial of a seed draws its hostile clients."""
    return jax.random.fold_in(_keys(np.array([seed & 0xFFFFFFFF], np.uint32))[0], ATTACKERS)


@jax.jit
def _keys(words: jax.Array) -> jax.Array:
    return jax.vmap(lambda word: jax.random.key(word, impl="threefry2x32"))(words)


@jax.jit
def _further_keys(word: jax.Array, numbers: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(word, impl="threefry2x32"), _FURTHER)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


@jax.jit
def _init_keys(words: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, _INIT))(_keys(words))

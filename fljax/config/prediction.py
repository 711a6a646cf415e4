"""Predicts with a trained model: from a run, or from what it left on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fljax import models, tasks
from fljax.config.schema import FIELDS
from fljax.core.lora import has_adapters, merged
from fljax.core.own_modules import beside
from fljax.core.parts import name_of
from fljax.data.tables import as_array, numbers_of
from fljax.data.values import narrowed
from fljax.recording import Run, jsonio
from fljax.recording.models import BEST, FINAL, SavedModel, in_structure_of, load_saved
from fljax.recording.runs import CONFIG

_BATCH_SIZE = 128


def predictor(
    run: Run | str | Path,
    model: Any = None,
    *,
    which: str = FINAL,
    preprocess: Callable[[dict], dict] | None = None,
) -> Callable[[np.ndarray], np.ndarray]:
    """Makes a function that predicts with the trained model of a run.

    Args:
      run: What `simulate` or `load_run` returned, or the run's directory.
      model: What was given to `simulate`. Only the directory of a run of a configuration needs
        none: its config.json names the model.
      which: "final", or "best" by validation; see `fljax.load_model`.
      preprocess: `dataset.preprocess` of the training data, where they had one; the data of a
        configuration are loaded for it if it is not given.

    Returns:
      A function from x[rows, ...], examples as the data set holds them, to the model's outputs
      (logits) as a NumPy array [rows, ...].

    Raises:
      FileNotFoundError: There is no such run, or it has not ended.
      ValueError: If model, preprocessing or examples are not those of the run.

    Example:
      >>> predict = fljax.predictor("runs/first", which="best")  # doctest: +SKIP
      >>> labels = predict(x).argmax(-1)  # doctest: +SKIP
      >>> names = [dataset.class_names[k] for k in labels]  # doctest: +SKIP
    """
    trained = trained_model(run, model, which=which, preprocess=preprocess)
    variables = trained.variables

    @jax.jit
    def outputs(batch):
        batch = batch if trained.preprocess is None else trained.preprocess(batch)
        x = batch["x"]
        return trained.task.apply(variables.params, trained.frozen, variables.model_state, x)

    return lambda x: _in_batches(outputs, _held(x), trained.about["example"])


class Trained(NamedTuple):
    """A trained model with what it takes to compute its outputs.

    Attributes:
      task: Whose `apply` computes them.
      variables: `Variables` in the structure that the task's own have.
      frozen: Constants.
      preprocess: What maps a batch of raw examples to what the model sees; None where they are it.
      about: What the run kept of the model: round, task, classes, shapes of an example.
    """

    task: tasks.Task
    variables: Any
    frozen: Any
    preprocess: Callable[[dict], dict] | None
    about: Mapping[str, Any]


def trained_model(
    run: Run | str | Path,
    model: Any = None,
    *,
    which: str = FINAL,
    preprocess: Callable[[dict], dict] | None = None,
) -> Trained:
    """Reads a trained model back into what computes with it; arguments as for `predictor`.

    Adapters are added to the weights of the model that a configuration names.

    Raises:
      FileNotFoundError, ValueError: As for `predictor`.
    """
    saved = _saved(run, which)
    if model is None:
        config = config_of_run(run)
        model = _configured_model(config, saved.about)
        if preprocess is None and saved.about["preprocessed"]:
            preprocess = _configured_preprocess(config)
    if preprocess is None and saved.about["preprocessed"]:
        raise ValueError(
            "The data of this run were preprocessed on their way to the model: give "
            "preprocess=dataset.preprocess (lambda batch: batch, where that is done already)."
        )
    task = _as_task(model, saved.about)
    if task.apply is None:
        raise ValueError(
            f"The task of kind {task.kind!r} has no function `apply`: give it one, (params, "
            "frozen, model_state, x) -> outputs, or call its model with fljax.load_model(...)."
        )
    variables, frozen = fitted_model(task, saved)
    return Trained(task, variables, frozen, preprocess, saved.about)


def _saved(run: Run | str | Path, which: str) -> SavedModel:
    if not isinstance(run, Run):
        return load_saved(run, which)
    if which not in (FINAL, BEST):
        raise ValueError(f"which = {which!r}; choose {FINAL!r} or {BEST!r}.")
    variables = run.variables if which == FINAL else run.best_variables
    if run.about_model is None or variables is None:
        raise ValueError(
            f"This run has no {which} model"
            + (f": {run.about_model['no_best']}." if run.about_model else ": it has not ended.")
        )
    return SavedModel(variables, run.frozen, dict(run.about_model))


def config_of_run(run: Run | str | Path) -> dict[str, Any]:
    """Returns the configuration of a run, of the keys that configurations have.

    Args:
      run: What `simulate` or `load_run` returned, or the run's directory.

    Raises:
      ValueError: If the run was not made of a configuration.
    """
    if isinstance(run, Run):
        config = run.config
    else:
        path = Path(run) / CONFIG
        config = jsonio.read_object(path) if path.exists() else {}
    if not any(isinstance(config.get(key), str) for key in ("model", "task")):
        raise ValueError(
            "This run was not made of a configuration, so nothing on disk says how its model "
            "computes: give the model too, as to simulate."
        )
    return as_configured(config)


def as_configured(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration in a run's record, of the clients that it asked for.

    The record's `num_clients` are those that came of it, without held-out ones.

    Args:
      recorded: Contents of config.json.

    Example:
      >>> from fljax.config.prediction import as_configured
      >>> as_configured({"num_clients": 7, "configured_clients": 10, "hparams": {}})
      {'num_clients': 10}
    """
    config = {name: recorded[name] for name in FIELDS if name in recorded}
    if "configured_clients" in recorded:
        config["num_clients"] = recorded["configured_clients"]
    return config


def _configured_model(config: Mapping[str, Any], about: Mapping[str, Any]) -> Any:
    spec, num_classes, task = spec_of(about), about["num_classes"], config.get("task")
    with beside(config.get("code_dir")):
        if config["model"] is None:
            return tasks.make(task, None, num_classes, spec)
        outputs = tasks.num_outputs(task, num_classes, spec)
        shape = tuple(spec["x"].shape)
        model = models.named(config["model"], outputs, shape, config["model_options"])
        # without first weights and adapters of ours, which `fitted_model` adds to the weights
        adapters = config.get("adapters")
        own = adapters if adapters is not None and ":" in name_of(adapters) else None
        model = models.prepared(model, adapters=own, fast_layers=config.get("fast_layers", True))
        return model if task is None else tasks.make(task, model, num_classes, spec)


def spec_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns shapes and dtypes of a row, as the data set had them."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(tuple(leaf["shape"]), leaf["dtype"]),
        about["example"],
        is_leaf=_is_described,
    )


def _is_described(node: Any) -> bool:
    return isinstance(node, dict) and "shape" in node


def _configured_preprocess(config: Mapping[str, Any]) -> Callable[[dict], dict] | None:
    from fljax.config import resolve
    from fljax.config.experiment import make_dataset

    return make_dataset(resolve(config)).preprocess


def _as_task(model: Any, about: Mapping[str, Any]) -> tasks.Task:
    if isinstance(model, tasks.Task):
        return model
    kind = about["kind"] if about["kind"] in tasks.TASKS else "classification"
    return tasks.make(kind, model, about["num_classes"], spec_of(about))


def fitted_model(task: tasks.Task, saved: SavedModel) -> tuple[Any, Any]:
    """Returns a saved model's variables and constants in the structure that the task's own have.

    Args:
      task: What the model was trained for.
      saved: As `fljax.recording.models.load_saved` reads it.

    Raises:
      ValueError: If the model is not one of the task's.
    """
    try:
        params, frozen, model_state = jax.eval_shape(task.init, jax.random.key(0))
    except jax.errors.JAXTypeError:  # it works on the host: with weights from a file, say
        params, frozen, model_state = task.init(jax.random.key(0))
    if has_adapters(saved.frozen) and not has_adapters(frozen):
        saved = _without_adapters(saved, frozen)
    variables = saved.variables._replace(
        params=in_structure_of(params, saved.variables.params),
        model_state=in_structure_of(model_state, saved.variables.model_state),
    )
    return variables, in_structure_of(frozen, saved.frozen)


def _without_adapters(saved: SavedModel, frozen: Any) -> SavedModel:
    """Returns a model whose adapters are added to its weights, with constants as the task's own."""
    flat = traverse_util.flatten_dict(merged(saved.variables.params, saved.frozen))
    constants = {
        path: flat.pop(path) for path in traverse_util.flatten_dict(frozen) if path in flat
    }
    variables = saved.variables._replace(params=traverse_util.unflatten_dict(flat))
    return saved._replace(variables=variables, frozen=traverse_util.unflatten_dict(constants))


def _held(x: Any) -> np.ndarray:
    """Returns examples as they were held in training; a DataFrame as its columns."""
    return narrowed(numbers_of(as_array(x, "x"), "x"), "x")


def _in_batches(outputs: Callable, x: np.ndarray, example: Mapping[str, Any]) -> np.ndarray:
    """Returns the outputs for all rows, computed in batches of one size."""
    shape = tuple(example["x"]["shape"])
    if x.shape[1:] != shape or x.ndim == 0:
        raise ValueError(
            f"x has the shape {x.shape}, but the model was trained on examples of shape {shape}: "
            f"give {('rows', *shape)}."
        )
    # what `preprocess` is given beside x
    y = jax.tree.map(
        lambda described: jnp.zeros((_BATCH_SIZE, *described["shape"]), described["dtype"]),
        example["y"],
        is_leaf=_is_described,
    )
    parts = []
    for start in range(0, max(len(x), 1), _BATCH_SIZE):
        part = x[start : start + _BATCH_SIZE]
        padded = np.zeros((_BATCH_SIZE, *shape), x.dtype)
        padded[: len(part)] = part
        parts.append(np.asarray(outputs({"x": padded, "y": y}))[: len(part)])
    return np.concatenate(parts)

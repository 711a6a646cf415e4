"""Checks a configuration: types and ranges of single keys, then of keys together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fljax.config.schema import FIELDS, ConfigError, unknown_key
from fljax.core.contradictions import (
    ONLY_WITH,
    contradictions,
    has_effect,
    privacy_contradictions,
    robustness_contradictions,
    systems_contradictions,
)
from fljax.core.deprecation import current
from fljax.core.own_modules import beside
from fljax.core.parts import (
    defaults_of,
    name_of,
    parameters_of,
    read,
    read_one,
    untyped,
    written,
)
from fljax.core.settings import COMPRESSION
from fljax.core.values import Field
from fljax.core.values import checked as checked_value

_OF_PARTITIONS = [name for name, (other, _) in ONLY_WITH.items() if other == "partition"]


def partition_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of the configured partition that are set, {name: value}."""
    return {
        name: values[name]
        for name in _OF_PARTITIONS
        if values[name] is not None and has_effect(name, values)
    }


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of all keys, converted, with those set that follow from others.

    Args:
      given: Nested dict; absent keys take their defaults.

    Raises:
      UnknownKeyError, ConfigError: See `fljax.config.resolve`.
    """
    problems: list[ConfigError] = []
    values = _each(given, FIELDS, "", problems)
    if not problems and values["local_epochs"] == 0 and not values["local_steps"]:
        problems.append(
            ConfigError(
                f"local_epochs = 0 and local_steps = {values['local_steps']}: clients need one of "
                "the two to train."
            )
        )
    if not problems:
        try:
            # modules that texts name are imported here, and known to Python from now on
            with beside(values["code_dir"]):
                _check_parts(values)
                values = _filled(values)
                problems += [ConfigError(problem) for problem in _conflicts(values)]
        except ValueError as error:
            problems.append(ConfigError(str(error)))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listing = "".join(f"\n  - {problem}" for problem in problems)
        raise ConfigError(f"{len(problems)} problems in the configuration:{listing}")
    return values


def _each(
    given: Mapping[str, Any],
    fields: Mapping[str, Field | Mapping],
    prefix: str,
    problems: list[ConfigError],
) -> dict[str, Any]:
    """Returns every field's converted value, and adds to `problems`."""
    given = {name if name in fields else current("key", name): given[name] for name in given}
    problems += [unknown_key(name, fields, prefix) for name in given if name not in fields]
    values = {}
    for name, field in fields.items():
        path = prefix + name
        try:
            if isinstance(field, Mapping):
                nested = checked_value(path, given.get(name, {}), Field({}, dict))
                values[name] = _each(nested, field, path + ".", problems)
            else:
                values[name] = checked_value(path, given.get(name, field.default), field)
        except ValueError as problem:
            problems.append(ConfigError(str(problem)))
    return values


def _check_parts(values: Mapping[str, Any]) -> None:
    """Raises ValueError for texts that name no part."""
    from fljax import data, models, tasks  # they import JAX, which defaults do without
    from fljax.data.checks import policy_of
    from fljax.privacy import names
    from fljax.robustness import names as robust
    from fljax.selection.names import check_name
    from fljax.systems import names as systems

    tables = {
        "dataset": data.SOURCES,
        "partition": data.PARTITIONERS,
        "model": models.MODELS,
        "adapters": models.ADAPTERS,
        "task": tasks.TASKS,
        "label_noise": data.NOISES,
        "privacy": names.MECHANISMS,
        "secure_aggregation": names.SECURE_AGGREGATION,
    }
    lists = {"aggregator": robust.AGGREGATORS, "attack": robust.ATTACKS}
    for key, table in tables.items():
        if values[key] is not None:
            read_one(key, values[key], table)
    for key, table in lists.items():
        if values[key] is not None:
            read(key, values[key], table)
    for key in systems.TABLES:
        if values[key] is not None:
            systems.check_name(key, values[key])
    if values["feature_skew"] is not None:
        read("feature_skew", values["feature_skew"], data.SKEWS)
    if values["augmentation"] is not None:
        tasks.augmentation.chain_of(values["augmentation"])
    if values["data_checks"] is not None:
        policy_of(values["data_checks"])
    if values["concept_shift"] is not None:
        read("concept_shift", values["concept_shift"], data.CONCEPTS)
    if values["concept_drift"] is not None:
        read("concept_drift", values["concept_drift"], data.DRIFTS)
    check_name(values["sampler"], values["separation"])


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values with those set that follow from others."""
    from fljax.config.algorithm import own_values

    filled = own_values(values)
    filled |= _clients(values)
    filled |= _partition_defaults(filled)
    if values["held_out_folds"] is not None and values["held_out_fold"] is None:
        # a study over seeds has each fold once
        filled["held_out_fold"] = values["seed"] % values["held_out_folds"]
    if values["model"] is None and _takes_model(values):
        filled["model"] = "softmax_regression"
    filled["batch_size"] = values["batch_size"] or 0
    filled["local_epochs"] = values["local_epochs"] or None
    filled["local_steps"] = values["local_steps"] or None
    if filled["local_epochs"] is None and filled["local_steps"] is None:
        filled["local_epochs"] = 1
    for side in ("client", "server"):
        rounds = f"{side}_lr_decay_rounds"
        if values[rounds] == 0 and values[f"{side}_lr_schedule"] == "cosine":
            filled[rounds] = max(1, values["num_rounds"] - values[f"{side}_lr_warmup_rounds"])
        if values[rounds] == 0 and values[f"{side}_lr_schedule"] == "exponential":
            filled[rounds] = 1
    return filled


def _clients(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the partition and number of clients, as far as the data are ours."""
    from fljax.data.partitions.partition_names import takes_num_clients
    from fljax.data.sources import has_clients

    name, num_clients = values["partition"], values["num_clients"]
    if ":" in name_of(values["dataset"]):
        return {}
    if name is None:
        own = has_clients(values["dataset"], values["dataset_options"])
        name = "natural" if own else "iid"
    if num_clients is None and takes_num_clients(name):
        num_clients = 100
    return {"partition": name, "num_clients": num_clients}


def _partition_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is unset of the options of a partition of ours, as its text or signature says.

    A partitioner of the user's own keeps its own defaults to itself.
    """
    from fljax.data.partitions import partition_names  # it imports JAX, which defaults do without

    if values["partition"] is None:
        return {}
    call = partition_names.call_of(values["partition"])
    if call.is_own:
        return {}
    own = defaults_of(call.function) | written(call, partition_names.OFFERED)
    unset = [name for name in _OF_PARTITIONS if values[name] is None]
    return {name: own[name] for name in unset if name in own and has_effect(name, values)}


def _takes_model(values: Mapping[str, Any]) -> bool:
    from fljax import tasks

    return values["task"] is None or tasks.takes_model(values["task"])


def _conflicts(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with values that are each allowed, and what to do."""
    population, cohort = values["num_clients"], values["clients_per_round"]
    if population is not None and cohort > population:
        yield (
            f"clients_per_round = {cohort} exceeds num_clients = {population}. Lower "
            "clients_per_round or raise num_clients."
        )
    if population is not None and values["eval_clients"] > population:
        yield (
            f"eval_clients = {values['eval_clients']} exceeds num_clients = {population}. Use -1 "
            "to evaluate all clients."
        )
    epochs, steps = values["local_epochs"], values["local_steps"]
    if epochs and steps:
        yield (
            f"local_epochs = {epochs} and local_steps = {steps} exclude each other. Set the one "
            "that does not count to 0."
        )
    most = values["max_local_epochs"]
    if most is not None and (not epochs or most < epochs):
        yield (
            f"max_local_epochs = {most} and local_epochs = {epochs}: clients draw theirs from "
            "local_epochs to max_local_epochs. Set local_epochs to the smaller of two numbers."
        )
    elif values["algorithm"] == "fedsgd" and (epochs != 1 or most not in (None, 1)):
        yield (
            "algorithm = 'fedsgd' takes one gradient over all rows of a client. Set local_epochs = "
            "1, leave local_steps and max_local_epochs unset, or choose 'fedavg'."
        )
    for name, (other, kinds) in ONLY_WITH.items():
        default = FIELDS[name].default
        if values[name] != default and not has_effect(name, values):
            leave = "Leave it unset" if default is None else f"Leave it at {default!r}"
            yield (
                f"{name} = {values[name]!r} has no effect with {other} = {values[other]!r}. "
                f"{leave}, or choose {' or '.join(map(repr, kinds))}."
            )
    yield from _unnamed_by_own_partition(values)
    of_model = ("model", "model_options", "fast_layers", "init_from", "adapters")
    for name in () if _takes_model(values) else of_model:
        if values[name] != FIELDS[name].default:
            yield (
                f"{name} = {values[name]!r} has no effect: task = {values['task']!r} takes no "
                "model. Leave it out, or let the task's function name a parameter `model`."
            )
    yield from _fold_conflicts(values)
    if values["root_rows"] and values["concept_drift"] is not None:
        yield (
            f"root_rows = {values['root_rows']} takes rows for the server once, and concept_drift "
            "lets clients hold others from round to round. Leave one of them out."
        )
    if values["patience"] and values["val_fraction"] == 0:
        yield "patience needs validation data. Set val_fraction, such as 0.1."
    rounds = values["rounds_per_dispatch"]
    if rounds > 1 and values["algorithm"] == "scaffold":
        yield (
            f"rounds_per_dispatch = {rounds} needs clients that keep nothing between rounds, and "
            "those of algorithm = 'scaffold' do. Leave it at 1."
        )
    yield from contradictions(values)
    yield from privacy_contradictions(values)
    yield from robustness_contradictions(values)
    yield from systems_contradictions(values)
    for side in ("client", "server"):
        yield from _schedule_conflicts(side, values)
    yield from _compression_conflicts(values)


def _fold_conflicts(values: Mapping[str, Any]) -> Iterator[str]:
    folds, fold = values["held_out_folds"], values["held_out_fold"]
    if folds is None and fold is not None:
        yield f"held_out_fold = {fold} needs held_out_folds, such as 5."
    if folds is not None and fold is not None and fold >= folds:
        yield f"held_out_fold = {fold}, and {folds} folds are numbered 0 to {folds - 1}."
    if folds is not None and values["held_out_fraction"]:
        yield (
            f"held_out_fraction = {values['held_out_fraction']} and held_out_folds = {folds} both "
            "hold clients out. Leave one of them out."
        )


def _unnamed_by_own_partition(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields the options that are set, and that a partitioner of the user's does not name."""
    from fljax.data.partitions import partition_names

    if ":" not in name_of(values["partition"]):
        return
    call = partition_names.call_of(values["partition"])
    parameters = parameters_of(call.function)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    for name in partition_options(values).keys() - {parameter.name for parameter in parameters}:
        yield (
            f"{name} = {values[name]!r} has no effect with partition = {values['partition']!r}: it "
            f"is {call.name}({', '.join(map(str, untyped(parameters)))}). Leave it unset, or let "
            f"the function name a parameter `{name}`."
        )


def _schedule_conflicts(side: str, values: Mapping[str, Any]) -> Iterator[str]:
    kind, rate, rounds, warmup = (
        values[f"{side}_lr_{key}"]
        for key in ("schedule", "decay_rate", "decay_rounds", "warmup_rounds")
    )
    if kind in ("exponential", "step") and rate == 1:
        yield (
            f"{side}_lr_schedule = {kind!r} needs {side}_lr_decay_rate below 1, such as "
            f"{0.99 if kind == 'exponential' else 0.1}."
        )
    if kind in ("constant", "cosine") and rate != 1:
        yield (
            f"{side}_lr_decay_rate = {rate} has no effect with {side}_lr_schedule = {kind!r}. "
            "Choose 'exponential' or 'step', or leave the rate at 1."
        )
    if kind == "step" and rounds == 0:
        yield f"{side}_lr_schedule = 'step' needs {side}_lr_decay_rounds, such as 100."
    if kind == "constant" and rounds > 0:
        yield (
            f"{side}_lr_decay_rounds = {rounds} has no effect with {side}_lr_schedule = "
            "'constant'. Choose another schedule, or set it to 0."
        )
    if warmup >= values["num_rounds"]:
        yield (
            f"{side}_lr_warmup_rounds = {warmup} must be below num_rounds = {values['num_rounds']}."
        )


def _compression_conflicts(values: Mapping[str, Any]) -> Iterator[str]:
    if all(values[key] == field.default for key, field in COMPRESSION.items()):
        return
    from fljax.compression.names import Names, check

    try:
        check(Names(**{key: values[key] for key in COMPRESSION}))
    except ValueError as error:
        yield str(error)

"""A run's configuration: defaults, files, command-line overrides, and validation at the edge.

A config file is Python and defines one function:

    from fljax.config import default_config

    def get_config():
        config = default_config()
        config.dataset = "mnist"
        config.client_lr = 0.05
        return config

The keys, their defaults and what they may be stand in the table of options, `fljax.core.settings`;
docs/configuration.md explains them.
"""

from __future__ import annotations

import inspect
import os
import re
import runpy
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fljax.config.key_checks import checked
from fljax.config.schema import FIELDS, ConfigError, UnknownKeyError, unknown_key
from fljax.config.shipped import file_and_text
from fljax.core import optional
from fljax.core.deprecation import current
from fljax.core.names import unknown
from fljax.core.parts import importable
from fljax.core.values import Field, wrong
from fljax.core.values import checked as checked_value

if TYPE_CHECKING:
    from ml_collections import ConfigDict

__all__ = [
    "ConfigError",
    "UnknownKeyError",
    "call_in_file",
    "check_overrides",
    "check_setting",
    "default_config",
    "load_config",
    "resolve",
    "to_plain",
    "with_code_dir",
    "with_keys",
]


def default_config() -> ConfigDict:
    """Returns a config with every key at its default.

    It is locked: setting or reading a key that does not exist raises an error that names the
    nearest one. `dataset_options` and `model_options` accept any key.

    Raises:
      ImportError: If ml_collections is not installed.

    Example:
      >>> config = fljax.default_config()
      >>> config.num_rounds = 50
      >>> config.algorithm
      'fedavg'
    """
    config = _new_config(FIELDS).lock()
    for name, field in FIELDS.items():
        if isinstance(field, Field) and field.kind is dict:
            config[name].unlock()
    return config


def check_setting(text: str, known: Sequence[str]) -> None:
    """Checks what stands behind the colon of `file.py:text`, as a config file does first of all.

    Args:
      text: What `get_config` was called with.
      known: The texts that it takes.

    Raises:
      ConfigError: It is none of these; the message names the nearest one.

    Example:
      >>> from fljax import config
      >>> config.check_setting("iid", ("iid", "shards"))
    """
    if text not in known:
        raise ConfigError(f"{unknown('setting', text, known)}.")


def resolve(config: ConfigDict | Mapping[str, Any]) -> ConfigDict:
    """Checks a config and fills in what follows from other keys.

    Keys that are absent take their defaults. Afterwards exactly one of `local_epochs` and
    `local_steps` is set, `batch_size` is an integer (0: all rows in one batch), `num_clients` is
    None only for a natural partition, and the schedules' `..._decay_rounds` are set. Resolving
    twice changes nothing.

    Args:
      config: What `default_config` or `load_config` returned, or a plain nested dict.

    Returns:
      A new, locked config; `config` is left as it is.

    Raises:
      UnknownKeyError: For a key that does not exist.
      ConfigError: For a value of the wrong type or range, or values that contradict each other.
        All problems are reported at once.

    Example:
      >>> from fljax import config
      >>> config.resolve(config.default_config()).client_lr
      0.1
    """
    resolved = default_config()
    resolved.update(checked(_as_dict(config)))
    return resolved


def load_config(path: str | os.PathLike, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Runs a config file and applies overrides; `resolve` the result before use.

    Args:
      path: Python file that defines `get_config()`, or the name of a configuration of ours. As with
        ml_collections, "file.py:text" calls `get_config("text")`.
      overrides: {key: value}, a nested key with dots: {"client_lr": 0.1, "wandb.mode": "offline"}.

    Raises:
      FileNotFoundError: If there is no such file.
      UnknownKeyError: If the file or an override sets a key that does not exist.
      ConfigError: If the file has no `get_config()`, or that returns no config.

    Example:
      >>> fljax.load_config('quickstart', {'num_rounds': 5}).num_rounds
      5
    """
    file = checked_value("path", path, Field(None, str))
    if not isinstance(overrides, Mapping | None):
        raise wrong("overrides", overrides, "{key: value}, or None")
    return with_code_dir(with_keys(_run_config_file(file), overrides or {}), file)


def with_code_dir(config: ConfigDict, path: str | os.PathLike) -> ConfigDict:
    """Returns the config of a file, whose folder holds its modules unless it says otherwise.

    Example:
      >>> from fljax import config
      >>> config.with_code_dir(config.default_config(), 'mine/config.py').code_dir  # doctest: +SKIP
    """
    if config.get("code_dir") is None:
        file, _ = file_and_text(os.fspath(path))
        config.code_dir = os.path.dirname(os.path.abspath(file))
    return config


def with_keys(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Returns the config, changed in place, with the values of some keys.

    Args:
      config: From `default_config` or `load_config`.
      values: {key: value}, a nested key with dots.

    Raises:
      UnknownKeyError: For a key that does not exist.

    Example:
      >>> from fljax import config
      >>> config.with_keys(config.default_config(), {'num_rounds': 5}).num_rounds
      5
    """
    for key, value in values.items():
        group, name = _locate(config, str(key))
        group[name] = value
    return config


def call_in_file(path: str | os.PathLike, function: str) -> Any:
    """Calls a function that a config file defines beside `get_config()`.

    Args:
      path: Python file; "file.py:text" calls the function with "text". Only `get_config` must take
        it: a study may be the same whatever the configuration is.
      function: Its name.

    Returns:
      What it returns, or None where the file does not define it.

    Raises:
      FileNotFoundError: If there is no such file.

    Example:
      >>> from fljax import config
      >>> config.call_in_file('configs/quickstart.py', 'get_config')  # doctest: +SKIP
    """
    file, argument = file_and_text(os.fspath(path))
    with importable(os.path.dirname(os.path.abspath(file))):
        found = runpy.run_path(file).get(function)
        if found is None:
            return None
        takes_text = function == "get_config" or inspect.signature(found).parameters
        return found(argument) if argument and takes_text else found()


def check_overrides(
    argv: Sequence[str], config: ConfigDict | None = None, flag: str = "config"
) -> None:
    """Checks that all `--config.key=value` arguments name keys that exist.

    A script calls this before absl parses its flags, whose own error would not say which key was
    meant.

    Args:
      argv: Command-line arguments, such as `sys.argv`.
      config: What the overrides apply to; by default the file that `--config=PATH` names, which
        is loaded (and its errors raised) if it is there.
      flag: Name of the flag.

    Raises:
      UnknownKeyError: For a key that does not exist.
      FileNotFoundError, ConfigError: From loading the file, see `load_config`.

    Example:
      >>> from fljax import config
      >>> config.check_overrides(['--config.num_rounds=5'])
    """
    if config is None:
        path = _flag_value(argv, flag)
        if path is None:
            return
        config = load_config(path)
    for argument in argv:
        if match := re.match(rf"--?(?:no)?{re.escape(flag)}\.([^=\[]+)", argument):
            _locate(config, match[1])


def to_plain(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config as nested dicts of what JSON can hold; tuples become lists.

    Example:
      >>> from fljax import config
      >>> config.to_plain(config.default_config())['algorithm']
      'fedavg'
    """
    from fljax.recording.jsonio import plain

    return plain(_as_dict(config))


def _new_config(fields: Mapping[str, Field | Mapping]) -> ConfigDict:
    with optional.needed("ml_collections"):
        from ml_collections import config_dict
    from fljax.config.strict import StrictConfigDict

    config = StrictConfigDict(type_safe=False)
    for name, field in fields.items():
        if isinstance(field, Mapping):
            config[name] = _new_config(field)
        elif field.default is None:
            config[name] = config_dict.placeholder(field.kind)
        else:
            config[name] = field.default
    return config


def _as_dict(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    if hasattr(config, "to_dict"):
        return config.to_dict()
    if isinstance(config, Mapping):
        return dict(config)
    raise ConfigError(
        f"A configuration is a ConfigDict or a dict, not {config!r} ({type(config).__name__}). "
        "Start from fljax.config.default_config()."
    )


def _run_config_file(path: str) -> ConfigDict:
    file, argument = file_and_text(path)
    try:
        with importable(os.path.dirname(os.path.abspath(file))):
            get_config = runpy.run_path(file).get("get_config")
            if get_config is None:
                raise ConfigError(f"{file} defines no function get_config().")
            if argument and not inspect.signature(get_config).parameters:
                raise ConfigError(
                    f"get_config() of {file} takes no text, and {argument!r} stands behind its "
                    "colon. Leave it out."
                )
            config = get_config(argument) if argument else get_config()
    except (AttributeError, KeyError) as error:
        # ConfigDict turns the KeyError of `config.key` into an AttributeError.
        cause = error if isinstance(error, UnknownKeyError) else error.__context__
        if not isinstance(cause, UnknownKeyError):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        line = max(frame.lineno for frame in frames if frame.filename == file)
        raise UnknownKeyError(f"{file}, line {line}: {cause}") from None
    if not hasattr(config, "to_dict"):
        raise ConfigError(f"get_config() of {file} returned {config!r}, which is no ConfigDict.")
    return config


def _flag_value(argv: Sequence[str], flag: str) -> str | None:
    for position, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            return value if equals else next(iter(argv[position + 1 :]), None)
    return None


def _locate(config: ConfigDict, path: str) -> tuple[ConfigDict, str]:
    """Returns the group that a dotted key is in and its name there.

    Raises:
      UnknownKeyError: If there is no such key, unless its group accepts any.
    """
    *parents, name = path.split(".")
    group, prefix = config, ""
    for parent in parents:
        if parent not in group:
            raise unknown_key(parent, group.keys(), prefix)
        group, prefix = group[parent], f"{prefix}{parent}."
        if not hasattr(group, "is_locked"):
            raise UnknownKeyError(
                f"Unknown config key {path!r}: {prefix[:-1]!r} is a value and has no keys."
            )
    if name not in group:
        name = current("key", name)
    if group.is_locked and name not in group:
        raise unknown_key(name, group.keys(), prefix)
    return group, name

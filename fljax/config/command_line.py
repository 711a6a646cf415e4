"""Defines the flags of a configuration: `--config=FILE`, `--config.KEY=VALUE`, `--config_help`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from fljax.config import with_code_dir

if TYPE_CHECKING:
    from ml_collections import ConfigDict

HELP = "config_help"


class _OrNone(flags.ArgumentParser):
    """Reads the text None as no value, and leaves all others to another parser."""

    def __init__(self, parser: flags.ArgumentParser):
        self._parser = parser

    def parse(self, argument):
        return None if argument == "None" else self._parser.parse(argument)

    def flag_type(self) -> str:
        return self._parser.flag_type()


def define_config(
    flag_values: flags.FlagValues = flags.FLAGS, argv: Sequence[str] | None = None
) -> flags.FlagHolder:
    """Defines the flags of a configuration.

    `--config.KEY=None` unsets a key, whatever its type.

    Args:
      flag_values: Where the flags are defined.
      argv: The arguments that name keys; by default those of the process.

    Returns:
      The holder of `--config`, whose value is the configuration.
    """
    from ml_collections import config_flags

    parsers = {
        float: flags.FloatParser(),
        int: flags.IntegerParser(),
        bool: flags.BooleanParser(),
        str: flags.ArgumentParser(),
    }
    for kind, parser in parsers.items():
        config_flags.register_flag_parser_for_type(kind, _OrNone(parser))
    flags.DEFINE_bool(
        HELP, False, "Show all keys of a configuration; run nothing.", flag_values=flag_values
    )
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "Configuration file.",
        lock_config=False,
        accept_new_attributes=True,
        flag_values=flag_values,
        sys_argv=argv,
    )


def config_given() -> ConfigDict:
    """Returns the configuration of `--config`, which may name modules beside its file."""
    return with_code_dir(flags.FLAGS.config, config_file())


def config_file() -> str:
    """Returns the text of `--config`: a file, and what its functions are called with."""
    from ml_collections import config_flags

    return config_flags.get_config_filename(flags.FLAGS["config"])

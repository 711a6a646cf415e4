"""The keys of a run's configuration, as the table of options has them, and their errors."""

from __future__ import annotations

from collections.abc import Iterable

from fljax.core.names import foreign, nearest
from fljax.core.settings import GROUPS
from fljax.core.values import Field

# A message has no room for more keys.
_MOST_LISTED = 20


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what to change.

    Example:
      >>> from fljax import config
      >>> issubclass(config.ConfigError, ValueError)
      True
    """


class UnknownKeyError(ConfigError, KeyError):
    """A configuration key that does not exist.

    Example:
      >>> from fljax import config
      >>> issubclass(config.UnknownKeyError, KeyError)
      True
    """

    def __str__(self) -> str:
        return self.args[0]  # KeyError would show its repr


# {key: field, or the fields of a group}; each stands in the table of options.
FIELDS: dict[str, Field | dict[str, Field]] = {
    name: field for group in GROUPS.values() for name, field in group.items()
}


def unknown_key(key: object, known: Iterable[str], prefix: str = "") -> UnknownKeyError:
    """Returns the error for a key that does not exist, naming the one that was probably meant.

    Args:
      key: The key as it was written.
      known: The keys that exist beside it.
      prefix: Path of the nested configuration that it was looked for in, such as "wandb.".
    """
    known = sorted(map(str, known))
    message = f"Unknown config key {prefix + str(key)!r}. "
    if theirs := foreign(key, known):
        message += theirs
    elif near := nearest(key, known):
        message += f"Did you mean {prefix + near!r}?"
    else:
        names = ", ".join(prefix + name for name in known)
        listed = f"Known keys: {names}." if len(known) <= _MOST_LISTED else ""
        message += listed or "All keys: --config_help, or docs/configuration.md."
    return UnknownKeyError(message)

"""A `ConfigDict` whose errors name the key that was meant.

The one module with ml_collections at its top; `fljax.config` imports it when it is first needed.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from fljax.config.schema import unknown_key
from fljax.core.deprecation import current


class StrictConfigDict(ConfigDict):
    """A `ConfigDict` that refuses unknown keys with the nearest known name.

    Types are not checked on assignment: `fljax.config.resolve` does that, for all keys at once and
    in plainer words.
    """

    def __getitem__(self, key: str) -> Any:
        key = self._current(key)
        first = str(key).split(".", 1)[0]
        if first not in self and not first.startswith("_"):
            raise unknown_key(first, self.keys())
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        key = self._current(key)
        if self.is_locked and key not in self:
            raise unknown_key(key, self.keys())
        super().__setitem__(key, value)

    def _current(self, key: str) -> str:
        return key if key in self else current("key", key)

"""Records which entries of a mapping are read: what nobody reads was given in vain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax


class Recorded(dict):
    """A dict that remembers the names that were read of it; reading all of it reads every name.

    Attributes:
      read: The names so far.
    """

    def __init__(self, values: Mapping[str, Any]):
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.read.add(name)
        return super().get(name, default)

    def __iter__(self):
        self.read.update(super().keys())
        return super().__iter__()

    def keys(self):
        self.read.update(super().keys())
        return super().keys()

    def items(self):
        self.read.update(super().keys())
        return super().items()

    def values(self):
        self.read.update(super().keys())
        return super().values()


jax.tree_util.register_pytree_node(
    Recorded,
    lambda mapping: (tuple(mapping.values()), tuple(mapping)),
    lambda names, leaves: dict(zip(names, leaves, strict=True)),
)

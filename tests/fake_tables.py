"""A DataFrame and a Series as far as fljax uses them; neither pandas nor polars is needed."""

import numpy as np


class Index(list):
    def equals(self, other):
        return list(self) == list(other)


class Series:
    def __init__(self, values, index=None):
        self.values = values
        self.index = Index(range(len(values)) if index is None else index)

    def __len__(self):
        return len(self.values)

    def to_numpy(self):
        return np.asarray(self.values)


class Frame:
    def __init__(self, columns, index=None):
        self.parts = dict(columns)
        self.columns = list(self.parts)
        first = next(iter(self.parts.values()))
        self.index = Index(range(len(first)) if index is None else index)

    def __getitem__(self, column):
        return Series(self.parts[column], self.index)

    def __len__(self):
        return len(self.index)

    def to_numpy(self):
        return np.stack([np.asarray(part, object) for part in self.parts.values()], axis=1)

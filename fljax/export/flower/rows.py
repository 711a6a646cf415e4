"""Writes the rows of each client to a file of its own, and reads those that lie on a machine.

    client_00007.npz    x, y (or y/height, ...): what the model sees of each row, in order

A server has no such file, and a node those of its clients. What all of them know of the population
(sizes, shapes, classes) stands in the app.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fljax.core.archives import read_npz
from fljax.core.files import atomic_file
from fljax.data.dataset import FederatedDataset, LazyExamples, Partition, Split, offsets_of
from fljax.data.examples import named_arrays

PyTree = Any

_NAME = re.compile(r"client_(\d+)\.npz")


def write_rows(dataset: FederatedDataset, folder: Path) -> list[Path]:
    """Writes a file of each client that has rows.

    Args:
      dataset: The federated data; rows are written as the model sees them, after `preprocess`.
      folder: Created if absent.

    Returns:
      The files, client after client.

    Example:
      >>> from pathlib import Path
      >>> files = write_rows(data.synthetic(num_clients=3), Path("clients"))
      >>> clients_in("clients")
      [0, 1, 2]
    """
    folder.mkdir(parents=True, exist_ok=True)
    partition, written = dataset.train.partition, []
    for client in np.flatnonzero(partition.sizes).tolist():
        rows = dataset.train.examples.take(partition.rows(client))
        path = folder / f"client_{client:05d}.npz"
        with atomic_file(path) as file:
            np.savez(file, **named_arrays(_seen(dataset, rows)))
        written.append(path)
    return written


def facts_of(dataset: FederatedDataset) -> dict[str, Any]:
    """Returns what all machines know of the data, as JSON values.

    Raises:
      ValueError: For structures that files of rows do not hold.

    Example:
      >>> facts_of(data.synthetic(num_clients=2))["kind"]
      'classification'
    """
    spec = {**dataset.train.examples.spec, **dataset.spec}
    if not all(isinstance(leaf, jax.ShapeDtypeStruct | Mapping) for leaf in spec.values()):
        raise ValueError(
            "Examples of several inputs are a tuple, and files of rows hold names. Give a dict of "
            "arrays, or export with --data=source."
        )
    first = next(iter(dataset.groups.items()), None)
    return {
        "name": dataset.name,
        "kind": dataset.kind,
        "num_classes": dataset.num_classes,
        "sizes": dataset.train.partition.sizes.tolist(),
        "spec": {
            name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in named_arrays(spec).items()
        },
        "groups": {} if first is None else {first[0]: np.asarray(first[1]).tolist()},
        "row_groups": {name: list(values) for name, values in dataset.row_groups.items()},
    }


def dataset_of(
    facts: Mapping[str, Any], folder: str | None, sizes: Mapping[int, int] | None = None
) -> FederatedDataset:
    """Returns the data of a population of which a machine has some clients' rows, or none.

    The rows of all others are zeros: what is built of a federation must not depend on any.

    Args:
      facts: Of `facts_of`.
      folder: Where the machine's files lie; None where it has none.
      sizes: {client: rows} that nodes have told; else those of the files count, then the facts'.
    """
    own = {} if folder is None else _files(folder)
    counts = np.asarray(facts["sizes"], np.int64)
    for client in own:
        if client >= len(counts):
            raise ValueError(
                f"{own[client]} is of client {client}, but the app has clients 0 to "
                f"{len(counts) - 1}. Export a simulation with as many clients."
            )
        counts[client] = len(next(iter(read_npz(own[client]).values())))
    for client, rows in (sizes or {}).items():
        counts[client] = rows
    partition = Partition(offsets_of(counts))
    spec = _nested(
        {
            name: jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
            for name, (shape, dtype) in facts["spec"].items()
        }
    )

    def generate(rows: np.ndarray) -> dict[str, Any]:
        owners = np.searchsorted(partition.offsets, rows, side="right") - 1
        return _taken(spec, own, owners, rows - partition.offsets[owners])

    examples = LazyExamples(partition.num_rows, generate, spec)
    return FederatedDataset(
        name=facts["name"],
        kind=facts["kind"],
        num_classes=facts["num_classes"],
        train=Split(examples, partition),
        groups={name: np.asarray(values) for name, values in facts["groups"].items()},
        row_groups={name: tuple(values) for name, values in facts["row_groups"].items()},
    )


def clients_in(folder: str) -> list[int]:
    """Returns the numbers of the clients whose files lie in a folder.

    Raises:
      FileNotFoundError: If there are none.
    """
    return sorted(_files(folder))


def _files(folder: str) -> dict[int, Path]:
    found = {
        int(match[1]): path
        for path in sorted(Path(folder).glob("client_*.npz"))
        if (match := _NAME.fullmatch(path.name))
    }
    if not found:
        raise FileNotFoundError(
            f"{folder!r} holds no client_00000.npz or others like it. Name the folder of this "
            "node's files: --node-config 'clients=\"/path\"'."
        )
    return found


def _taken(
    spec: PyTree, own: Mapping[int, Path], owners: np.ndarray, places: np.ndarray
) -> dict[str, Any]:
    """Returns {name: array} of rows, each of its owner's file; zeros for those of others."""
    out = {
        name: np.zeros((len(owners), *leaf.shape), leaf.dtype)
        for name, leaf in named_arrays(spec).items()
    }
    for client in np.intersect1d(owners, list(own)).tolist():
        mine, arrays = owners == client, read_npz(own[client])
        for name, values in out.items():
            values[mine] = arrays[name][places[mine]]
    return _nested(out)


def _seen(dataset: FederatedDataset, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Returns rows as the model sees them."""
    if dataset.preprocess is None:
        return dict(rows)
    seen = dataset.preprocess({name: rows[name] for name in rows if name != "groups"})
    return {**rows, **jax.device_get(seen)}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {"y/height": array} as {"y": {"height": array}}."""
    out: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        place = out
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return out

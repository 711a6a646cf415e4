"""Takes over data sets that are objects of other libraries: Hugging Face, Flower, PyTorch, BioSilo.

Nothing of these libraries is imported: their objects are known by what they can do. Rows pass
through a temporary cache, so that no more than a block of them lies in memory beside the result.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fljax.core.values import wrong
from fljax.data.dataset import FederatedDataset
from fljax.data.ids import as_ids
from fljax.data.readers.blocks import Opened, Reading, skipping
from fljax.data.readers.cache import cached
from fljax.data.readers.fields import Fields
from fljax.data.readers.gathering import gathered
from fljax.data.readers.options import How, how, with_how
from fljax.data.readers.records import Record, dataset_of, split_names

_BATCH = 512


@with_how
def from_huggingface(
    dataset: Any,
    *,
    test: Any = None,
    client: str | None = None,
    splits: Mapping[str, str] | None = None,
    how: How,
    name: str = "huggingface",
    **clients,
) -> FederatedDataset:
    """Makes a federated dataset of one of Hugging Face's `datasets`, or of Flower's partitions.

    Args:
      dataset: A `Dataset`; a `DatasetDict`, whose splits are taken; or a list of `Dataset`, one a
        client, such as `[fds.load_partition(i) for i in range(10)]` of flwr-datasets.
      test: The same of test rows, where `dataset` has no splits: a `Dataset` of all, or a list.
      client: The column of client ids, integers or texts.
      splits: {"train" | "val" | "test": its name in a `DatasetDict`}. Default: the names say it.
      how: The options of `fljax.data.readers.options.how`, by their names: features, label, target,
        shape, dtype, text and so on are of columns. Images become uint8[height, width, channels];
        the names of a `ClassLabel` become those of classes.
      name: For logs and records.
      **clients: As in `from_arrays`.

    Raises:
      ValueError: If the columns do not fit, or this is no such object.

    Example:
      >>> dataset = data.from_huggingface(load_dataset('mnist'), num_clients=100)  # doctest: +SKIP
    """
    if isinstance(dataset, Mapping):
        named = split_names(list(dataset), splits, "the DatasetDict")
        parts = {split: dataset[key] for split, key in named.items()}
    elif splits is not None:
        raise ValueError("splits names those of a DatasetDict, and this is none: leave it out")
    else:
        parts = {"train": dataset}
    if test is not None:
        parts["test"] = test
    owned = {split: _owned(part) for split, part in parts.items()}
    for split, some in owned.items():
        for _, part in some:
            if not hasattr(part, "column_names"):
                raise wrong(split, part, "a Dataset of Hugging Face, or a list of them")
    names = _class_names(owned["train"][0][1], how.fields)
    if names is not None:
        clients = {"class_names": names, **clients}

    def records() -> Iterator[Record]:
        for split, some in owned.items():
            for owner, part in some:
                yield from _rows_of_huggingface(part, split, owner, client)

    is_natural, owned_test = (
        client is not None or owned.get(split, [(None, None)])[0][0] is not None
        for split in ("train", "test")
    )
    known = {"natural": is_natural, "owned_test": owned_test}
    return _dataset(records, how, name, {**known, **clients})


@with_how
def from_torch(
    dataset: Any,
    *,
    test: Any = None,
    client_ids: Any = None,
    test_client_ids: Any = None,
    channels_first: bool | None = None,
    how: How,
    name: str = "torch",
    **clients,
) -> FederatedDataset:
    """Makes a federated dataset of a map-style data set of PyTorch, with the transforms it has.

    Args:
      dataset: Has `len()`, and `dataset[i]` is (x, y), or a dict of tensors, arrays, numbers or
        images; or a list of such, one a client, as `torch.utils.data.random_split` makes them.
      test: The same of test rows.
      client_ids: [rows] integers or texts; not with a list.
      test_client_ids: [rows of `test`].
      channels_first: Whether an x is [channels, height, width], as PyTorch has images; channels are
        then put last, where models here have them. It must be said of what looks like that.
      how: The options of `fljax.data.readers.options.how`, by their names: features, label, target,
        dtype, text and so on are of dicts. Of pairs, "y" is the second one: `target="y"` says that
        it is a number.
      name: For logs and records.
      **clients: As in `from_arrays`.

    Raises:
      ValueError: If items are of another form, or do not fit the arguments.

    Example:
      >>> pairs = [(np.ones(3) * i, i % 2) for i in range(6)]
      >>> data.from_torch(pairs, client_ids=[0, 0, 0, 1, 1, 1])
      FederatedDataset('torch': classification, 2 classes, 2 clients, rows: train 6)
    """
    parts = {"train": (dataset, client_ids), "test": (test, test_client_ids)}
    owned = {
        split: _torch_owned(part, ids, split)
        for split, (part, ids) in parts.items()
        if part is not None
    }
    if test is None and test_client_ids is not None:
        raise ValueError("test_client_ids were given without test")

    def records() -> Iterator[Record]:
        for split, some in owned.items():
            for owners, part in some:
                yield from _rows_of_torch(part, split, owners, channels_first)

    is_natural, owned_test = (
        owned.get(split, [(None, None)])[0][0] is not None for split in ("train", "test")
    )
    known = {"natural": is_natural, "owned_test": owned_test}
    return _dataset(records, how, name, {**known, **clients})


def from_biosilo(
    partition: Any,
    *,
    features: str | None = None,
    target: bool = False,
    name: str | None = None,
    **clients,
) -> FederatedDataset:
    """Makes a federated dataset of a partition of BioSilo; its clients are the natural ones.

    Args:
      partition: What `biosilo.load(...)` returns; its test rows are over the same clients. Its
        groups, such as patients, are subjects: their rows stay together wherever rows are divided.
      features: The input that becomes x, where the data have several.
      target: Whether y is a number to be predicted, and no class.
      name: For logs and records. Default: the data set's.
      **clients: As in `from_arrays`.

    Raises:
      ValueError: If there are several inputs and none is named, or this is no partition.

    Example:
      >>> dataset = data.from_biosilo(biosilo.load('synthetic'))  # doctest: +SKIP
    """
    if not callable(getattr(partition, "client", None)) or not hasattr(partition, "client_ids"):
        raise wrong("partition", partition, "what biosilo.load(...) returns")
    ids = [str(client) for client in partition.client_ids]

    def records() -> Iterator[Record]:
        for split in ("train", "test"):
            for number, client in enumerate(ids):
                x, y, subjects = partition.client(number, split)
                inputs = x._asdict() if hasattr(x, "_asdict") else {"x": x}
                beside = {}
                if subjects is not None:  # they are numbered client by client
                    of_rows = as_ids(subjects, len(y), "groups").tolist()
                    beside["subject"] = np.array([f"{client}/{subject}" for subject in of_rows])
                where = f"client {client!r}, {split}"
                yield Record(split, client, {**inputs, "y": y}, where, beside)

    of_y = {"target": "y"} if target else {"label": "y"}
    chosen = how(features=features, **of_y)
    return _dataset(records, chosen, name or str(partition.dataset), clients)


def _dataset(
    records: Callable[[], Iterable[Record]],
    chosen: How,
    name: str,
    clients: Mapping[str, Any],
) -> FederatedDataset:
    def opened() -> Opened:
        found = chosen.reader(records, repr(name))
        return Opened(skipping(lambda: gathered(found.pieces(records()))), found.facts)

    # arrays that are mapped stay readable when their files are gone
    with tempfile.TemporaryDirectory(prefix="fljax-", ignore_cleanup_errors=True) as folder:
        cache = cached(Reading("objects", [], {}, opened), folder)
        return dataset_of(cache, name, {"num_classes": chosen.num_classes, **clients})


def _owned(part: Any) -> list[tuple[int | None, Any]]:
    """Returns (number of the client or None, data set) of a data set, or of a list of them."""
    if isinstance(part, list | tuple):
        if not part:
            raise ValueError("a list of data sets, one a client, is empty")
        return list(enumerate(part))
    return [(None, part)]


def _torch_owned(part: Any, ids: Any, split: str) -> list[tuple[Any, Any]]:
    """Returns (ids of the rows, number of the client or None; data set), see `_owned`."""
    is_list = isinstance(part, list | tuple) and part and _is_map_style(part[0])
    owned = _owned(part) if is_list else [(None, part)]
    for _, some in owned:
        if not hasattr(some, "__len__") or not hasattr(some, "__getitem__"):
            raise wrong(split, some, "a map-style data set (len() and [i]), or a list of them")
    if ids is None:
        return owned
    if is_list:
        raise ValueError("client_ids are for one data set, and a list has one for each client")
    name = "client_ids" if split == "train" else "test_client_ids"
    return [(as_ids(ids, len(part), name), part)]


def _is_map_style(item: Any) -> bool:
    """Returns whether an item of a list is a data set, and no example."""
    is_example = isinstance(item, tuple | Mapping) or hasattr(item, "dtype")
    return not is_example and hasattr(item, "__len__") and hasattr(item, "__getitem__")


def _class_names(part: Any, wanted: Fields) -> list[str] | None:
    kinds = getattr(part, "features", None) or {}
    y = wanted.label or next((key for key in ("label", "y") if key in kinds), None)
    return None if wanted.target else getattr(kinds.get(y), "names", None)


def _rows_of_huggingface(part, split: str, owner, client: str | None) -> Iterator[Record]:
    names = list(part.column_names)
    if client is not None and client not in names:
        raise ValueError(f"{split}: there is no column {client!r}, but these: {', '.join(names)}")
    if hasattr(part, "with_format"):
        part = part.with_format("numpy")
    for begin in range(0, len(part), _BATCH):
        batch = part[begin : begin + _BATCH]
        found = {key: _column([_plain(value) for value in batch[key]]) for key in names}
        where = f"{split}, rows from {begin:,}" + (
            f" of client {owner}" if owner is not None else ""
        )
        rows = len(batch[names[0]])
        ids = np.zeros(rows, np.int64) if owner is None else np.full(rows, owner)
        if client is not None:
            ids = np.asarray(found.pop(client))
        yield Record(split, ids, found, where)


def _rows_of_torch(part, split: str, owners, channels_first) -> Iterator[Record]:
    for begin in range(0, len(part), _BATCH):
        where = f"{split}, rows from {begin:,}"
        items = [_named(part[row], where) for row in range(begin, min(begin + _BATCH, len(part)))]
        found = {key: _column([_plain(item[key]) for item in items]) for key in items[0]}
        for key, values in found.items():
            if isinstance(values, np.ndarray) and values.ndim == 4:
                found[key] = _channels_last(values, channels_first, where)
        if isinstance(owners, np.ndarray):
            ids = owners[begin : begin + len(items)]
        else:
            ids = np.full(len(items), owners or 0)
        yield Record(split, ids, found, where)


def _named(item: Any, where: str) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        return item
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise ValueError(
            f"{where}: an item must be (x, y) or a dict, not {type(item).__name__}"
            + (f" of {len(item)}" if isinstance(item, tuple | list) else "")
        )
    return dict(zip(("x", "y"), item, strict=True))


def _plain(value: Any) -> Any:
    """Returns a tensor, an image or a number as NumPy has it; texts stay texts."""
    if isinstance(value, str | bytes):
        return value.decode() if isinstance(value, bytes) else str(value)
    array = np.asarray(value)
    is_image = hasattr(value, "getbands") or (array.dtype == np.uint8 and array.ndim == 2)
    return array[..., None] if is_image and array.ndim == 2 else array


def _column(values: list) -> Any:
    if isinstance(values[0], str):
        return values
    shapes = {np.shape(value) for value in values}
    if len(shapes) > 1:
        some = ", ".join(str(list(shape)) for shape in itertools.islice(sorted(shapes), 3))
        raise ValueError(f"examples are of unlike shapes, such as {some}: resize, pad or cut them")
    return np.stack(values)


def _channels_last(x: np.ndarray, channels_first: bool | None, where: str) -> np.ndarray:
    looks_first = x.shape[1] in (1, 3) and x.shape[3] not in (1, 3)
    if channels_first is None and looks_first:
        raise ValueError(
            f"{where}: an x is {list(x.shape[1:])}, which looks like [channels, height, width], "
            "and models have channels last: say channels_first=True, which moves them, or False"
        )
    return np.moveaxis(x, 1, -1) if channels_first else x

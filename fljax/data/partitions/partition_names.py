"""Partitioners by name: those of the library, calls of them, and functions of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fljax.core import parts
from fljax.core.names import nearest
from fljax.core.values import shown
from fljax.data.dataset import Partition
from fljax.data.partitions.dirichlet import dirichlet, dirichlet_hsu, dirichlet_per_client
from fljax.data.partitions.pachinko import pachinko, quantity_label
from fljax.data.partitions.partition import classes_per_client, iid, natural, quantity, shards
from fljax.data.partitions.partition_arguments import row_count
from fljax.data.partitions.pfllib import pfllib_dirichlet, pfllib_pathological
from fljax.data.splits.own_rows import limited

# name -> function (labels, num_clients, *, seed, **options) -> Partition
PARTITIONERS: dict[str, Callable[..., Partition]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "dirichlet_hsu": dirichlet_hsu,
    "dirichlet_per_client": dirichlet_per_client,
    "shards": shards,
    "classes_per_client": classes_per_client,
    "quantity": quantity,
    "quantity_label": quantity_label,
    "pachinko": pachinko,
    "pfllib_pathological": pfllib_pathological,
    "pfllib_dirichlet": pfllib_dirichlet,
    "natural": natural,
}


# What a partitioner may name of what the data are.
OFFERED = ("labels", "num_clients", "seed", "client_ids")


def make_partition(
    name: str, labels: np.ndarray | int, num_clients: int | None, seed: int = 0, **options
) -> Partition:
    """Builds a partition by name.

    Args:
      name: A key of `PARTITIONERS`, a call of one such as "dirichlet(alpha=0.1)", or
        "module:function" of your own, which gets those of `labels`, `num_clients`, `seed` and
        `client_ids` (of the rows, where the data have them) that it names, and returns a
        `Partition`.
      labels: int[rows], or the number of rows where labels play no part.
      num_clients: N; None for natural clients, and for functions that do not name it.
      seed: Chooses the partition.
      **options: The partitioner's own arguments, such as `alpha` or `min_partition_size`, and
        `rows_per_client`: partitioners that do not name it are made first, and of each client a
        sample, stratified by label, is kept.

    Raises:
      ValueError: If the name, an option or a value is not known or not possible.

    Example:
      >>> partition = data.make_partition('dirichlet', np.arange(12) % 3, 3, alpha=0.5)
      >>> int(partition.sizes.sum())
      12
    """
    ids = options.pop("client_ids", None)
    names = [parameter.name for parameter in parts.parameters_of(call_of(name).function)]
    if ids is not None and "client_ids" not in names:
        raise ValueError(f"the {name} partition takes no client_ids: leave them out")
    return named_partition(name, labels, num_clients, seed, ids, options)


def named_partition(
    text: str,
    labels: np.ndarray | int,
    num_clients: int | None,
    seed: int,
    client_ids: np.ndarray | None,
    options: Mapping[str, Any],
) -> Partition:
    """Builds a partition as `make_partition` does, for rows whose ids need not play a part."""
    call, options = call_of(text), dict(options)
    if not _names(call, "rows_per_client"):
        rows = options.pop("rows_per_client", None)
        if rows is not None:
            whole = named_partition(text, labels, num_clients, seed, client_ids, options)
            return limited(whole, labels, rows, seed)
    offered = {"labels": labels, "seed": seed}
    if client_ids is not None:
        offered["client_ids"] = client_ids
    if num_clients is None and takes_num_clients(text):
        raise ValueError(f"the {call.name} partition needs num_clients")
    needed = []
    if num_clients is not None:
        offered["num_clients"], needed = num_clients, ["num_clients"]
    if not call.is_own:
        return call.function(**parts.bound(call, offered=offered, given=options, needed=needed))
    found = parts.make(call, offered=offered, given=options, needed=needed)
    _check_own(call, found, row_count(labels), num_clients)
    return found


def check_options(partition: Any, options: Mapping[str, Any], taker: Callable) -> None:
    """Refuses options that are nearer to arguments of who passes them on than to the partition's.

    Args:
      partition: The name of one, a `Partition`, or None.
      options: {name: value} of the partition.
      taker: Who takes them beside arguments of its own.
    """
    if (policy := options.get("data_checks")) is not None:
        raise ValueError(
            f"data_checks = {shown(policy)} is of data.load and of configurations. Of arrays make "
            f"the dataset first, then data.checked(dataset, {shown(policy)})"
        )
    # without a name the data have clients of their own, or are dealt evenly
    chosen = [partition] if isinstance(partition, str) else ["natural", "iid"]
    chosen = [] if isinstance(partition, Partition) else chosen
    named = [each for name in chosen for each in parts.parameters_of(call_of(name).function)]
    if any(each.kind is each.VAR_KEYWORD for each in named):
        return
    known = [*(each.name for each in named), "rows_per_client"]
    own = [each.name for each in parts.parameters_of(taker)]
    for name, value in options.items():
        near = nearest(name, [*known, *own])
        if name not in known and near in own:
            raise ValueError(
                f"{taker.__name__} has no argument {name!r} = {shown(value)}. Did you mean "
                f"{near!r}?"
            )


def call_of(text: str) -> parts.Call:
    """Returns the partitioner that a text names; raises ValueError where there is none."""
    return parts.read_one("partition", text, PARTITIONERS)


def _names(call: parts.Call, parameter: str) -> bool:
    return any(each.name == parameter for each in parts.parameters_of(call.function))


def is_natural_name(text: str | None) -> bool:
    """Returns whether a text names the natural partition."""
    return text is not None and parts.name_of(text) == "natural"


def takes_num_clients(text: str) -> bool:
    """Returns whether a partitioner must be told the number of clients."""
    parameters = {each.name: each.default for each in parts.parameters_of(call_of(text).function)}
    return parameters.get("num_clients", None) is inspect.Parameter.empty


def _check_own(call: parts.Call, found: Any, num_rows: int, num_clients: int | None) -> None:
    """Raises FailedCall for what is no partition of these rows among so many clients."""
    if not isinstance(found, Partition):
        raise parts.FailedCall(
            f"{call.where}: {call.name} returned {shown(found)} ({type(found).__name__}), and a "
            "partition is a fljax.data.Partition(offsets, index)."
        )
    if num_clients not in (None, found.num_clients):
        raise parts.FailedCall(
            f"{call.where}: {call.name} made {found.num_clients} clients, and num_clients = "
            f"{num_clients} were asked for."
        )
    rows = found.all_rows()
    if rows.size and not 0 <= rows.min() <= rows.max() < num_rows:
        raise parts.FailedCall(
            f"{call.where}: {call.name} gives rows {rows.min()} to {rows.max()}, and the data have "
            f"rows 0 to {num_rows - 1}."
        )
    if np.bincount(rows, minlength=1).max() > 1:
        row = np.bincount(rows).argmax()
        raise parts.FailedCall(
            f"{call.where}: {call.name} gives row {row} more than once; a row has one client."
        )

"""Federated data: flat arrays of examples, and partitions that say who owns which rows.

A dataset never holds one Python object per client. All examples live in one place (`Examples`), and
a `Partition` is two arrays: client i owns the rows `index[offsets[i]:offsets[i+1]]`. Several
partitions can therefore share one copy of the data, and a cohort's rows are found by one gather.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from fljax.core.digits import counted
from fljax.core.gradients import Population
from fljax.data.examples import ArrayExamples, Examples, LazyExamples, shapes
from fljax.data.ids import as_ids
from fljax.data.ownership import Partition, joined, offsets_of, partition_by_owner

if TYPE_CHECKING:
    from fljax.data.heterogeneity.label_noise import NoisyLabels

__all__ = [
    "ArrayExamples",
    "Examples",
    "FederatedDataset",
    "LazyExamples",
    "Partition",
    "Split",
    "joined",
    "offsets_of",
    "partition_by_owner",
]

Preprocess = Callable[[dict[str, Any]], dict[str, Any]]
KINDS = ("classification", "next_token", "targets")
# The splits of a dataset.
ROLES = ("train", "val", "test", "held_out", "held_out_train")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Examples, and who owns them.

    Attributes:
      examples: All examples; a partition may own only some of their rows.
      partition: Over the clients, or None for a global set that nobody owns.

    Raises:
      ValueError: If the partition names rows that do not exist.

    Example:
      >>> len(data.synthetic(num_clients=3).train.partition.sizes)
      3
    """

    examples: Examples
    partition: Partition | None = None

    def __post_init__(self):
        partition, available = self.partition, self.examples.num_examples
        if partition is None or not partition.num_rows:
            return
        index = partition.index
        low, high = (0, partition.num_rows - 1) if index is None else (index.min(), index.max())
        if not 0 <= low <= high < available:
            raise ValueError(
                f"the partition names rows {low}..{high}, but there are {available} examples"
            )

    def __repr__(self) -> str:
        partition = self.partition
        owners = "" if partition is None else f" over {counted(partition.num_clients, 'client')}"
        return f"Split({counted(self.num_rows, 'row')}{owners}: {shapes(self.examples.spec)})"

    @property
    def num_rows(self) -> int:
        return self.examples.num_examples if self.partition is None else self.partition.num_rows

    def rows(self) -> np.ndarray:
        """Returns all rows of the split, client after client where clients own them."""
        if self.partition is None:
            return np.arange(self.examples.num_examples)
        return self.partition.all_rows()

    def unowned(self) -> Split:
        """Returns the same rows as a global set that nobody owns."""
        examples = self.examples
        if self.partition is None or self.num_rows == examples.num_examples:
            return Split(examples)
        rows = self.rows()
        if isinstance(examples, ArrayExamples):
            return Split(ArrayExamples(examples.take(rows)))
        return Split(LazyExamples(len(rows), lambda r: examples.take(rows[r]), examples.spec))


def _check_alike(name: str, train: Split, held_out: Split | None) -> None:
    """Raises ValueError unless held-out clients have rows to adapt to and rows to be judged on."""
    partitions = [split and split.partition for split in (train, held_out)]
    clients = [partition and partition.num_clients for partition in partitions]
    if clients[0] is None or clients[0] != clients[1]:
        raise ValueError(
            f"held_out_train of {name!r} is over {clients[0] or 'no'} clients and held_out over "
            f"{clients[1] or 'no'}: both must be rows of the same held-out clients"
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FederatedDataset:
    """A population's data.

    Attributes:
      name: For logs and records.
      kind: "classification" (y is one label), "next_token" (y is a sequence of token ids, 0 is
        padding), or "targets" (y is whatever a task of one's own learns: an array of any type, or a
        dict or tuple of arrays).
      num_classes: Number of labels, or the size of the vocabulary; None of targets without classes.
      train: Partitioned over the N clients.
      val: Rows split off inside the training data, partitioned over the same N clients (global
        after `repartition`), or None.
      test: Global (partition None) or partitioned over the same N clients, or None.
      held_out: Clients that never train, on a client axis of their own, or None.
      held_out_train: Further rows of the clients of `held_out`, which adapt a model to them before
        it is judged on those, or None.
      client_ids: [N] the clients' names in the source, as they were given there, or None where the
        clients are synthetic.
      held_out_ids: [clients of `held_out`] their names, or None.
      groups: {name: [N] group of each client, numbers or strings}, such as hospital or domain.
      held_out_groups: {name: [clients of `held_out`] group of each}.
      class_names: The name of each class, where labels came as texts, or of each token: prediction
        k means `class_names[k]`. None where labels were numbers.
      dropped: {split: rows} that were left out when the data were loaded, since a value of theirs
        was missing or not finite.
      row_groups: {name: the name of each value} of groups of rows, such as sex, which cut across
        clients and which the model does not see. Examples then have {"groups": {name: [R] number
        of each row's value}} beside x and y, in every split. Metrics are reported by group.
      checks: What checks of the data found, and what was left out for it; see `data.checked`.
      subjects: int[rows of the training examples] number of each row's subject, such as a patient,
        whose rows stay together however they are divided; None where rows stand for themselves.
      noisy_labels: Which training rows have wrong labels, where labels were made wrong; see
        `with_label_noise`.
      preprocess: JAX function that maps a gathered batch {"x", "y"}, with any leading axes, to what
        the model sees; it is compiled into the round program, so that raw uint8 stays in memory.
        None for the identity.
      feature_names: The name of each feature of an x that was columns of a table, or None.
      root: The client that is the server's own and none of the population: the last one, whose
        rows are clean; see `with_root`. None where the server has no rows.

    Example:
      >>> data.synthetic(num_clients=3).num_clients
      3
    """

    name: str
    kind: str
    num_classes: int | None
    train: Split
    val: Split | None = None
    test: Split | None = None
    held_out: Split | None = None
    client_ids: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    preprocess: Preprocess | None = None
    held_out_ids: np.ndarray | None = None
    held_out_groups: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    row_groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    held_out_train: Split | None = None
    checks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    feature_names: tuple[str, ...] | None = None
    subjects: np.ndarray | None = None
    noisy_labels: NoisyLabels | None = None
    root: int | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if (self.num_classes is None) != (self.kind == "targets"):
            raise ValueError(
                f"num_classes = {self.num_classes} does not go with kind = {self.kind!r}: targets "
                "have None, the other kinds the number of their classes"
            )
        if self.train.partition is None:
            raise ValueError(f"the training data of {self.name!r} need a partition over clients")
        for role, split in (("val", self.val), ("test", self.test)):
            partition = split and split.partition
            if partition is not None and partition.num_clients != self.num_clients:
                raise ValueError(
                    f"the {role} split of {self.name!r} has {partition.num_clients} clients, the "
                    f"training data have {self.num_clients}"
                )
        if self.held_out_train is not None:
            _check_alike(self.name, self.held_out_train, self.held_out)
        for name, values in self.groups.items():
            if len(values) != self.num_clients:
                raise ValueError(
                    f"the groups {name!r} of {self.name!r} have {len(values)} entries, one for "
                    f"each client, but the training data have {self.num_clients} clients"
                )
        _check_root(self)
        _check_row_groups(self)
        if self.subjects is not None:
            _check_subjects(self)
        groups = {
            name: as_ids(values, self.num_clients, f"groups[{name!r}]")
            for name, values in self.groups.items()
        }
        object.__setattr__(self, "groups", groups)
        held_out = self.held_out and self.held_out.partition
        for name, ids, clients in (
            ("client_ids", self.client_ids, self.num_clients),
            ("held_out_ids", self.held_out_ids, held_out and held_out.num_clients),
            ("class_names", self.class_names, self.num_classes),
            *(
                (f"held_out_groups[{name!r}]", values, held_out and held_out.num_clients)
                for name, values in self.held_out_groups.items()
            ),
        ):
            if ids is not None and len(ids) != clients:
                raise ValueError(
                    f"{self.name!r} has {len(ids)} {name}, but {clients} of their kind"
                )

    def __repr__(self) -> str:
        rows = ", ".join(
            f"{role} {split.num_rows:,}"
            for role in ROLES
            if (split := getattr(self, role)) is not None
        )
        return (
            f"FederatedDataset({self.name!r}: {self.kind}{self._classes}, "
            f"{counted(self.members, 'client')}{self._root}, rows: {rows})"
        )

    @property
    def _classes(self) -> str:
        return "" if self.num_classes is None else f", {self.num_classes:,} classes"

    @property
    def _root(self) -> str:
        return "" if self.root is None else " and the server's own"

    @property
    def num_clients(self) -> int:
        """Number of clients that train, the server's own among them."""
        return self.train.partition.num_clients

    @property
    def members(self) -> int:
        """Number of clients of the population, without the server's own."""
        return self.num_clients if self.root is None else self.root

    @property
    def population(self) -> Population:
        """Facts about the population that algorithms may know before they train."""
        first = next(iter(self.groups.values()), ())
        row_groups = {name: len(values) for name, values in self.row_groups.items()}
        return Population(self.num_clients, len(np.unique(first)), self.num_classes, row_groups)

    @property
    def spec(self) -> dict[str, Any]:
        """{name: shape and dtype} of one example as the model sees it, after `preprocess`."""
        spec = dict(self.train.examples.spec)
        return spec if self.preprocess is None else dict(jax.eval_shape(self.preprocess, spec))

    @property
    def moves(self) -> bool:
        """Says whether what clients own changes from round to round."""
        return self.train.partition.motion is not None

    def at(self, round: int) -> FederatedDataset:
        """Returns the dataset of what clients own in a round."""
        splits = {role: getattr(self, role) for role in ROLES}
        now = {
            role: dataclasses.replace(split, partition=split.partition.at(round))
            for role, split in splits.items()
            if split is not None and split.partition is not None
        }
        return dataclasses.replace(self, **now) if self.moves else self

    def repartition(self, partition: Partition) -> FederatedDataset:
        """Returns the same training data divided among other clients.

        Client ids and groups belonged to the old clients and are dropped; validation and test rows
        that the old clients owned become global sets. Held-out clients stay.

        Raises:
          ValueError: If the partition reaches beyond the examples, or takes validation rows, or
            what clients own changes over the rounds.
        """
        check_stays(self, "divided among other clients")
        train = Split(self.train.examples, partition)
        if self.val is not None and np.isin(self.val.rows(), partition.all_rows()).any():
            raise ValueError(
                "the partition takes rows that were split off for validation: divide "
                "dataset.train.rows(), or repartition before with_validation"
            )
        return dataclasses.replace(
            self,
            train=train,
            val=self.val and self.val.unowned(),
            test=self.test and self.test.unowned(),
            client_ids=None,
            groups={},
        )

    def with_validation(self, fraction: float, seed: int = 0) -> FederatedDataset:
        """Splits validation rows off inside every client's training data.

        Each client gives the same share of its rows, rounded at random so that the overall
        fraction is right even where clients hold a handful of rows. Every client keeps at least one
        training row; what the smallest cannot give, the others do. Builds an explicit row index
        (4 or 8 bytes a row), also for lazily generated data.

        Args:
          fraction: Of all training rows, in (0, 1).
          seed: Chooses the rows.

        Returns:
          The dataset with fewer training rows, and `val` over the same clients and examples.

        Raises:
          ValueError: If there is a validation split already, or if the clients cannot spare so
            many rows.
        """
        from fljax.data.splits.validation import split_validation

        check_stays(self, "split off for validation")
        if self.val is not None:
            raise ValueError(f"{self.name!r} has a validation split already")
        train, val = split_validation(self.train.partition, fraction, seed, self.subjects)
        examples = self.train.examples
        return dataclasses.replace(self, train=Split(examples, train), val=Split(examples, val))

    def describe(self) -> str:
        """Returns a few lines for people: splits, clients, rows per client, example shapes."""
        from fljax.data.description import described

        return described(self)


def check_stays(dataset: FederatedDataset, what: str) -> None:
    """Refuses rows that change over the rounds where they would be changed or divided once.

    So it does where the server has taken root rows, which come last of all.
    """
    check_has_no_root(dataset, what)
    check_moves_not(dataset, what)


def check_moves_not(dataset: FederatedDataset, what: str) -> None:
    """Refuses rows that change over the rounds where they would be changed once."""
    if dataset.moves:
        raise ValueError(
            f"rows of {dataset.name!r} drift over the rounds, and cannot be {what} any more: do "
            "that first, and let them drift last"
        )


def check_has_no_root(dataset: FederatedDataset, what: str) -> None:
    """Refuses to change clients or rows behind those that the server has taken."""
    if dataset.root is not None:
        raise ValueError(
            f"the server of {dataset.name!r} has root rows, and clients and rows cannot be {what} "
            "any more: do that first, and take root rows last"
        )


def _check_root(dataset: FederatedDataset) -> None:
    """Refuses a root that is not the last client, or that owns rows to be judged on."""
    root = dataset.root
    if root is None:
        return
    if root != dataset.num_clients - 1 or not dataset.train.partition.sizes[-1]:
        raise ValueError(
            f"root = {root} of {dataset.name!r} must be the last of {dataset.num_clients} clients, "
            "and have training rows: fljax.data.with_root(dataset) makes it so"
        )
    for role in ("val", "test"):
        partition = (split := getattr(dataset, role)) and split.partition
        if partition is not None and partition.sizes[root]:
            raise ValueError(
                f"the root of {dataset.name!r} owns {role} rows, and is no client to be judged"
            )


def _check_subjects(dataset: FederatedDataset) -> None:
    """Refuses subjects that are none of the rows, or whose rows are parted."""
    from fljax.data.splits.subjects import check_together

    examples = dataset.train.examples
    if dataset.subjects.shape != (examples.num_examples,):
        raise ValueError(
            f"{dataset.name!r} has the subjects of {len(dataset.subjects)} rows, and "
            f"{examples.num_examples} training examples"
        )
    sides = {role: getattr(dataset, role) for role in ROLES}
    shared = {role: side for role, side in sides.items() if side and side.examples is examples}
    check_together(dataset.subjects, shared, dataset.name)


def _check_row_groups(dataset: FederatedDataset) -> None:
    """Refuses groups of rows that a split's examples do not have."""
    for role in ROLES:
        split = getattr(dataset, role)
        if split is None:
            continue
        found = split.examples.spec.get("groups", {})
        if set(found) != set(dataset.row_groups):
            raise ValueError(
                f"row_groups of {dataset.name!r} are {', '.join(dataset.row_groups) or 'none'}, "
                f"and the {role} examples have {', '.join(found) or 'none'}: give each example "
                "{'groups': {name: the number of its value}} beside x and y"
            )

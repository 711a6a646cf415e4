"""Finds the rows of their own that clients' models are judged on, and tuned by."""

from __future__ import annotations

from fljax.data.dataset import FederatedDataset, Split


def held_out_split(dataset: FederatedDataset, asked: int) -> Split:
    """Returns the rows that clients own and do not train on: of the test set, else for validation.

    Raises:
      ValueError: If there are none to judge the `asked` clients by.
    """
    for split in (dataset.test, dataset.val):
        if split is not None and split.partition:
            return split
    raise ValueError(
        f"eval_personal = {asked}, but the clients of {dataset.name!r} own no held-out rows: "
        "give test_client_ids with the test rows, or split some off, val_fraction=0.2."
    )


def validation_split(dataset: FederatedDataset, algorithm: str) -> Split:
    """Returns the rows by which clients choose numbers of their own models.

    Raises:
      ValueError: If clients own no validation rows beside those that they are judged on.
    """
    val, test = dataset.val, dataset.test
    if val is not None and val.partition and test is not None and test.partition:
        return val
    owned = "validation rows, and are judged on these" if val and val.partition else "no such rows"
    raise ValueError(
        f"Clients of {algorithm!r} choose numbers of their own models by validation rows of their "
        f"own, beside the test rows that they are judged on; those of {dataset.name!r} own "
        f"{owned}. Give val_fraction = 0.2 and own_test_fraction = 0.2 (in Python "
        "fljax.data.with_own_test(dataset, 0.2).with_validation(0.2)), or let all clients have one "
        "number."
    )

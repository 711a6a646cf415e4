"""Checks what samplers are told of each client."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core.per_client import check_length, checked_per_client
from fljax.core.values import NON_NEGATIVE, Field

_NUMBER = Field(None, float, NON_NEGATIVE)


def checked_numbers_of_clients(
    name: str, values: Any, num_clients: int, at_least: int = 0, what: str = "one"
) -> np.ndarray:
    """Returns float64[N] numbers of the clients, none of them negative.

    Args:
      name: How the user calls them.
      values: [N] list or array.
      num_clients: N.
      at_least: How many must be positive.
      what: What draws those that are positive, for the message.

    Raises:
      ValueError: For anything else, or if fewer are positive.
    """
    numbers = checked_per_client(name, values, _NUMBER).astype(np.float64)
    check_length(name, numbers, num_clients)
    positive = int(np.count_nonzero(numbers))
    if positive < at_least:
        raise ValueError(
            f"clients_per_round = {at_least}, but {name} are above 0 for {positive} of the "
            f"{num_clients} clients, and {what} draws no others. Choose {positive} or less."
        )
    return numbers

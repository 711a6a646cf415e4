"""Adds one client to every cohort that a sampler draws: the server's own."""

from __future__ import annotations

import numpy as np

from fljax.core.sampler import Sampler, Selection, clients_of


def always(sampler: Sampler, client: int) -> Sampler:
    """Returns a sampler that draws as another one does, and adds one client to every cohort.

    The other one knows nothing of this client, and is told nothing of it.

    Args:
      sampler: What draws among the others.
      client: Takes part in every round, behind the others.

    Raises:
      ValueError: As it selects, if the other one has drawn this client.

    Example:
      >>> from fljax.core.always import always
      >>> from fljax.core.sampler import replay
      >>> sampler = always(replay([[0, 2], [1]], num_clients=3), client=3)
      >>> [sampler.select((), round)[0].tolist() for round in range(2)], sampler.max_cohort
      ([[0, 2, 3], [1, 3]], 3)
    """

    def select(state, round):
        selected, state = sampler.select(state, round)
        clients = clients_of(selected).astype(np.int64)
        if (clients == client).any():
            raise ValueError(
                f"The sampler chose client {client} in round {round}, which takes part in every "
                f"round anyway: it is the server's own. Draw among the clients below {client}."
            )
        clients = np.append(clients, client)
        if isinstance(selected, Selection):
            return Selection(clients, np.append(selected.scale, 1.0)), state
        return clients, state

    def observe(state, round, statistics):
        others = np.asarray(statistics["client"]) != client
        told = {name: np.asarray(values)[others] for name, values in statistics.items()}
        return sampler.observe(state, round, told)

    return sampler._replace(
        select=select,
        max_cohort=sampler.max_cohort + 1,
        observe=observe,
        separation=min(sampler.separation, 1),
    )

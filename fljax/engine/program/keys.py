"""Random keys of the round program: typed threefry keys, derived by `fold_in` alone.

    run key ─ round ─ pass ─┬─ client ─ occurrence ─┬─ step             task.gradient (dropout)
                            │                       │    └─ batch ─ link BatchLink.apply
                            │                       ├─ lot               ClientPass.select
                            │                       └─ uplink ─ link     UplinkLink.encode
                            ├─ downlink ─ link                           DownlinkLink.apply
                            ├─ cohort ─ link                             CohortLink.apply
                            ├─ aggregator                                Aggregator.apply
                            ├─ release ─ link                            UplinkLink.release
                            ├─ agreed ─ link                             UplinkLink.agree
                            └─ server ─ link                             ServerLink.apply
                      ├ personal ─ client                                Algorithm.personalize
                      └ new client ─ client ─ pass                       training/new_clients.py
            └ attackers                                                  Attackers.among

Lane, device and order never enter.
"""

from __future__ import annotations

import jax

# Streams beside the local steps of a job, and the passes of a round, which count from 0.
UPLINK, DOWNLINK, COHORT, SERVER, PERSONAL, RELEASE, AGREED, NEW_CLIENT = (
    0x7FFFFFF0 + number for number in range(8)
)
# Streams of transforms, of who is hostile, and of rules that select.
BATCH, AGGREGATOR, ATTACKERS, LOT = (0x7FFFFFF8 + number for number in range(4))


def of_round(run_keys: jax.Array, rounds: jax.Array) -> jax.Array:
    """Returns the keys [S] of each trial's round."""
    return jax.vmap(jax.random.fold_in)(run_keys, rounds)


def of_pass(round_keys: jax.Array, number: int) -> jax.Array:
    """Returns the keys [S] of a pass, which draws no random number of another pass."""
    return jax.vmap(jax.random.fold_in, (0, None))(round_keys, number)

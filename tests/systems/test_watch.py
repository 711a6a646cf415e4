"""A watch knows who is online and who comes next, as if it asked everybody each time."""

import numpy as np
import pytest

from fljax.systems.intervals import intervals
from fljax.systems.online import bernoulli, charging
from fljax.systems.watch import Watch

N = 200


def shifts():
    """Returns three intervals a client, of whole seconds, some of which touch."""
    draw = np.random.default_rng(0)
    edges = np.sort(draw.choice(np.arange(60), (N, 6)), axis=1).astype(float)
    begin, end = edges[:, ::2].ravel(), edges[:, 1::2].ravel()
    return intervals(begin, np.maximum(end, begin), np.arange(0, 3 * N + 1, 3))


@pytest.mark.parametrize(
    ("availability", "step"),
    [(shifts(), 0.5), (bernoulli(3, 0.3, 60.0), 17.0), (charging(1), 3000.0)],
)
def test_a_watch_sees_what_asking_everybody_sees(availability, step):
    draw = np.random.default_rng(1)
    clients = np.sort(draw.choice(N, 150, replace=False))
    watch = Watch(availability, clients)
    moments = np.cumsum(step * draw.integers(0, 4, 60))
    # it begins anew where time goes back
    for now in [*moments, *moments[:5]]:
        busy = set(draw.choice(clients, 40, replace=False).tolist())
        others = clients[~np.isin(clients, list(busy))]
        since = np.asarray(availability.since(others, float(now)))
        assert watch.idle(float(now), busy) == others[since <= now].tolist()
        assert watch.next(float(now), busy) == since[since > now].min(initial=np.inf)

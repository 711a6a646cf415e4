"""Rules by distances as loops in NumPy, in float64, of the updates that arrived: rows [n, p]."""

import itertools
import math

import numpy as np


def distance(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def krum_score(i, group, rows, f):
    """Sums the squared distances to the nearest of the others in a group of row numbers."""
    others = sorted(distance(rows[i], rows[j]) ** 2 for j in group if j != i)
    return sum(others[: max(len(group) - f - 2, 1)])


def by_score(rows, f):
    """Returns all row numbers, the least score first."""
    everybody = range(len(rows))
    return sorted(everybody, key=lambda i: krum_score(i, everybody, rows, f))


def krum(rows, f):
    """Returns (value, chosen row numbers)."""
    best = by_score(rows, f)[0]
    return rows[best], {best}


def multi_krum(rows, f, m=None):
    chosen = by_score(rows, f)[: max(len(rows) - f, 1) if m is None else m]
    return np.mean([rows[i] for i in chosen], axis=0), set(chosen)


def bulyan(rows, f):
    left, chosen = list(range(len(rows))), []
    for _ in range(max(len(rows) - 2 * f, 1)):
        best = min(left, key=lambda i: krum_score(i, left, rows, f))
        left.remove(best)
        chosen.append(best)
    nearest = max(len(chosen) - 2 * f, 1)
    return np.array([mean_near_median(column, nearest) for column in rows[chosen].T]), set(chosen)


def mean_near_median(values, nearest):
    """Averages the values nearest to a median: one with the least sum of distances to all."""
    rising = sorted(values)
    distances = [sum(abs(z - m) for z in values) for m in rising]
    median = rising[(len(values) - 1) // 2]
    assert math.isclose(min(distances), sum(abs(z - median) for z in values), rel_tol=1e-12)
    return np.mean(sorted(rising, key=lambda z: abs(z - median))[:nearest])


def rfa(rows, weights, iterations=3, smoothing=1e-6, tolerance=1e-6, start="mean"):
    weights = weights / weights.sum()
    point = np.average(rows, axis=0, weights=weights)
    if start == "zero":
        point = np.zeros_like(point)
    before = sum(w * distance(point, row) for w, row in zip(weights, rows, strict=True))
    for _ in range(int(iterations)):
        nearer = [
            w / max(smoothing, distance(point, row)) for w, row in zip(weights, rows, strict=True)
        ]
        point = np.average(rows, axis=0, weights=nearer)
        total = sum(w * distance(point, row) for w, row in zip(weights, rows, strict=True))
        if abs(before - total) < tolerance * total:
            break
        before = total
    return point


def nearest_neighbour_mixing(rows, f):
    mixed = []
    for row in rows:
        order = sorted(range(len(rows)), key=lambda j: distance(row, rows[j]))
        mixed.append(np.mean([rows[j] for j in order[: len(rows) - f]], axis=0))
    return np.array(mixed)


def two_clusters(rows):
    """Returns lists of row numbers: average linkage of 1 - cosine, from all pairs of members."""

    def apart(i, j):
        lengths = np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])
        return 1 - (rows[i] @ rows[j] / lengths if lengths else 0)

    def linkage(a, b):
        return np.mean([apart(i, j) for i in a for j in b])

    clusters = [[i] for i in range(len(rows))]
    while len(clusters) > 2:
        pairs = itertools.combinations(range(len(clusters)), 2)
        a, b = min(pairs, key=lambda pair: linkage(clusters[pair[0]], clusters[pair[1]]))
        clusters[a] = clusters[a] + clusters.pop(b)
    return clusters


def clipped_clustering(rows, past, history=10_000):
    """Returns (value, chosen row numbers, norms of all rounds)."""
    norms = [np.linalg.norm(row) for row in rows]
    past = (list(past) + norms)[-history:]
    bound = np.median(past)
    chosen = max(two_clusters(rows), key=lambda members: (len(members), -min(members)))
    clipped = [rows[i] * (min(1, bound / norms[i]) if norms[i] else 1) for i in chosen]
    return np.mean(clipped, axis=0), set(chosen), past

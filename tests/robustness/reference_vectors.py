"""Rules that clip, filter and remember updates, as loops in NumPy, written from their papers."""

import numpy as np


def clip(vector, bound):
    """Returns the vector scaled to a norm, unless it is shorter."""
    length = np.sqrt(sum(float(entry) ** 2 for entry in vector))
    return vector * (bound / length) if length > bound else np.array(vector)


def centered_clipping(updates, center, tau, iterations):
    """(AGG) of Karimireddy et al. 2021, arXiv:2012.10333."""
    for _ in range(iterations):
        moves = [clip(update - center, tau) for update in updates]
        center = center + sum(moves) / len(updates)
    return center


def divide_and_conquer(updates, f, filter, samples):
    """Algorithm 2 of Shejwalkar and Houmansadr, NDSS 2021.

    Args:
      updates: [n, d].
      f: Number of attackers, m in the paper.
      filter: c.
      samples: A list of the coordinates of each iteration.

    Returns:
      (mean of the updates that are good in all iterations, which these are).
    """
    good = []
    for sample in samples:
        part = updates[:, sample]
        centred = part - part.mean(0)
        _, _, right = np.linalg.svd(centred)
        scores = [float(row @ right[0]) ** 2 for row in centred]
        order = sorted(range(len(updates)), key=lambda row: scores[row])
        good.append(set(order[: int(len(updates) - filter * f)]))
    final = sorted(set.intersection(*good))
    mean = sum(updates[row] for row in final) / len(final) if final else 0 * updates[0]
    return mean, final


def mean_shift(points, bandwidth):
    """Comaniciu and Meer 2002, flat kernel, each point a seed; returns labels, -1 of no cluster.

    Modes within the bandwidth of a mode with more points in reach are none.
    """
    distance = lambda a, b: np.sqrt(((a - b) ** 2).sum())  # noqa: E731
    modes = []
    for point in points:
        mode = point
        for _ in range(300):
            near = [other for other in points if distance(mode, other) <= bandwidth]
            new = sum(near) / len(near)
            moved, mode = distance(new, mode), new
            if moved <= 1e-3 * bandwidth:
                break
        height = sum(distance(mode, other) <= bandwidth for other in points)
        modes.append((height, tuple(mode)))
    kept = []
    for _, mode in sorted(modes, reverse=True):
        mode = np.array(mode)
        if all(distance(mode, other) > bandwidth for other in kept):
            kept.append(mode)
    labels = []
    for point in points:
        distances = [distance(point, mode) for mode in kept]
        nearest = int(np.argmin(distances))
        labels.append(nearest if distances[nearest] <= bandwidth else -1)
    return np.array(labels)


def bandwidth(points, reach=0.5):
    """As the authors of SignGuard choose it: the mean distance to the nearest half's farthest."""
    near = max(1, int(reach * len(points)))
    return np.mean([sorted(np.linalg.norm(points - point, axis=1))[near - 1] for point in points])


def signguard(updates, lower, upper, coordinates):
    """Algorithm 2 of Xu et al. 2022, arXiv:2109.05872; returns (value, those kept)."""
    lengths = np.linalg.norm(updates, axis=1)
    middle = np.median(lengths)
    features = []
    for update in updates:
        signs = np.sign(update[coordinates])
        features.append([(signs == sign).mean() for sign in (1, 0, -1)])
    features = np.array(features)
    labels = mean_shift(features, bandwidth(features) + 1e-5)
    largest = np.argmax([(labels == label).sum() for label in range(labels.max() + 1)])
    kept = [
        row
        for row in range(len(updates))
        if lower * middle <= lengths[row] <= upper * middle and labels[row] == largest
    ]
    clipped = [updates[row] * min(1, middle / lengths[row]) for row in kept]
    return (sum(clipped) / len(kept) if kept else 0 * updates[0]), kept


def foolsgold(updates, clients, history, confidence=1.0):
    """Algorithm 1 of Fung et al. 2020, arXiv:1808.04866, without weights of features.

    Args:
      updates: [n, p].
      clients: n numbers.
      history: {client: sum of its updates}, to which these are added.
      confidence: kappa.

    Returns:
      (mean of the updates times the clients' rates, the rates).
    """
    for client, update in zip(clients, updates, strict=True):
        history[client] = history.get(client, 0) + update
    n = len(clients)
    cosines = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            mine, other = history[clients[i]], history[clients[j]]
            lengths = np.linalg.norm(mine) * np.linalg.norm(other)
            if clients[i] != clients[j] and lengths:
                cosines[i, j] = mine @ other / lengths
    most = [max(cosines[i]) for i in range(n)]
    for i in range(n):
        for j in range(n):
            if most[j] > most[i]:
                cosines[i, j] *= most[i] / most[j]
    rates = np.array([min(1, max(0, 1 - max(cosines[i]))) for i in range(n)])
    rates = rates / rates.max()
    with np.errstate(divide="ignore"):
        rates = confidence * (np.log(rates / (1 - rates)) + 0.5)
    rates = np.clip(rates, 0, 1)
    return sum(rate * update for rate, update in zip(rates, updates, strict=True)) / n, rates


def weighted_mean(updates, weights):
    return sum(weight * update for weight, update in zip(weights, updates, strict=True)) / sum(
        weights
    )


def moved_quantile(estimate, norms, quantile, learning_rate):
    """The geometric method of Andrew et al. 2021, arXiv:1905.03871, without noise."""
    below = np.mean([norm <= estimate for norm in norms])
    return estimate * np.exp(-learning_rate * (below - quantile))


def adaptive_zeroing(updates, estimate, quantile, multiplier, increment, learning_rate):
    """Returns (updates, those zeroed, C of the next round), as TensorFlow Federated has it."""
    norms = [max(abs(update)) for update in updates]
    zeroed = [norm > multiplier * estimate + increment for norm in norms]
    kept = [0 * update if out else update for update, out in zip(updates, zeroed, strict=True)]
    return np.array(kept), zeroed, moved_quantile(estimate, norms, quantile, learning_rate)


def adaptive_clipping(updates, estimate, quantile, learning_rate):
    """Returns (updates, C of the next round)."""
    norms = [np.linalg.norm(update) for update in updates]
    clipped = np.array([clip(update, estimate) for update in updates])
    return clipped, moved_quantile(estimate, norms, quantile, learning_rate)

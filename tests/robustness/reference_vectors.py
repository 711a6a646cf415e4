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

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

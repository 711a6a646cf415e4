"""Rules of single coordinates as their papers define them, one coordinate after another."""

import math
from fractions import Fraction

import numpy as np


def median(rows):
    """Yin et al. 2018 (arXiv:1803.01498), Definition 1."""
    found = []
    for column in np.asarray(rows, np.float64).T:
        ordered = sorted(column.tolist())
        middle, odd = divmod(len(ordered), 2)
        if odd:
            found.append(ordered[middle])
        else:
            found.append(ordered[middle - 1] / 2 + ordered[middle] / 2)
    return np.array(found)


def trimmed_mean(rows, share=None, f=None):
    """Definition 2 of the same, beta n rounded down; `share` is a text, which is exact."""
    found = []
    for column in np.asarray(rows, np.float64).T:
        count = len(column)
        ends = f if share is None else math.floor(Fraction(share) * count)
        ends = min(ends, (count - 1) // 2)
        kept = sorted(column.tolist())[ends : count - ends]
        found.append(math.fsum(value / len(kept) for value in kept))
    return np.array(found)


def robust_learning_rate(rows, weights, threshold):
    """Ozdayi et al. 2021 (arXiv:2007.03767), equation (3), on FedAvg's mean."""
    found = []
    for column in np.asarray(rows, np.float64).T:
        votes = sum((value > 0) - (value < 0) for value in column.tolist())
        products = [weight * value for weight, value in zip(weights, column, strict=True)]
        mean = math.fsum(products) / math.fsum(weights)
        found.append(mean if abs(votes) >= threshold else -mean)
    return np.array(found)

"""Poisoned rows as the papers have them: NumPy loops, one row at a time."""

import numpy as np


def chosen(can, draws, share, rest):
    """Returns bool[n]: of the rows that can, share x count with the smallest draws.

    Where that is no whole number, its fraction is the chance of one more: that `rest`, from 0 to 1,
    is large.
    """
    rows = sorted((row for row in range(len(can)) if can[row]), key=lambda row: draws[row])
    found = np.zeros(len(can), bool)
    count = int(share * len(rows))
    found[rows[: count + (rest >= 1 - (share * len(rows) - count))]] = True
    return found


def flipped(y, classes, source=None, target=None):
    """Fang et al. 2020: L - l - 1; Tolpegin et al. 2020: source becomes target."""
    found = []
    for label in y:
        if target is None:
            wrong = classes - label - 1
        else:
            wrong = target
        found.append(wrong if source is None or label == source else label)
    return np.array(found)


def stamped(images, size, corner, value):
    """Writes a square into a corner of images [n, H, W] or [n, H, W, C]."""
    images = images.copy()
    height, width = images.shape[1:3]
    for down in range(size):
        for along in range(size):
            row = down if corner.startswith("top") else height - 1 - down
            column = along if corner.endswith("left") else width - 1 - along
            images[:, row, column] = value
    return images

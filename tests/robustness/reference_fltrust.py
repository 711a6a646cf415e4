"""FLTrust (arXiv:2012.13995, Algorithm 2) in float64, one client at a time."""

import numpy as np


def cosine(a, b):
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b) / norms if norms else 0.0


def fltrust(updates, server):
    """Returns (value [d], trust scores); of nobody who is trusted, or no server's, zeros.

    Args:
      updates: Those of clients, [d] each.
      server: The server's own, or None where it is lost.
    """
    size = len(server) if server is not None else len(updates[0])
    if server is None:
        return np.zeros(size), [0.0] * len(updates)
    scores = [max(0.0, cosine(update, server)) for update in updates]
    total = np.zeros(size)
    for update, score in zip(updates, scores, strict=True):
        if score:
            total += score * np.linalg.norm(server) / np.linalg.norm(update) * update
    return total / sum(scores) if sum(scores) else total, scores

"""Page-Hinkley and DDM as loops, from their definitions."""

import math


def page_hinkley(errors, threshold, delta, alpha, min_errors):
    """Returns the place of the first alarm, or -1."""
    total, lowest, seen = 0.0, math.inf, 0.0
    for count, error in enumerate(errors, start=1):
        seen += error
        total = alpha * total + error - seen / count - delta
        lowest = min(lowest, total)
        if count >= min_errors and total - lowest > threshold:
            return count - 1
    return -1


def ddm(errors, drift_threshold, min_errors):
    """Returns the place of the first alarm, or -1."""
    wrong, best = 0, None
    for count, error in enumerate(errors, start=1):
        wrong += error
        rate = wrong / count
        deviation = math.sqrt(rate * (1 - rate) / count)
        if count <= min_errors:
            continue
        if best is None or rate + deviation <= sum(best):
            best = rate, deviation
        if rate + deviation > best[0] + drift_threshold * best[1]:
            return count - 1
    return -1

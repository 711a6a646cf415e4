"""Computations of samplers, as plain loops in float64, written from the papers."""

from __future__ import annotations

import math

import numpy as np


def inclusion(weights, count):
    """Sets to 1 whatever proportion puts above 1, and shares out the rest, until nothing is."""
    weights = np.asarray(weights, np.float64)
    certain = set()
    while True:
        left = [i for i in range(len(weights)) if i not in certain]
        total = sum(weights[i] for i in left)
        found = {i: (count - len(certain)) * weights[i] / total for i in left if total}
        over = {i for i, value in found.items() if value > 1}
        if not over:
            return np.array([found.get(i, float(i in certain)) for i in range(len(weights))])
        certain |= over


def stratified_cohorts(probabilities, count):
    """Returns {cohort: probability} of one client from each stratum, stratum after stratum."""
    ends = np.concatenate([[0.0], np.cumsum(probabilities)])
    found = {(): 1.0}
    for stratum in range(count):
        # {client: how much of it lies in this stratum}
        inside = {
            i: min(ends[i + 1], stratum + 1) - max(ends[i], stratum)
            for i in range(len(probabilities))
            if min(ends[i + 1], stratum + 1) - max(ends[i], stratum) > 1e-12
        }
        cut = [i for i in inside if ends[i] < stratum - 1e-12]
        longer = {}
        for drawn, chance in found.items():
            own = 0.0
            if cut and cut[0] not in drawn:
                own = inside[cut[0]] / (1 - (stratum - ends[cut[0]]))
                longer[(*drawn, cut[0])] = chance * own
            others = {i: part for i, part in inside.items() if i not in cut}
            for i, part in others.items():
                longer[(*drawn, i)] = chance * (1 - own) * part / sum(others.values())
        found = {drawn: chance for drawn, chance in longer.items() if chance}
    return found


def successive(weights, count):
    """Returns {ordered draws: probability}, each draw among those that are left, by weight."""
    found = {(): 1.0}
    for _ in range(count):
        longer = {}
        for drawn, chance in found.items():
            left = [i for i in range(len(weights)) if i not in drawn and weights[i] > 0]
            total = sum(weights[i] for i in left)
            for i in left:
                longer[(*drawn, i)] = chance * weights[i] / total
        found = longer
    return found


def urns_by_size(sizes, count):
    """Algorithm 1 of Fraboni et al.: whole balls, client after client; int[urns, clients]."""
    total = sum(sizes)
    urns = np.zeros((count, len(sizes)), int)
    urn, free = 0, total
    for client in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        balls = count * sizes[client]
        while balls:
            put = min(balls, free)
            urns[urn, client] += put
            balls, free = balls - put, free - put
            if not free:
                urn, free = urn + 1, total
    return urns


def fedcs(compute, upload, deadline):
    """Algorithm 3 of Nishio and Yonetani, without distribution: the least addition comes next."""
    left, theta, chosen = list(range(len(compute))), 0.0, []
    while left:
        best = max(left, key=lambda k: 1 / (upload[k] + max(0.0, compute[k] - theta)))
        left.remove(best)
        after = theta + upload[best] + max(0.0, compute[best] - theta)
        if after < deadline:
            theta = after
            chosen.append(best)
    return chosen


def cover(vectors, cohort):
    """Sums the distance of each client to the nearest of a cohort."""
    return sum(min(np.linalg.norm(v - vectors[i]) for i in cohort) for v in vectors)


def oort_scores(utility, last, durations, number, preferred, penalty, percentile):
    """The utility of each explored client, line by line of Algorithm 1."""
    bound = np.percentile(utility, percentile)
    scores = []
    for value, before, seconds in zip(utility, last, durations, strict=True):
        score = min(value, bound) + math.sqrt(0.1 * math.log(number) / before)
        if preferred < seconds:
            score *= (preferred / seconds) ** penalty
        scores.append(score)
    return np.array(scores)

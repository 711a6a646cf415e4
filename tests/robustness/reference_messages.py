"""Attacks on messages as loops in NumPy, written from their papers, one update at a time."""

import math
import statistics

import numpy as np


def mean_and_std(updates, ddof):
    count = len(updates)
    mean = sum(updates) / count
    squares = sum((update - mean) ** 2 for update in updates)
    return mean, np.sqrt(squares / max(count - ddof, 1))


def largest_z(n, m):
    """z_max of Baruch et al. 2019, with s = 1 for attackers in the majority."""
    supporters = max(math.floor(n / 2 + 1) - m, 1)
    if n - m == 1:
        return 0.0
    return statistics.NormalDist().inv_cdf((n - m - supporters) / (n - m))


def alie(honest, hostile, z=None, ddof=0, sees="honest"):
    mean, std = mean_and_std(honest if sees == "honest" else hostile, ddof)
    if z is None:
        z = largest_z(len(honest) + len(hostile), len(hostile))
    return mean - z * std


def ipm(honest, hostile, epsilon):
    return -epsilon * (sum(honest) / len(honest))


def direction_of(honest, name):
    """Returns the perturbation of Shejwalkar and Houmansadr 2021, as long as they have it."""
    mean, std = mean_and_std(honest, ddof=1)
    if name == "unit":
        length = np.linalg.norm(mean)
        return -mean / length if length else 0 * mean
    return {"sign": -np.sign(mean), "std": -std}[name]


def within_max(honest, sent):
    pairs = [np.sum((a - b) ** 2) for a in honest for b in honest]
    return max(np.sum((sent - update) ** 2) for update in honest) <= max(pairs)


def within_sum(honest, sent, bound="max"):
    sums = [sum(np.sum((a - b) ** 2) for b in honest) for a in honest]
    most = max(sums) if bound == "max" else min(sums)
    return sum(np.sum((sent - update) ** 2) for update in honest) <= most


def farthest(honest, name, accepts):
    """Returns mean + gamma p with the largest gamma that is accepted, found by bisection."""
    mean, _ = mean_and_std(honest, 0)
    away = direction_of(honest, name)
    if not np.any(away):
        return mean
    low, high = 0.0, 1.0
    while accepts(honest, mean + high * away):
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if accepts(honest, mean + middle * away) else (low, middle)
    return mean + low * away


def by_halved_steps(honest, name, accepts, start=10.0, tolerance=1e-5):
    """Returns what the search of Shejwalkar and Houmansadr's code ends with."""
    mean, _ = mean_and_std(honest, 0)
    away = direction_of(honest, name)
    gamma, step, accepted = start, start, 0.0
    while abs(accepted - gamma) > tolerance:
        if accepts(honest, mean + gamma * away):
            accepted = gamma
            gamma += step / 2
        else:
            gamma -= step / 2
        step /= 2
    return mean + accepted * away


def unit(vector):
    return vector / np.linalg.norm(vector)


class Mimic:
    """The colluders of Karimireddy et al. 2022, as their code has them; t counts rounds."""

    def __init__(self, warmup, first_direction):
        self.warmup, self.z, self.t = warmup, first_direction, 0
        self.mean, self.target = None, None

    def copied(self, honest, clients):
        """Returns the update that attackers send, of {place: honest update of clients[place]}."""
        learns = self.t < self.warmup
        if learns:
            mean = sum(honest) / len(honest)
            if self.t == 0:
                self.mean = mean
            else:
                self.mean = self.t / (1 + self.t) * self.mean + mean / (1 + self.t)
            turned = sum(np.dot(x - self.mean, self.z) * (x - self.mean) for x in honest)
            if self.t == 0:
                self.z = unit(turned)
            else:
                self.z = unit(self.t / (1 + self.t) * self.z + unit(turned) / (1 + self.t))
            self.t += 1
        along = [np.dot(x, self.z) for x in honest]
        place = along.index(max(along))
        if learns:
            self.target = clients[place]
        elif self.target in clients:
            place = list(clients).index(self.target)
        return honest[place]

"""FLGo's chances of being online, client by client, as its papers write them."""

from __future__ import annotations

import math


def by_size(sizes: list[int], power: float) -> list[float]:
    raised = [n**power if n else 0.0 for n in sizes]
    return [value / max(raised) for value in raised]


def label_sets(counts) -> list[set[int]]:
    return [{label for label, count in enumerate(row) if count} for row in counts]


def largest_label_first(counts, beta: float) -> list[float]:
    top = len(counts[0]) - 1
    return [beta * min(held, default=0) / top + 1 - beta for held in label_sets(counts)]


def fewer_labels_first(counts, beta: float) -> list[float]:
    return [beta * len(held) / len(counts[0]) + 1 - beta for held in label_sets(counts)]


def label_cycle(counts, beta: float, cycle: int, slot: int) -> list[float]:
    top, turn = len(counts[0]) - 1, (1 + slot % cycle) / cycle
    found = []
    for held in label_sets(counts):
        low, high = min(held, default=0) / top, max(held, default=0) / top
        found.append(beta * (low <= turn <= high) + 1 - beta)
    return found


def tide(cycle: int, slot: int) -> float:
    return 0.4 * math.sin(2 * math.pi * (1 + slot % cycle) / cycle) + 0.5

"""Finds places for the labels of points: near them, and off whatever else is drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

# Pixels from a point to its label, and how many directions are tried at each distance.
_DISTANCES = (9, 16, 26, 38, 52, 68)
_DIRECTIONS = 16
# A label this far away gets a line to its point.
_LONG = 20
# Half the width of what is kept free around a point, and pixels around all else.
_POINT = 8
_GAP = 2


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


def place_labels(
    axes: Any, points: Sequence[tuple[float, float]], texts: Sequence[str], lines: Sequence[Box]
) -> None:
    """Writes each text near its point; far ones get a thin line to it.

    Args:
      axes: Matplotlib axes whose figure has been laid out, with its limits final.
      points: (x, y) in data coordinates.
      texts: One a point.
      lines: What else labels should keep off, in pixels.
    """
    size = 0.9 * axes.xaxis.label.get_size()
    centres = [tuple(axes.transData.transform(point)) for point in points]
    sizes = []
    for text in texts:
        trial = axes.text(0, 0, text, fontsize=size)
        extent = trial.get_window_extent()
        sizes.append((extent.width, extent.height))
        trial.remove()
    boxes = arrange(centres, sizes, _box(axes), lines)
    to_points = 72 / axes.figure.dpi
    for text, point, (x, y), box in zip(texts, points, centres, boxes, strict=True):
        offset = (box.left + _GAP - x, box.bottom + _GAP - y)
        far = _distance((x, y), box) > _LONG
        axes.annotate(
            text,
            point,
            xytext=tuple(to_points * distance for distance in offset),
            textcoords="offset points",
            fontsize=size,
            va="bottom",
            color="#222222",
            zorder=4,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkB": 4}
            if far
            else None,
        )


def pixels(axes: Any, x: tuple[float, float], y: tuple[float, float], margin: float = _GAP) -> Box:
    """Returns a rectangle given in data coordinates, widened on all sides."""
    (left, bottom), (right, top) = (
        axes.transData.transform(corner) for corner in ((x[0], y[0]), (x[1], y[1]))
    )
    return Box(left - margin, bottom - margin, right + margin, top + margin)


def along(axes: Any, points: Sequence[tuple[float, float]]) -> list[Box]:
    """Returns small boxes along the line through points in data coordinates."""
    corners = [axes.transData.transform(point) for point in points]
    return [box for ends in itertools.pairwise(corners) for box in _dotted(*ends, _GAP)]


def _dotted(start: tuple[float, float], end: tuple[float, float], half: float) -> list[Box]:
    """Returns boxes of a half width at even distances between two points."""
    (x, y), (right, up) = start, (end[0] - start[0], end[1] - start[1])
    centres = ((x + part / 30 * right, y + part / 30 * up) for part in range(31))
    return [Box(x - half, y - half, x + half, y + half) for x, y in centres]


def arrange(
    centres: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    taken: Sequence[Box] = (),
) -> list[Box]:
    """Finds a place for each label: the nearest free one, those of crowded points first.

    Args:
      centres: Points in pixels.
      sizes: (width, height) of their labels.
      frame: Where labels must lie.
      taken: What else they must not cover.

    Returns:
      The boxes of the labels. Where no candidate is free, the one that covers least.
    """
    markers = [Box(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in centres]
    crowd = [
        sum(abs(x - other) < 90 and abs(y - above) < 45 for other, above in centres)
        for x, y in centres
    ]
    placed: dict[int, Box] = {}
    leaders: list[Box] = []
    for index in sorted(range(len(centres)), key=lambda i: -crowd[i]):
        obstacles = [*markers, *taken, *leaders, *placed.values()]
        labels = list(placed.values())

        def covered(box, index=index, obstacles=obstacles, labels=labels):
            by_line = sum(
                part.overlap(label) for part in _leader(centres[index], box) for label in labels
            )
            return sum(map(box.overlap, obstacles)) + by_line + box.area - box.overlap(frame)

        placed[index] = min(_candidates(centres[index], sizes[index]), key=covered)
        leaders += _leader(centres[index], placed[index])
    return [placed[index] for index in range(len(centres))]


def _leader(centre: tuple[float, float], box: Box) -> list[Box]:
    """Returns small boxes along the line from a point to a label that is far from it."""
    if _distance(centre, box) <= _LONG:
        return []
    middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
    return _dotted(centre, middle, 1)


def _candidates(centre: tuple[float, float], size: tuple[float, float]) -> Iterator[Box]:
    """Yields places around a point, the nearest first."""
    (x, y), (width, height) = centre, (size[0] + 2 * _GAP, size[1] + 2 * _GAP)
    for distance in _DISTANCES:
        for direction in range(_DIRECTIONS):
            angle = 2 * math.pi * direction / _DIRECTIONS
            right, up = math.cos(angle), math.sin(angle)
            # the box touches the circle with the side or corner that faces the point
            left = x + distance * right + width * (right - 1) / 2
            bottom = y + distance * up + height * (up - 1) / 2
            yield Box(left, bottom, left + width, bottom + height)


def _distance(point: tuple[float, float], box: Box) -> float:
    x, y = point
    return math.hypot(
        max(box.left - x, 0, x - box.right),
        max(box.bottom - y, 0, y - box.top),
    )


def _box(artist: Any) -> Box:
    extent = artist.get_window_extent()
    return Box(extent.x0, extent.y0, extent.x1, extent.y1)

"""Labels of crowded points."""

import itertools

import numpy as np

from fljax.studies.label_places import Box, arrange


def test_labels_are_near_their_points_and_cover_nothing():
    rng = np.random.default_rng(1)
    frame = Box(0, 0, 800, 500)
    legend = Box(600, 0, 800, 100)
    for _ in range(5):
        # a crowd along one line, as rungs of almost one accuracy are, and some elsewhere
        crowd = np.stack([rng.uniform(80, 720, 14), rng.normal(400, 12, 14)], 1)
        others = np.stack([rng.uniform(80, 500, 6), rng.uniform(60, 330, 6)], 1)
        centres = [tuple(one) for one in np.concatenate([crowd, others])]
        sizes = [(width, 11.0) for width in rng.uniform(25, 80, len(centres))]
        boxes = arrange(centres, sizes, frame, [legend])
        for (x, y), (width, height), box in zip(centres, sizes, boxes, strict=True):
            assert box.right - box.left >= width and box.top - box.bottom >= height
            assert np.isclose(box.overlap(frame), box.area)
            assert box.overlap(legend) == 0
            assert abs(x - (box.left + box.right) / 2) < 70 + width
            assert abs(y - (box.bottom + box.top) / 2) < 70 + height
        for one, other in itertools.combinations(boxes, 2):
            assert one.overlap(other) == 0
        for (x, y), box in itertools.product(centres, boxes):
            assert box.overlap(Box(x - 3, y - 3, x + 3, y + 3)) == 0

"""Bad inputs through Python: calls of the functions in the tables of `bad_targets`."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator

from bad_inputs import Case, changes
from bad_targets import TARGETS


def cases(seed: int, count: int) -> Iterator[Case]:
    """Yields so many calls with one or two wrong arguments, or a wrong name."""
    generator = random.Random(seed)
    names = list(TARGETS)
    drawn = [name for name in names for _ in range(TARGETS[name].weight)]
    for number in range(count):
        # every target has its turn
        name = names[number // 2 % len(names)] if number % 2 else generator.choice(drawn)
        target = TARGETS[name]
        changed = changes(generator, [*target.base, *target.more], target.pool)
        yield Case(
            name,
            changed,
            functools.partial(target.call, **(target.base | changed)),
            functools.partial(target.differs, changed),
            target.also,
        )

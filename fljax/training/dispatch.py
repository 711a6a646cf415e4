"""Dispatches rounds so that the devices never wait for the host: one block is always under way.

A single run and trials side by side go through the same loop: plans come from a thread, a block of
rounds is dispatched, and only then are the statistics of the one before waited for.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from fljax.engine.devices.compilation import compiled_seconds
from fljax.engine.plan.blocks import unstack
from fljax.engine.plan.feedback import Feedback, statistics_of
from fljax.engine.plan.packed_plan import PackedPlan
from fljax.engine.plan.round_plan import HostPlan
from fljax.training.federation import Federation

Facts = Sequence[HostPlan]


class Block(NamedTuple):
    """Rounds that were dispatched together, and have run.

    Attributes:
      facts: What the host knows of the plan of each round.
      stats: Of each round, the per-job statistics [D, J] of its passes, on the host.
      beside: What was dispatched right after them.
    """

    facts: Facts
    stats: Sequence[Any]
    beside: Any = None


@dataclasses.dataclass
class Dispatcher:
    """The loop over blocks of rounds.

    Attributes:
      federation: What is trained.
      beside: (facts of a block) -> what is dispatched right after it, such as an evaluation.
      drains: (facts of a block) -> whether to wait for it before the next one is dispatched,
        because the host wants the state that it leaves behind.
      stops: () -> whether no further block shall be dispatched.
      feedback: Takes the statistics to the sampler, where it asks for them.
      compile_seconds: What dispatches took because they compiled.
    """

    federation: Federation
    beside: Callable[[Facts], Any] = lambda facts: None
    drains: Callable[[Facts], bool] = lambda facts: False
    stops: Callable[[], bool] = lambda: False
    feedback: Feedback | None = None
    compile_seconds: float = 0.0

    def run(self, planned: Iterable[tuple[PackedPlan, Facts]]) -> Iterator[Block]:
        """Dispatches planned blocks, and yields each one when it has run.

        Args:
          planned: What `Federation.blocks` yields.
        """
        under_way: deque[Block] = deque()
        for plan, facts in planned:
            under_way.append(self._dispatch(plan, facts))
            while len(under_way) > (0 if self._waits_for(facts) else 1):
                yield self._finish(under_way.popleft())
            if self.stops():
                break
        while under_way:
            yield self._finish(under_way.popleft())

    def _waits_for(self, facts: Facts) -> bool:
        return self.drains(facts) or (self.feedback is not None and not self.feedback.delay)

    def _dispatch(self, plan: PackedPlan, facts: Facts) -> Block:
        compiled = compiled_seconds()
        block = Block(facts, self.federation.step_block(plan, facts), self.beside(facts))
        self.compile_seconds += compiled_seconds() - compiled
        return block

    def _finish(self, block: Block) -> Block:
        stats = unstack(jax.device_get(block.stats), len(block.facts))
        if self.feedback is not None:
            for facts, found in zip(block.facts, stats, strict=True):
                self.feedback.give(facts.round, statistics_of(facts, found))
        return block._replace(stats=stats)

"""Devices that run out of memory when a test wants them to."""

import weakref

import jax

from fljax.training import execution
from fljax.training.federation import Federation

EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1234 bytes.\nand more"


def lay_out_on(monkeypatch, lanes: int) -> None:
    """Lets the rule give so many lanes, as on an accelerator."""
    choose = execution.choose

    def wide(*, lanes, wave, **facts):
        return choose(lanes=lanes or most, wave=wave or lanes or most, **facts)

    most = lanes
    monkeypatch.setattr(execution, "choose", wide)


def run_out(monkeypatch, is_due, most: int = 2) -> list:
    """Lets memory run out on more than `most` lanes in rounds that are due.

    Args:
      monkeypatch: Of the test.
      is_due: (federation, facts of a round) -> whether it runs out.
      most: Lanes that fit.

    Returns:
      What has run out so far, of which nothing may be left when something else runs.
    """
    tried: list[weakref.ref] = []
    step = Federation.step

    def failing(self, plan, facts):
        assert not any(before() for before in tried), "what did not fit is still there"
        if self.execution.lanes > most and is_due(self, facts):
            tried.append(weakref.ref(self))
            raise jax.errors.JaxRuntimeError(EXHAUSTED)
        return step(self, plan, facts)

    monkeypatch.setattr(Federation, "step", failing)
    return tried

"""The group of every trial: of those that were listed, and of those that a search proposes."""

from __future__ import annotations

from collections.abc import Sequence

from fljax.studies.groups import Group, Make, grouped
from fljax.studies.trials import Trial


class Catalogue:
    """Finds the group of a trial.

    A trial that was not listed joins the newest group if it can run in its program on its data, and
    starts a group of its own otherwise.

    Args:
      make: Makes the experiment of a trial.
      groups: Of the trials that were listed.
    """

    def __init__(self, make: Make, groups: Sequence[Group] = ()):
        self._make = make
        self._groups = list(groups)
        self._place = {
            trial.number: place for place, group in enumerate(groups) for trial in group.trials
        }

    def group_of(self, trial: Trial) -> Group:
        """Returns a trial's group, with the trials that joined it so far.

        Raises:
          ValueError: For values that no experiment can be made of.
        """
        if trial.number not in self._place:
            self._add(trial)
        return self._groups[self._place[trial.number]]

    def _add(self, trial: Trial) -> None:
        if not (self._groups and self._joins(trial)):
            (group,) = grouped([trial], self._make)
            self._groups.append(group)
        self._place[trial.number] = len(self._groups) - 1

    def _joins(self, trial: Trial) -> bool:
        """Takes a trial in to the newest group, if one program can run both."""
        newest = self._groups[-1]
        pair, *others = grouped([newest.trials[0], trial], self._make)
        # a program is built for the divisions of the data that its first trials have
        if others or len(pair.datasets) > 1:
            return False
        self._groups[-1] = newest._replace(
            trials=(*newest.trials, trial),
            inputs={**newest.inputs, trial.number: pair.inputs[trial.number]},
        )
        return True


def same_program(one: Group, other: Group) -> bool:
    """Whether two groups are one, before and after trials joined it."""
    return one.experiment is other.experiment

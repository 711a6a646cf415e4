"""What a sweep tries, how it searches, and how trials share the machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fljax.core.names import unknown
from fljax.core.values import COUNT, NON_NEGATIVE, POSITIVE, Field, Interval, checked, wrong
from fljax.recording.jsonio import plain
from fljax.studies.search import METHODS, given, rungs_of, successive_halving
from fljax.studies.selection import BY_ACCURACY, Criterion
from fljax.studies.space import ANY_SEED, Choice, LogUniform, Uniform, grid, sample
from fljax.studies.trials import Trial, checked_seeds, repeat

SEARCHES = ("grid", "random", "halving")
# Trials of a search object that train side by side, unless said otherwise.
_PROPOSED_TOGETHER = 8


_FIELDS = {
    "num_trials": Field(None, int, COUNT, optional=True),
    "search_seed": ANY_SEED,
    "min_rounds": Field(10, int, NON_NEGATIVE),
    "reduction": Field(3, int, Interval(2)),
    "together": Field(0, int, NON_NEGATIVE),
    "memory_gb": Field(None, float, POSITIVE, optional=True),
    "wandb": Field("trials", str, ("trials", "table")),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A sweep.

    Attributes:
      axes: {name: values}, or {name: `choice`, `uniform` or `log_uniform`} to draw from. Names are
        keys of the configuration, nested ones with dots.
      search: "grid" tries all combinations, "random" draws `num_trials` of them; "halving" takes
        either and stops poor trials early. Or an object that proposes trials as it goes, see
        `fljax.studies.search`; it says what is tried with which seeds, and `axes`, `num_trials` and
        `seeds` stay out.
      num_trials: Configurations to draw.
      seeds: Each configuration runs once with each.
      search_seed: Seed of the draws.
      criterion: What trials are compared by: see `fljax.studies.selection`.
      min_rounds: Rounds before "halving" may stop a trial.
      reduction: One in so many goes on at each rung of "halving".
      together: Trials that train side by side; 0 takes as many as memory allows, of those that a
        search object proposes at most 8: the more it has to propose at once, the less it knows.
      memory_gb: Bound of the memory that the process may use, in 10^9 bytes (of the device's, on an
        accelerator); None is half of what there is.
      wandb: What goes to W&B where the configuration turns it on: "trials", a run for each, or
        "table", one run with the last rows of all.
    """

    axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    search: str | Any = "grid"
    num_trials: int | None = None
    seeds: Sequence[int] = (0,)
    search_seed: int = 0
    criterion: Criterion = BY_ACCURACY
    min_rounds: int = 10
    reduction: int = 3
    together: int = 0
    memory_gb: float | None = None
    wandb: str = "trials"

    def __post_init__(self):
        for name, field in _FIELDS.items():
            object.__setattr__(self, name, checked(name, getattr(self, name), field))
        if not isinstance(self.axes, Mapping):
            raise wrong("axes", self.axes, "{name of a key: its values}")
        if not isinstance(self.criterion, Criterion):
            raise wrong("criterion", self.criterion, "a fljax.studies.Criterion")
        if isinstance(self.search, str):
            checked("search", self.search, Field("grid", str, SEARCHES))
        object.__setattr__(self, "seeds", tuple(checked_seeds(self.seeds)))

    @property
    def is_open(self) -> bool:
        """Whether trials are proposed as the sweep goes, not listed from the start."""
        return not isinstance(self.search, str)

    def as_plain(self) -> dict[str, Any]:
        """Returns the settings as JSON can hold them; what is drawn from in words."""
        axes = {
            name: str(axis) if isinstance(axis, Choice | Uniform | LogUniform) else axis
            for name, axis in self.axes.items()
        }
        said = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        search = type(self.search).__name__ if self.is_open else self.search
        return plain(said | {"axes": axes, "search": search})

    def most_together(self, listed: int) -> int:
        """Returns how many trials of a group are wanted side by side.

        Args:
          listed: Trials of the group that are known.
        """
        return self.together or (_PROPOSED_TOGETHER if self.is_open else listed)


def trials_of(settings: Settings) -> list[Trial]:
    """Returns the trials of a sweep that are known from the start.

    Raises:
      ValueError: If the settings contradict each other.
    """
    if settings.is_open:
        _check_open(settings)
    if settings.is_open:
        return []
    drawn = [isinstance(one, Choice | Uniform | LogUniform) for one in settings.axes.values()]
    is_drawn = any(drawn) if settings.search == "halving" else settings.search == "random"
    if not is_drawn:
        if settings.num_trials is not None:
            raise ValueError(
                f"num_trials = {settings.num_trials}, but a grid tries every combination of the "
                "axes. Leave it out, or draw from the axes: search='random' with "
                "log_uniform(1e-3, 1), choice(...)."
            )
        return repeat(grid(settings.axes), settings.seeds)
    if settings.num_trials is None:
        raise ValueError("A random search needs num_trials, how many configurations to draw.")
    points = sample(settings.axes, settings.num_trials, settings.search_seed)
    return repeat(points, settings.seeds)


def _check_open(settings: Settings) -> None:
    """Raises ValueError if a search object cannot be asked, or something is said twice."""
    name = type(settings.search).__name__
    if lacking := [one for one in METHODS if not callable(getattr(settings.search, one, None))]:
        raise ValueError(
            f"search = {settings.search!r} is neither one of {', '.join(SEARCHES)} nor a search: "
            f"{name} has no {lacking[0]}(). See fljax.studies.search for the five methods."
        )
    given = {"axes": settings.axes, "num_trials": settings.num_trials}
    given["seeds"] = tuple(settings.seeds) != (0,)
    if said := [one for one, value in given.items() if value]:
        raise ValueError(
            f"{said[0]} is given, but {name} says itself what is tried: the trials it proposes "
            f"have values and a seed. Leave {said[0]} out."
        )


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Returns the settings of a sweep; raises TypeError for names that do not exist."""
    known = [field.name for field in dataclasses.fields(Settings)]
    for name in given:
        if name not in known:
            raise TypeError(unknown("setting of a sweep", name, known))
    return Settings(**given)


def judged_late(settings: Settings, num_rounds: int, eval_every: int) -> str:
    """Says which rungs of successive halving no evaluation meets; empty where all are met.

    Args:
      settings: Of the sweep.
      num_rounds: Rounds of a trial that is never stopped.
      eval_every: Rounds between evaluations.

    Raises:
      ValueError: If no evaluation could ever stop a trial.
    """
    if settings.search != "halving":
        return ""
    if not eval_every:
        raise ValueError("Halving judges trials at evaluations: set eval_every above 0.")
    rungs = rungs_of(settings.min_rounds, num_rounds, settings.reduction)
    met = {rung: -(-rung // eval_every) * eval_every for rung in rungs}
    if met[rungs[0]] >= num_rounds:
        raise ValueError(
            f"Halving judges trials at evaluations. With eval_every = {eval_every} the first one "
            f"from min_rounds = {settings.min_rounds} on is that of round {met[rungs[0]]}, but a "
            f"trial has {num_rounds} rounds: none would ever be stopped. Lower eval_every, such as "
            f"to {settings.min_rounds}."
        )
    late = {rung: round for rung, round in met.items() if round > rung}
    places = ", ".join(f"{rung} at round {round}" for rung, round in late.items())
    if not late:
        return ""
    return f"eval_every = {eval_every} does not divide all rungs of halving: judged {places}"


def search_of(settings: Settings, trials: Sequence[Trial], num_rounds: int) -> Any:
    """Returns the search of a sweep; trials that are listed have so many rounds at most."""
    if settings.is_open:
        return settings.search
    if settings.search != "halving":
        return given(trials)
    maximize = settings.criterion.maximize
    return successive_halving(trials, settings.min_rounds, num_rounds, settings.reduction, maximize)

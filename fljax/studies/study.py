"""A study: what is compared, with which seeds, how it is searched, and what is shown of it."""

from __future__ import annotations

import ast
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fljax.config import ConfigError, call_in_file
from fljax.core.names import nearest, unknown
from fljax.core.values import (
    COUNT,
    NON_NEGATIVE,
    POSITIVE,
    Field,
    Interval,
    checked,
    sequence,
    shown,
    wrong,
)
from fljax.recording.jsonio import plain
from fljax.studies.criterion import Criterion
from fljax.studies.search import METHODS, given, rungs_of, successive_halving
from fljax.studies.space import (
    ANY_SEED,
    RESERVED,
    Choice,
    LogUniform,
    Trial,
    Uniform,
    checked_seeds,
    grid,
    repeat,
    sample,
)

SEARCHES = ("grid", "random", "halving")
# Trials of a search object that train side by side, unless said otherwise.
_PROPOSED_PARALLEL_TRIALS = 8

_NAMED = {"columns": "gap", "pictures": "curves", "together": "alie"}
_FIELDS = {
    "num_trials": Field(None, int, COUNT, optional=True),
    "search_seed": ANY_SEED,
    "faced": Field("attack", str),
    "min_rounds": Field(10, int, NON_NEGATIVE),
    "reduction": Field(3, int, Interval(2)),
    "parallel_trials": Field(0, int, NON_NEGATIVE),
    "memory_gb": Field(None, float, POSITIVE, optional=True),
    "wandb": Field("trials", str, ("trials", "table")),
}


@dataclasses.dataclass(frozen=True)
class Study:
    """Many runs of one base configuration.

    Every variant runs with every combination of the axes' values and every seed. A sweep is a study
    with axes alone.

    Attributes:
      axes: {name: values}, or {name: `choice`, `uniform` or `log_uniform`} to draw from. Names are
        keys of the configuration, nested ones with dots.
      search: "grid" tries all combinations, "random" draws `num_trials` of them; "halving" takes
        either and stops poor trials early. Or an object that proposes trials as it goes, see
        `fljax.studies.search`; it says what is tried with which seeds, and `variants`, `axes`,
        `num_trials` and `seeds` stay out.
      num_trials: Configurations to draw.
      seeds: Each configuration runs once with each.
      search_seed: Seed of the draws.
      criterion: What trials are compared by: see `fljax.studies.criterion`. None is the task's
        first metric, on validation data (of proposed trials, the accuracy).
      min_rounds: Rounds before "halving" may stop a trial.
      reduction: One in so many goes on at each rung of "halving".
      parallel_trials: The most trials that train side by side; 0 takes as many as memory allows,
        of those that a search object proposes at most 8: the more it has to propose at once, the
        less it knows.
      memory_gb: Bound of the memory that the process may use, in 10^9 bytes (of the device's, on an
        accelerator); None is half of what there is.
      wandb: What goes to W&B where the configuration turns it on: "trials", a run for each, or
        "table", one run with the last rows of all.
      variants: {name: {key: value}}: what is compared, by what each changes in the base
        configuration; nested keys with dots. Several axes' values of one variant are tuned: its
        best ones, by validation data, are compared.
      faced: Name of the axis, if there is one, that trials face and nobody chooses: all else is
        compared over its values, of which "none" is the ordinary one.
      together: Values of the axis "attack" that share a program, which compiles less and computes
        each of them in every round.
      reference: The variant that the others are measured against, seed by seed.
      columns: Of the report's table, beside the reported metric: names of
        `fljax.studies.comparison.COLUMNS`, or record keys such as "eval/test/loss".
      pictures: Names of `fljax.studies.pictures.KINDS`; empty takes those that fit what is
        compared.

    Example:
      >>> variants = {"fedavg": {}, "fedprox": {"algorithm": "fedprox", "mu": 0.1}}
      >>> studies.Study(variants=variants, reference="fedavg", seeds=(0, 1, 2)).search
      'grid'
    """

    axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    search: str | Any = "grid"
    num_trials: int | None = None
    seeds: Sequence[int] = (0,)
    search_seed: int = 0
    criterion: Criterion | None = None
    min_rounds: int = 10
    reduction: int = 3
    parallel_trials: int = 0
    memory_gb: float | None = None
    wandb: str = "trials"
    variants: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    faced: str = "attack"
    together: Sequence[str] = ()
    reference: str | None = None
    columns: Sequence[str] = ()
    pictures: Sequence[str] = ()

    def __post_init__(self):
        for name, field in _FIELDS.items():
            object.__setattr__(self, name, checked(name, getattr(self, name), field))
        if not isinstance(self.axes, Mapping):
            raise wrong("axes", self.axes, "{name of a key: its values}")
        if not isinstance(self.criterion, Criterion | None):
            raise wrong("criterion", self.criterion, "a fljax.studies.Criterion, or None")
        if isinstance(self.search, str):
            checked("search", self.search, Field("grid", str, SEARCHES))
        object.__setattr__(self, "seeds", tuple(checked_seeds(self.seeds)))
        for name in _NAMED:
            what = f"a list of names, such as ({_NAMED[name]!r},)"
            names = sequence(name, getattr(self, name), what)
            if not all(isinstance(entry, str) for entry in names):
                raise wrong(name, names, what)
            object.__setattr__(self, name, tuple(names))
        _check_variants(self.variants, self.axes)
        _check_faced(self)

    @property
    def faced_axis(self) -> str | None:
        """The axis that trials face; None where there is none."""
        return self.faced if self.faced in self.axes else None

    @property
    def is_open(self) -> bool:
        """Says whether trials are proposed as the study goes, not listed from the start."""
        return not isinstance(self.search, str)

    def as_plain(self) -> dict[str, Any]:
        """Returns the study as JSON can hold it; what is drawn from in words."""
        axes = {
            name: str(axis) if isinstance(axis, Choice | Uniform | LogUniform) else axis
            for name, axis in self.axes.items()
        }
        said = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        search = type(self.search).__name__ if self.is_open else self.search
        return plain(said | {"axes": axes, "search": search})

    def most_side_by_side(self, listed: int) -> int:
        """Returns how many trials of a group are wanted side by side.

        Args:
          listed: Trials of the group that are known.
        """
        return self.parallel_trials or (_PROPOSED_PARALLEL_TRIALS if self.is_open else listed)


def _check_variants(variants: Any, axes: Mapping[str, Any]) -> None:
    """Raises ValueError for variants that name or change nothing that a trial has."""
    if not isinstance(variants, Mapping):
        raise wrong("variants", variants, "{name: {key: value}}")
    for name, values in variants.items():
        if not (isinstance(name, str) and name.strip()):
            raise wrong("the name of a variant", name, "a text")
        if not isinstance(values, Mapping):
            raise wrong(f"variants[{name!r}]", values, "{key: value}")
        if taken := [key for key in values if key in RESERVED]:
            raise ValueError(
                f"variants[{name!r}] changes {taken[0]}, which is no key that variants differ in; "
                "seeds are the same for all of them: seeds=(0, 1, 2)."
            )
        if twice := [key for key in values if key in axes]:
            raise ValueError(
                f"{twice[0]} is an axis, and variants[{name!r}] sets it. Leave it out of one."
            )


def _check_faced(study: Study) -> None:
    """Raises ValueError for an axis that is faced and is not there, or is halved."""
    if study.faced not in ("attack", *study.axes):
        raise ValueError(
            f"faced = {study.faced!r} is none of the axes: {', '.join(study.axes) or 'none'}. "
            "Name one of them, or leave it out."
        )
    if alone := [text for text in study.together if text not in study.axes.get("attack", ())]:
        raise ValueError(
            f"together names {alone[0]!r}, which the axis attack does not. Leave it out."
        )
    if study.faced_axis and study.search == "halving":
        raise ValueError(
            f"Halving would stop trials for the {study.faced} that they face, which nobody "
            "chooses. Use search='grid', or leave the axis out."
        )


def check_reference(study: Study) -> None:
    """Raises ValueError for a reference that is none of the variants."""
    if study.reference is not None and study.reference not in study.variants:
        near = nearest(study.reference, study.variants)
        raise ValueError(
            f"reference = {study.reference!r} is none of the variants: "
            f"{', '.join(study.variants) or 'none'}. "
            f"{f'Did you mean {near!r}? ' if near else ''}Add it to them (on a command line "
            f"--variant={study.reference!r}), or set reference to one of them."
        )


def study_of(given: Mapping[str, Any]) -> Study:
    """Returns the study of some settings; raises TypeError for names that do not exist."""
    if wrong_names := _unknown_settings(given):
        raise TypeError(wrong_names[0])
    return Study(**given)


def _unknown_settings(given: Iterable[Any]) -> list[str]:
    known = [field.name for field in dataclasses.fields(Study)]
    return [unknown("setting of a study", name, known) for name in given if name not in known]


def listed_trials(study: Study) -> list[Trial]:
    """Returns the trials of a study that are known from the start.

    Raises:
      ValueError: If the settings contradict each other.
    """
    if study.is_open:
        _check_open(study)
        return []
    return repeat(_configurations(study), study.seeds, tuple(study.variants) or ("",))


def _configurations(study: Study) -> list[dict[str, Any]]:
    drawn = [isinstance(axis, Choice | Uniform | LogUniform) for axis in study.axes.values()]
    is_drawn = any(drawn) if study.search == "halving" else study.search == "random"
    if not is_drawn:
        if study.num_trials is not None:
            raise ValueError(
                f"num_trials = {study.num_trials}, but a grid tries every combination of the "
                "axes. Leave it out, or draw from the axes: search='random' with "
                "log_uniform(1e-3, 1), choice(...)."
            )
        return [{}] if study.variants and not study.axes else grid(study.axes)
    if study.num_trials is None:
        raise ValueError("A random search needs num_trials, how many configurations to draw.")
    return sample(study.axes, study.num_trials, study.search_seed)


def _check_open(study: Study) -> None:
    """Raises ValueError if a search object cannot be asked, or something is said twice."""
    name = type(study.search).__name__
    if lacking := [name for name in METHODS if not callable(getattr(study.search, name, None))]:
        raise ValueError(
            f"search = {study.search!r} is neither one of {', '.join(SEARCHES)} nor a search: "
            f"{name} has no {lacking[0]}(). See fljax.studies.search for the five methods."
        )
    given = {name: getattr(study, name) for name in ("axes", "num_trials", "variants")}
    given["seeds"] = study.seeds != (0,)
    if said := [name for name, value in given.items() if value]:
        raise ValueError(
            f"{said[0]} is given, but {name} says itself what is tried: the trials it proposes "
            f"have values and a seed. Leave {said[0]} out."
        )


def judged_late(study: Study, num_rounds: int, eval_every: int) -> str:
    """Says which rungs of successive halving no evaluation meets; empty where all are met.

    Args:
      study: The study.
      num_rounds: Rounds of a trial that is never stopped.
      eval_every: Rounds between evaluations.

    Raises:
      ValueError: If no evaluation could ever stop a trial.
    """
    if study.search != "halving":
        return ""
    if not eval_every:
        raise ValueError("Halving judges trials at evaluations: set eval_every above 0.")
    rungs = rungs_of(study.min_rounds, num_rounds, study.reduction)
    met = {rung: -(-rung // eval_every) * eval_every for rung in rungs}
    if met[rungs[0]] >= num_rounds:
        raise ValueError(
            f"Halving judges trials at evaluations. With eval_every = {eval_every} the first one "
            f"from min_rounds = {study.min_rounds} on is that of round {met[rungs[0]]}, but a "
            f"trial has {num_rounds} rounds: none would ever be stopped. Lower eval_every, such as "
            f"to {study.min_rounds}."
        )
    late = {rung: round for rung, round in met.items() if round > rung}
    places = ", ".join(f"{rung} at round {round}" for rung, round in late.items())
    if not late:
        return ""
    return f"eval_every = {eval_every} does not divide all rungs of halving: judged {places}"


def search_of(study: Study, trials: Sequence[Trial], num_rounds: int) -> Any:
    """Returns the search of a study; trials that are listed have so many rounds at most."""
    if study.is_open:
        return study.search
    if study.search != "halving":
        return given(trials)
    maximize = study.criterion.maximize
    return successive_halving(trials, study.min_rounds, num_rounds, study.reduction, maximize)


def load_study(path: str | os.PathLike, needed: bool = True) -> dict[str, Any]:
    """Returns the settings that a config file names, as `fljax.sweep` takes them.

    Args:
      path: Python file that defines `get_study()`, or `get_sweep()` for axes alone; "file.py:text"
        calls it with "text".
      needed: Whether a file without them is refused; False where axes stand elsewhere.

    Example:
      >>> studies.load_study("configs/sweep_alpha.py")["seeds"]  # doctest: +SKIP
      (0, 1, 2)

    Raises:
      FileNotFoundError: If there is no such file.
      ConfigError: If the file has neither, or it returns no dict, or one with other names.
    """
    found = (call_in_file(path, name) for name in ("get_study", "get_sweep"))
    settings = next((settings for settings in found if settings is not None), None)
    if settings is None and needed:
        raise ConfigError(
            f"{path} defines no function get_study() or get_sweep(). Add one that returns the "
            "settings of the study, or name axes: --axis=client_lr=0.01,0.1."
        )
    if not isinstance(settings, Mapping | None):
        raise ConfigError(
            f"{path} returns {shown(settings)} as its study; it must return a dict of settings, "
            "such as {'variants': ..., 'axes': ..., 'seeds': (0, 1, 2)}."
        )
    if wrong_names := _unknown_settings(settings or ()):
        raise ConfigError(f"{path}: {wrong_names[0]}.")
    return dict(settings or {})


def parse_axes(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Returns the axes that "client_lr=0.01,0.1" and the like describe.

    Example:
      >>> studies.parse_axes(["client_lr=0.1,1", "model=mlp"])
      {'client_lr': (0.1, 1), 'model': ('mlp',)}

    Raises:
      ConfigError: If a text has another form.
    """
    axes = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise ConfigError(f"--axis={text} must have the form NAME=VALUE,VALUE,...")
        if name in axes:
            raise ConfigError(f"--axis={text} names {name!r} a second time. List all its values.")
        axes[name] = tuple(_value(value) for value in _split(values))
    return axes


def parse_variants(
    texts: Sequence[str], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Returns the variants that texts name, or describe: "NAME: KEY=VALUE, KEY=VALUE".

    Args:
      texts: Such as "none", or "coarse: uplink=qsgd(2), uplink_memory=error_feedback".
      known: Those that can be called by name.

    Example:
      >>> studies.parse_variants(["coarse: uplink=qsgd(2)"], {})
      {'coarse': {'uplink': 'qsgd(2)'}}

    Raises:
      ConfigError: If a text has another form, or names no variant.
    """
    variants = {}
    for text in texts:
        if text in known:
            variants[text] = known[text]
            continue
        name, colon, pairs = (part.strip() for part in text.partition(":"))
        if not colon and "=" not in text:
            near = nearest(text, known)
            there = f"There are: {', '.join(known)}." if known else "It has none."
            raise ConfigError(
                f"--variant={text} names no variant of the file. "
                f"{f'Did you mean {near!r}?' if near else there} A new one is written NAME: "
                "KEY=VALUE, KEY=VALUE."
            )
        overrides = [pair.partition("=") for pair in _split(pairs)]
        if not (name and all(key.strip() and value for key, _, value in overrides)):
            raise ConfigError(
                f"--variant={text} must have the form NAME: KEY=VALUE, KEY=VALUE, such as "
                "'slow: client_lr=0.01'."
            )
        keys = [key.strip() for key, _, _ in overrides]
        if name in variants or len(set(keys)) < len(keys):
            what = f"the variant {name!r}" if name in variants else "a key"
            raise ConfigError(f"--variant={text} names {what} twice. Name it once.")
        variants[name] = {key.strip(): _value(value) for key, _, value in overrides}
    return variants


def _split(text: str) -> list[str]:
    """Splits at commas, but for those in brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if letter in "'\"" and quote in ("", letter):
            quote = "" if quote else letter
        elif not quote:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _value(text: str) -> Any:
    """Returns a number, truth value or None where the text is one, else the text."""
    try:
        return ast.literal_eval(text.strip())
    except (SyntaxError, ValueError):
        return text.strip()

"""Rewrites the arguments of the console as flags: a configuration's name, and a place for a run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from absl import flags

# Whoever goes on with a run, or makes one in several processes, has to say where; who only asks
# what a run would be needs no place.
_WITHOUT = (
    "workdir", "resume", "distributed", "coordinator_address", "process_id", "share", "dry_run",
    "privacy",
)  # fmt: skip
# Launchers set these for processes that start in the same second.
_RANKS = (
    "FLJAX_SWEEP_RANK", "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "OMPI_COMM_WORLD_RANK",
    "JAX_PROCESS_ID",
)  # fmt: skip


def with_config(argv: list[str], defined: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Returns arguments in which `--config` names a file, wherever a configuration is named.

    Args:
      argv: The program and its arguments; the first one that is no flag, or what `--config` says,
        is a path or the name of a configuration of ours.
      defined: The flags that there are.

    Raises:
      FileNotFoundError: If there is no such configuration.
      ValueError: If two are named.

    Example:
      >>> values = flags.FlagValues()
      >>> program, config, key = with_config(["fljax", "quickstart", "--config.seed=5"], values)
      >>> Path(config).name, key
      ('quickstart.py', '--config.seed=5')
    """
    from fljax.config.shipped import located

    program, *rest = argv
    named, others = [], []
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.lstrip("-").partition("=")
        if argument == "--":
            named, others, rest = [*named, *rest], others, []
        elif not argument.startswith("-"):
            named.append(argument)
        elif name == "config":
            named.append(value if equals or not rest else rest.pop(0))
        else:
            others.append(argument)
            if rest and not equals and takes_value(name, defined):
                others.append(rest.pop(0))
    if len(named) > 1:
        raise ValueError(f"One configuration is needed, not {len(named)}: {', '.join(named)}.")
    return [program, *(f"--config={located(text)}" for text in named), *others]


def takes_value(name: str, defined: flags.FlagValues = flags.FLAGS) -> bool:
    """Tells if a flag without "=" has its value in the next argument.

    Args:
      name: Of the flag, such as "seeds" or "config.num_rounds".
      defined: The flags that there are.

    Example:
      >>> takes_value("config.num_rounds"), takes_value("config.calibrate")
      (True, False)
    """
    from fljax.config.schema import FIELDS

    if name.startswith("config."):
        field = FIELDS.get(name.removeprefix("config."))
        return getattr(field, "kind", None) is not bool
    return name in defined and not defined[name].boolean


def needs_a_place(argv: list[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Tells if a command is to be given a new folder: none is named, shared, or gone on with.

    Args:
      argv: The program and its arguments.
      environment: In which a launcher says a rank.

    Example:
      >>> needs_a_place(["fljax", "--seeds=3"], {}), needs_a_place(["fljax", "--resume"], {})
      (True, False)
    """
    given = {argument.lstrip("-").partition("=")[0] for argument in argv if argument[:1] == "-"}
    return not given & {*_WITHOUT} and not environment.keys() & {*_RANKS}


def place(name: str, argv: list[str]) -> str:
    """Returns a new folder's path for what a command leaves behind: `runs/NAME-DATE-TIME`.

    Args:
      name: Of the command, where no configuration and no run is named.
      argv: Flags, as `with_config` returns them.

    Example:
      >>> place("audit", ["fljax", "--run=runs/first"]).startswith("runs/first-2")
      True
    """
    for argument in argv:
        flag, _, value = argument.lstrip("-").partition("=")
        if flag in ("config", "run") and value:
            file, _, text = value.partition(":")
            name = "-".join(filter(None, (Path(file).stem, text)))
    path = Path("runs", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    taken = (path.with_name(f"{path.name}-{number}") for number in range(2, 1000))
    return str(next((free for free in (path, *taken) if not free.exists()), path))

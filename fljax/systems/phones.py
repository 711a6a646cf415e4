"""Phones as FLASH measured them: how long they train, how fast their links are, which there are.

FLASH (Yang et al., WWW 2021, arXiv:2006.06983) timed training on three phones, ranked the models of
a population by the scores of ai-benchmark.com, and measured the links of 19 users. Its files are
not part of fljax: https://github.com/PKU-Chengxu/FLASH has them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.archives import refused
from fljax.core.data_files import located, read_json
from fljax.core.values import COUNT, FACTOR, NON_NEGATIVE, Field, checked, sequence
from fljax.systems.devices import Devices
from fljax.systems.drawn import by_shares

# Milliseconds of a training batch on the three phones, in the order of supported_devices.json, and
# how many phones of FLASH's population are nearest to each.
MEASURED = {
    "femnist": (1642.0, 588.0, 179.0),
    "reddit": (2596.0, 916.0, 527.7),
    "celeba": (5392.0, 1355.0, 561.0),
    "shakespeare": (28621.0, 13579.0, 10681.0),
}
SHARES = (18820, 16428, 159)
_SCORES, _MEASURED, _CODES = "benchmark2score.json", "supported_devices.json", "real2benchmark.json"
_LINKS, _LIST = "speed_distri.json", "raw_ai_benchmark_list.json"
_COUNT = Field(None, int, COUNT)
_SHARE = Field(None, float, FACTOR, optional=True)


class Phones(NamedTuple):
    """The phone models of FLASH's files, and the links of their users.

    Attributes:
      names: M models, in the files' order.
      scores: float64[M] their scores; higher is faster.
      measured: int64[3] which of them were timed.
      nearest: int64[M] which of the three each model's score is nearest to.
      links: float64[U, 4] megabits a second of U users: down, its standard deviation, up, its.
      ram_gb: float64[M] gigabytes of memory.
      codes: {code that a phone reports: its place among the models}, of those that are ranked.
    """

    names: tuple[str, ...]
    scores: np.ndarray
    measured: np.ndarray
    nearest: np.ndarray
    links: np.ndarray
    ram_gb: np.ndarray
    codes: Mapping[str, int]


def phones(
    num_clients: int,
    seed: int = 0,
    models: str | Sequence[str] = "measured",
    times: str = "nearest",
    task: str = "femnist",
    links: str = "kilobits",
    vary: bool = True,
    memory_share: float | None = None,
    spread: float = 0.0,
    folder: str | os.PathLike = "devices",
) -> Devices:
    """Gives clients phones that FLASH measured or ranked, and the links of its users.

    A phone that was not timed takes the time of the timed one whose score is nearest to its own:
    FLASH's rule (`times` = "nearest"). "fitted" instead fits a power of the score to the three, by
    least squares of logarithms; for FEMNIST that is 31.3 s x score^-0.480, which gives the three
    1.10, 0.77 and 1.18 times what was measured.

    Each client has the links of one of the users, drawn with one chance. In FLASH the speed of a
    transfer is normal with that user's mean and deviation, drawn again while it is negative; few
    transfers are very slow, and the mean time of one has no bound, which deadlines are for.

    Args:
      num_clients: N.
      seed: Of the draws.
      models: "measured" draws one of the three timed phones by its share of the population,
        18820 : 16428 : 159; "ranked" draws among all models, with one chance; a list has the codes
        that phones report, such as `fljax.systems.flash.States.models`: client i has code i, and
        the list starts again at its end. Of codes that are not ranked, as in FLASH, one of the
        three phones is drawn.
      times: "nearest" or "fitted".
      task: What was timed, batches of 10 (Shakespeare: 100): a name of `MEASURED`.
      links: What the files mean by kb: "kilobits", or "kilobytes" as the official code computes
        with them, which is eight times as fast.
      vary: Whether jobs of a client have speeds of their own, as in FLASH; otherwise all have the
        user's mean.
      memory_share: Share of a phone's memory that training may take; None is no bound.
      spread: See `Devices`. FLASH draws a batch's time with a deviation of 1 to 6 %.
      folder: That has the files; also looked for in the data directory.

    Returns:
      Devices whose tiers are the three timed phones; each belongs to the nearest.

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file is of another form, or an argument is none of the above.

    Example:
      >>> fleet = phones(1000, models="ranked", times="fitted")  # doctest: +SKIP
    """
    num_clients = checked("num_clients", num_clients, _COUNT)
    times = checked("times", times, Field("nearest", str, ("nearest", "fitted")))
    task = checked("task", task, Field("femnist", str, tuple(MEASURED)))
    links = checked("links", links, Field("kilobits", str, ("kilobits", "kilobytes")))
    vary = checked("vary", vary, Field(True, bool))
    memory_share = checked("memory_share", memory_share, _SHARE)
    known = read_phones(folder)
    model = _models(known, num_clients, seed, models)
    clients = np.arange(num_clients)
    user = (random.uniform(seed, "systems/phones/user", clients) * len(known.links)).astype(int)
    down, down_sd, up, up_sd = known.links[user].T * (8 if links == "kilobytes" else 1)
    nothing = np.zeros(num_clients)
    gigabytes = np.inf if memory_share is None else memory_share * known.ram_gb[model]
    return Devices(
        step_seconds=step_seconds(known, times, task)[model],
        flops=None,
        uplink_mbps=up,
        downlink_mbps=down,
        memory_gb=np.broadcast_to(gigabytes, (num_clients,)),
        compute_watts=nothing,
        radio_watts=nothing,
        tier=known.nearest[model].astype(np.int32),
        tiers=tuple(known.names[place] for place in known.measured),
        spread=checked("spread", spread, Field(None, float, NON_NEGATIVE)),
        uplink_sd=up_sd if vary else None,
        downlink_sd=down_sd if vary else None,
    )


def step_seconds(known: Phones, times: str, task: str) -> np.ndarray:
    """Returns float64[M] seconds that each model takes for a batch; see `phones`.

    Example:
      >>> from fljax.systems.phones import Phones, step_seconds
      >>> scores = np.array([400.0, 6400, 25600, 500])
      >>> none = np.zeros(0)
      >>> known = Phones(("a",) * 4, scores, np.arange(3), np.array([0, 1, 2, 0]), none, none, {})
      >>> step_seconds(known, "nearest", "femnist").tolist()
      [1.642, 0.588, 0.179, 1.642]
    """
    measured = np.array(MEASURED[task]) / 1000
    if times == "nearest":
        return measured[known.nearest]
    x, y = np.log(known.scores[known.measured]), np.log(measured)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return np.exp(y.mean() + slope * (np.log(known.scores) - x.mean()))


def read_phones(folder: str | os.PathLike = "devices") -> Phones:
    """Reads FLASH's files.

    Args:
      folder: That has them; also looked for in the data directory.

    Raises:
      FileNotFoundError: If one is missing.
      ValueError: If one is of another form.

    Example:
      >>> len(read_phones("devices").names)  # doctest: +SKIP
      307
    """
    place = located(folder)
    scored = read_json(located(place / _SCORES))
    names, scores = tuple(scored), np.array(list(scored.values()), np.float64)
    at = {name: number for number, name in enumerate(names)}
    timed = read_json(located(place / _MEASURED))
    if len(timed) != len(SHARES) or not all(name in at for name in timed):
        raise refused(place / _MEASURED, f"names other than {len(SHARES)} models with a score")
    if not (scores > 0).all():
        raise refused(place / _SCORES, "holds a score that is not positive")
    measured = np.array([at[name] for name in timed])
    apart = np.abs(scores[:, None] - scores[measured])
    codes = read_json(located(place / _CODES))
    return Phones(
        names,
        scores,
        measured,
        np.argmin(apart, axis=1),
        _links(located(place / _LINKS)),
        _ram(located(place / _LIST), names),
        {code: at[name] for code, name in codes.items() if name in at},
    )


def _models(known: Phones, num_clients: int, seed: int, models) -> np.ndarray:
    """Returns int64[N] which model each client has."""
    timed = known.measured[by_shares(num_clients, seed, SHARES)]
    if isinstance(models, str):
        models = checked("models", models, Field("measured", str, ("measured", "ranked")))
        if models == "measured":
            return timed
        drawn = random.uniform(seed, "systems/phones/model", np.arange(num_clients))
        return (drawn * len(known.names)).astype(np.int64)
    codes = sequence("models", models, "'measured', 'ranked', or a list of codes")
    if not len(codes):
        raise ValueError("models is an empty list; give the code of at least one phone.")
    ranked = np.array([known.codes.get(code, -1) for code in codes])
    ranked = ranked[np.arange(num_clients) % len(codes)]
    return np.where(ranked < 0, timed, ranked)


def _links(path: Path) -> np.ndarray:
    """Returns float64[U, 4] megabits a second of users: down, its deviation, up, its."""
    columns = ("down_u", "down_sigma", "up_u", "up_sigma")
    try:
        found = [[float(user[name]) for name in columns] for user in read_json(path).values()]
    except (AttributeError, KeyError, TypeError, ValueError):
        found = []
    links = np.array(found).reshape(-1, 4) / 1000
    if not len(links) or not ((links[:, ::2] > 0).all() and (links >= 0).all()):
        raise refused(path, f"holds no {{user: {{{', '.join(columns)}}}}} of positive speeds")
    return links


def _ram(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """Returns float64[M] gigabytes of models, as the first line of each says."""
    said: dict[str, float] = {}
    for line in read_json(path):
        found = re.fullmatch(r"([\d.]+)GB", line["RAM"])
        if found is None:
            raise refused(path, f"says that {line['Model']} has {line['RAM']}, and not 4GB or so")
        said.setdefault(line["Model"], float(found[1]))
    if missing := [name for name in names if name not in said]:
        raise refused(path, f"does not say how much memory {missing[0]} has")
    return np.array([said[name] for name in names])

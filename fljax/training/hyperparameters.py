"""Gathers the numbers that a round reads: of trials, of rounds, and of each client's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core.algorithm import AlgorithmSpec
from fljax.core.per_client import check_length
from fljax.core.transforms import Pipeline, PipelineSpec, hparams_of
from fljax.engine.program.inputs import OwnNumbers
from fljax.training.options import PER_CLIENT, RoundOptions


def hyperparameters(spec: AlgorithmSpec, pipeline: Pipeline | PipelineSpec) -> dict[str, float]:
    """Returns {name: number} of all that is traced: the algorithm's and the pipeline's.

    Raises:
      ValueError: If both have a hyperparameter of one name.
    """
    others = hparams_of(pipeline)
    if both := sorted(spec.hparams.keys() & others.keys()):
        raise ValueError(
            f"The algorithm and the pipeline both have a hyperparameter {both[0]!r}. Rename one."
        )
    return {**spec.hparams, **others}


def scheduled(hparams, options: RoundOptions, round):
    """Returns the hyperparameters of a round."""
    schedules = {"client_lr": options.client_lr_schedule, "server_lr": options.server_lr_schedule}
    active = {
        name: hparams[name] * schedule(round)
        for name, schedule in schedules.items()
        if schedule is not None and name in hparams
    }
    return {**hparams, **active}


def own_numbers(options: RoundOptions, num_clients: int, dtype: Any) -> OwnNumbers:
    """Returns what clients have of their own, in the type of the hyperparameters."""
    sizes, privacy = None, options.privacy
    clips = privacy is not None and privacy.mechanism and privacy.mechanism.estimator
    if clips or options.batches == "poisson":
        rows = np.broadcast_to(options.batch_size, num_clients)
        sizes = np.where(rows == 0, np.inf, rows)
    return OwnNumbers(
        *(
            None if values is None else np.asarray(values, dtype)
            for values in (options.client_weights, options.client_lr_factors, sizes)
        )
    )


def check_lengths(options: RoundOptions, num_clients: int) -> None:
    """Refuses numbers of clients' own that are not one for each client."""
    for name in PER_CLIENT:
        value = getattr(options, name)
        if isinstance(value, np.ndarray):
            check_length(name, value, num_clients)

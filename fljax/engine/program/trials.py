"""The trials that share a round program: each has its algorithm and its pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from fljax.core.algorithm import Algorithm, Job
from fljax.core.transforms import Pipeline, pipeline_at, with_combine
from fljax.core.trees import batched
from fljax.engine.program.inputs import Inputs, Program

PyTree = Any


class Built(NamedTuple):
    """An algorithm and a pipeline, built from the hyperparameters of one trial."""

    algorithm: Algorithm
    pipeline: Pipeline


class Trials(NamedTuple):
    """The trials of one round.

    Attributes:
      program, inputs: What the program is made from, and what it is given.
      rounds: int32[S] round number of each trial.
      newest: int32[S] place of each trial's newest message, where the program keeps several.
      first: What is built for the first trial, once a trace: all that there is if it is alone. Of
        several trials it tells what no hyperparameter decides on.
    """

    program: Program
    inputs: Inputs
    rounds: jax.Array
    newest: jax.Array
    first: Built

    @property
    def several(self) -> bool:
        """Says whether there are several trials."""
        return self.program.num_trials > 1

    def select(self, tree: PyTree, trial: jax.Array) -> PyTree:
        """Returns one trial's part of leaves [S, ...]."""
        return jax.tree.map(lambda leaf: leaf[trial if self.several else 0], tree)

    def each(self, function: Callable[..., PyTree], *args: PyTree) -> PyTree:
        """Returns function(built, *args) of every trial; arguments and results are [S, ...]."""

        def one_trial(hparams, round, *args):
            several, program = self.several, self.program
            built = _built(program, self.inputs, hparams, round) if several else self.first
            return function(built, *args)

        every_trial = batched(one_trial, self.program.num_trials)
        return every_trial(self.inputs.hparams, self.rounds, *args)

    def of_job(self, job: Job) -> Built:
        """Returns what is built for a job: of its trial, with its client's learning rate."""
        factors = self.inputs.own.lr_factors
        if factors is None and not self.several:
            return self.first
        hparams = self.select(self.inputs.hparams, job.trial)
        if factors is not None:
            hparams = {**hparams, "client_lr": hparams["client_lr"] * factors[job.client]}
        return _built(self.program, self.inputs, hparams, job.round)


def trials_of(program: Program, inputs: Inputs, rounds: jax.Array, newest: jax.Array) -> Trials:
    """Returns the trials of a round, of which each has a number and a place, int32[S]."""
    hparams = {name: values[0] for name, values in inputs.hparams.items()}
    return Trials(program, inputs, rounds, newest, _built(program, inputs, hparams, rounds[0]))


def _built(
    program: Program, inputs: Inputs, hparams: Mapping[str, jax.Array], round: jax.Array
) -> Built:
    algorithm = program.build(inputs.frozen, hparams, round)
    pipeline = pipeline_at(program.pipeline, hparams)
    return Built(algorithm, with_combine(pipeline, algorithm.combine))

"""Records of the round program: its parts, its inputs, and the state between rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from fljax.core.algorithm import Algorithm
from fljax.core.transforms import Pipeline, PipelineSpec, PipelineState
from fljax.engine.devices.execution import Forms

PyTree = Any
# (frozen, hparams, round) -> Algorithm; called inside the trace.
Build = Callable[[PyTree, Mapping[str, jax.Array], jax.Array], Algorithm]


class Program(NamedTuple):
    """The parts of a round program; see `fljax.engine.program.round.make_round_program`."""

    build: Build
    pipeline: Pipeline | PipelineSpec
    mesh: Mesh
    num_trials: int = 1
    num_versions: int = 1
    forms: Forms = Forms()
    rebased: bool = False

    @property
    def on_cpu(self) -> bool:
        """Says whether it runs on CPUs."""
        return self.mesh.devices.flat[0].platform == "cpu"


class RoundState(NamedTuple):
    """The state between rounds; leaves have a leading axis over trials.

    Attributes:
      server: Server states.
      pipeline: States of the pipeline on the server.
      past: Past messages, leaves [S, V, ...] (`versions.py`), where programs keep several versions.
    """

    server: PyTree
    pipeline: PipelineState
    past: PyTree = ()


class ClientRows(NamedTuple):
    """Persistent state of the cohort's clients, [D, J, ...]; empty tuples where nothing is kept."""

    algorithm: PyTree
    uplink: PyTree


class OwnNumbers(NamedTuple):
    """Numbers of each client's own, [N]; None where all are treated alike.

    Attributes:
      weights: Weights in averages, `Job.weight`.
      lr_factors: What the hyperparameter client_lr is multiplied by in a client's passes.
      batch_sizes: Rows of a batch on average, where batches are drawn, or gradients divided by it:
        a client with fewer rows has them all in each batch.
    """

    weights: jax.Array | None = None
    lr_factors: jax.Array | None = None
    batch_sizes: jax.Array | None = None


class Inputs(NamedTuple):
    """The inputs that stay the same from round to round.

    Attributes:
      data: {name: array} training examples on the devices, or None where plans stage them.
      frozen: Constants of the model.
      hparams: {name: number[S]} one entry a trial.
      keys: PRNG keys [S].
      own: What clients have of their own.
    """

    data: Any
    frozen: PyTree
    hparams: Mapping[str, jax.Array]
    keys: jax.Array
    own: OwnNumbers

"""The blueprint of a federation: its parts, drawn from what was given, and checked.

It says everything of a federation but where its jobs run. Nothing of it is placed on the devices,
so that one blueprint can be built on several layouts of devices, lanes and waves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.algorithms.optimizers import check_starts_anew
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.core.gradients import LocalTask, plain
from fljax.core.reads import Recorded
from fljax.core.task import Task
from fljax.core.transforms import Pipeline, as_configured, with_combine
from fljax.data.dataset import FederatedDataset, Partition, Split, joined
from fljax.data.examples import batch_spec
from fljax.engine.plan.batching import LocalWork, steps_per_job, takes_part, works_of
from fljax.engine.plan.cohorts import Cohorts
from fljax.engine.program.inputs import Build
from fljax.training.attack_checks import check_trigger
from fljax.training.binding import bound
from fljax.training.hyperparameters import check_lengths, hyperparameters, scheduled
from fljax.training.local_work import check_plan_size, local_work, schedules_of, structure_of
from fljax.training.metric_checks import check_metrics
from fljax.training.options import RoundOptions
from fljax.training.preflight import (
    check_classes,
    check_labels,
    check_model,
    check_own_numbers,
    check_read,
    check_root,
    check_schedules,
    warn_of_numbers,
)
from fljax.training.privacy import with_privacy
from fljax.training.robustness import with_robustness
from fljax.training.sampling import make_cohorts
from fljax.training.selection_checks import check_estimate, check_passes
from fljax.training.task_choice import fitted
from fljax.training.timing import ScheduleMaker, is_timed, schedule_maker
from fljax.training.trials import InitialTrials, TrialInputs, initial_trials


class Blueprint(NamedTuple):
    """The parts of a federation.

    Attributes:
      dataset, task, spec: As `fljax.training.federation.build` takes them.
      options: Likewise, with what protects the clients drawn.
      trials: What trains side by side.
      split: The training examples, with the partitions of all trials one after another.
      make_schedule: Makes the schedule of a trial.
      cohorts: Who is drawn for a round.
      num_versions: Versions of a trial's model that the program keeps, the newest one included.
      work: The local work of a client.
      schedules: Of each pass: "local" or "epoch".
      steps: int64[N] local steps of each client of all partitions.
      participants: int64[partitions] clients that ever take part.
      initial: What the trials start from.
      model: Shapes of the model of one trial.
      batch: Shapes of a client's batch.
      local_task: The task as a client of the first trial sees it.
      algorithm: The algorithm of the first trial.
    """

    dataset: FederatedDataset
    task: Task
    spec: AlgorithmSpec
    options: RoundOptions
    trials: Sequence[TrialInputs]
    split: Split
    make_schedule: ScheduleMaker
    cohorts: Cohorts
    num_versions: int
    work: LocalWork
    schedules: Sequence[str]
    steps: np.ndarray
    participants: np.ndarray
    initial: InitialTrials
    model: Variables
    batch: Mapping[str, jax.ShapeDtypeStruct]
    local_task: LocalTask
    algorithm: Algorithm

    @property
    def pipeline(self) -> Pipeline:
        """The transforms between clients and server, with the algorithm's rule among them."""
        return with_combine(as_configured(self.options.pipeline), self.algorithm.combine)


def draw_blueprint(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    trials: Sequence[TrialInputs] | None = None,
    partitions: Sequence[Partition] | None = None,
    waiting: Sequence[TrialInputs] = (),
) -> Blueprint:
    """Draws the parts of a federation; arguments as for `fljax.training.federation.build`.

    Raises:
      ValueError: If options, data and model do not fit together, or local work into memory.
    """
    check_lengths(options, dataset.num_clients)
    task = fitted(task, dataset, options.privacy)
    check_classes(task, dataset)
    check_labels(task, dataset)
    dataset, options = with_robustness(dataset, task, spec, options)
    options = with_privacy(dataset, task, spec, options)
    trials = trials or [TrialInputs(options.seed, hyperparameters(spec, options.pipeline))]
    partitions = partitions or [dataset.train.partition]
    partition = joined(partitions)
    work = local_work(partition.sizes, options)
    make_schedule = schedule_maker(dataset, task, spec, options, work, partition.sizes)
    cohorts = make_cohorts(dataset, options, trials, make_schedule)
    num_versions = cohorts.num_versions
    if waiting and is_timed(options):
        others = make_cohorts(dataset, options, waiting, make_schedule)
        num_versions = max(num_versions, others.num_versions)
    structure = structure_of(task, spec)
    check_passes(spec, options, len(structure.passes), num_versions)
    schedules = schedules_of(task, spec, options.batches)
    has_work = takes_part(partition.sizes, works_of(work, schedules))
    participants = has_work.reshape(len(partitions), -1).sum(1)
    num_models = structure.initial_models
    initial = initial_trials(task, trials, participants, options.initial_params, num_models)
    model, batch = initial.model_shapes, batch_spec(dataset.train.examples.spec, work.width)
    check_schedules(options, initial.hparams_of(0))
    local_task = _bound(task, initial.frozen, dataset, options, initial.hparams_of(0))
    check_model(local_task, model, batch)
    check_metrics(task, local_task, model, batch)
    algorithm = _checked_algorithm(spec, local_task, initial.hparams_of(0), options, model, batch)
    pipeline = with_combine(as_configured(options.pipeline), algorithm.combine)
    check_root(dataset, pipeline)
    if cohorts.has_scale:
        check_estimate(dataset, task, spec, options)
    check_trigger(dataset, task, pipeline)
    warn_of_numbers(spec, trials, partitions, options, cohorts.groups)
    steps = steps_per_job(partition.sizes, work)
    check_plan_size(steps, work, cohorts.max_jobs)
    split = Split(dataset.train.examples, partition)
    return Blueprint(
        dataset, task, spec, options, trials, split, make_schedule, cohorts, num_versions, work,
        schedules, steps, participants, initial, model, batch, local_task, algorithm,
    )  # fmt: skip


def algorithm_builder(blueprint: Blueprint) -> Build:
    """Returns what builds the algorithm inside the round program; it holds no model."""
    dataset, task, spec, options, *_ = blueprint

    def build(frozen, hparams, round):
        return spec.build(
            _bound(task, frozen, dataset, options, hparams), scheduled(hparams, options, round)
        )

    return build


def _bound(
    task: Task,
    frozen: Any,
    dataset: FederatedDataset,
    options: RoundOptions,
    hparams: Mapping[str, Any],
) -> LocalTask:
    estimator, bounded = plain, False
    if options.privacy is not None and (mechanism := options.privacy.mechanism) is not None:
        bounded = mechanism.link is not None
        if mechanism.estimator is not None:
            own = {name: hparams[name] for name in mechanism.hparams}
            estimator = mechanism.estimator(own, options.privacy.setting)
    return bound(
        task, frozen, dataset, estimator=estimator, compute_dtype=options.compute_dtype,
        state_changes=bounded,
    )  # fmt: skip


def _checked_algorithm(spec, local_task, hparams, options, model, batch) -> Algorithm:
    """Returns the algorithm of these hyperparameters; refuses what it would ignore."""
    recorded = Recorded(scheduled(hparams, options, 0))
    algorithm = spec.build(local_task, recorded)
    check_read(spec, algorithm, recorded, options, model, batch)
    check_own_numbers(spec, algorithm, options, model, batch)
    if spec.client_optimizer is not None and not spec.keeps_optimizer:
        check_starts_anew(spec.client_optimizer(hparams), model.params)
    return algorithm

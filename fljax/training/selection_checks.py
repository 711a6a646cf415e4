"""Checks that an algorithm fits what samplers and schedules make of its cohorts."""

from __future__ import annotations

from fljax.core.algorithm import AlgorithmSpec
from fljax.core.parts import name_of
from fljax.core.task import Task
from fljax.core.transforms import as_configured
from fljax.core.values import shown
from fljax.data.dataset import FederatedDataset
from fljax.training.options import RoundOptions
from fljax.training.privacy_checks import weighting_of
from fljax.training.sampling import make_sampler


def check_estimate(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> None:
    """Refuses samplers that scale updates beside weights of clients, which would count twice.

    Likewise beside a schedule that leaves the slow of each cohort out, since the mean of the quick
    is an estimate of something else, and beside a rule that takes no mean.

    Raises:
      ValueError: If the sampler scales updates, and the algorithm's mean is no plain one, goes over
        the quick alone, or is none.
    """
    if not make_sampler(dataset, options, options.seed).has_scale:
        return
    schedule = options.schedule
    if isinstance(schedule, str) and name_of(schedule) == "over_selection":
        raise ValueError(
            f"sampler = {shown(options.sampler)} scales updates so that their plain mean is an "
            f"estimate without bias, and schedule = {shown(schedule)} leaves out the slow of each "
            "cohort, which biases it towards the quick. Choose schedule = 'wait_for_all', or "
            "another sampler."
        )
    if not as_configured(options.pipeline).aggregator.weighs:
        raise ValueError(
            f"sampler = {shown(options.sampler)} scales updates so that their plain mean is an "
            "estimate without bias, and the aggregator compares updates of clients that count "
            "alike. Set sampler = 'uniform', or aggregator = 'mean'."
        )
    weighting = weighting_of(dataset, task, spec, options)
    if weighting != "uniform":
        raise ValueError(
            f"sampler = {shown(options.sampler)} scales updates so that their plain mean is an "
            f"estimate without bias, but {spec.name} weights clients "
            f"({'by their rows' if weighting == 'examples' else 'each by a weight of its own'}) as "
            "well. Set weighting = 'uniform', and leave client_weights out."
        )


def check_passes(
    spec: AlgorithmSpec, options: RoundOptions, num_passes: int, num_versions: int
) -> None:
    """Refuses clients that start from older models beside an algorithm of several passes.

    Its later passes depend on what the clients of the same round sent.

    Raises:
      ValueError: If there are several of both.
    """
    if num_passes > 1 and num_versions > 1:
        schedule = f" = {options.schedule!r}" if isinstance(options.schedule, str) else ""
        raise ValueError(
            f"schedule{schedule} lets clients start from older models, which algorithms of one "
            f"pass do; {spec.name} has {num_passes} passes: use a synchronous schedule, such as "
            "'wait_for_all'."
        )

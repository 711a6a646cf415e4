"""Checks that a sampler whose updates count unequally estimates what it says."""

from __future__ import annotations

from fljax.core.algorithm import AlgorithmSpec
from fljax.core.task import Task
from fljax.core.values import shown
from fljax.data.dataset import FederatedDataset
from fljax.training.options import RoundOptions
from fljax.training.privacy_checks import weighting_of
from fljax.training.sampling import make_sampler


def check_estimate(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> None:
    """Refuses samplers that scale updates beside weights of clients, which would count twice.

    Raises:
      ValueError: If the sampler scales updates, and the algorithm's mean is no plain one.
    """
    if not make_sampler(dataset, options, options.seed).has_scale:
        return
    weighting = weighting_of(dataset, task, spec, options)
    if weighting != "uniform":
        raise ValueError(
            f"sampler = {shown(options.sampler)} scales updates so that their plain mean is an "
            f"estimate without bias, but {spec.name} weights clients "
            f"({'by their rows' if weighting == 'examples' else 'each by a weight of its own'}) as "
            "well. Set weighting = 'uniform', and leave client_weights out."
        )

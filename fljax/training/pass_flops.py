"""Counts the floating-point operations of a step of each pass: of training, or of losses alone."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.algorithm import AlgorithmSpec, ClientPass, Variables
from fljax.core.task import Task
from fljax.data.dataset import FederatedDataset
from fljax.data.examples import batch_spec
from fljax.training.binding import bound
from fljax.training.flops import forward_flops, training_flops
from fljax.training.initialization import initial_shapes
from fljax.training.rehearsal import rehearse


class StepFlops(NamedTuple):
    """The operations of a step, and whether it trains, which takes a gradient."""

    operations: float
    trains: bool


def pass_flops(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, batch_size: int
) -> list[StepFlops]:
    """Returns what a step of each pass takes on a full batch; nothing is compiled or run.

    A step that asks for gradients counts as one of them, see `training_flops`. One that asks for
    none, such as that of clients who choose a cluster by the losses of its models, counts as what
    it computes.

    Args:
      dataset, task, spec: As `fljax.training.federation.build` takes them.
      batch_size: Rows of the batch.

    Example:
      >>> digits = fljax.data.digits(num_clients=10)
      >>> model = fljax.models.softmax_regression(64, 10)
      >>> task = fljax.tasks.classification(model, num_classes=10)
      >>> for step in pass_flops(digits, task, fljax.algorithms.ifca(num_clusters=3), 20):
      ...     print(step)
      StepFlops(operations=76800.0, trains=False)
      StepFlops(operations=51200.0, trains=True)
    """
    examples = dataset.train.examples.spec
    of_gradient = training_flops(task, examples, batch_size, dataset.preprocess)
    found: dict[int, StepFlops] = {}

    def one_round(params, frozen, model_state, batch, key):
        asked: list[bool] = []
        local = bound(task, frozen, dataset)

        def gradient(*arguments):
            asked.append(True)
            return local.gradient(*arguments)

        def counted(number: int, each: ClientPass) -> ClientPass:
            def step(*arguments):
                asked.clear()
                computed = forward_flops(jax.make_jaxpr(each.step)(*arguments).jaxpr)
                found[number] = StepFlops(of_gradient if asked else computed, bool(asked))
                return each.step(*arguments)

            return each._replace(step=step)

        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        numbers = {**spec.hparams, "num_clients": dataset.num_clients}
        hparams = {name: np.asarray(value, dtype) for name, value in numbers.items()}
        algorithm = spec.build(local._replace(gradient=gradient), hparams)
        passes = tuple(counted(*each) for each in enumerate(algorithm.passes))
        variables = Variables(params, model_state)
        return rehearse(algorithm._replace(passes=passes), variables, key, batch=batch)

    key = jax.eval_shape(lambda: jax.random.key(0))
    jax.eval_shape(one_round, *initial_shapes(task), batch_spec(examples, batch_size), key)
    return [found[number] for number in sorted(found)]

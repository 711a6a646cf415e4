"""Centralized training, the baseline on pooled data: one client that keeps its optimizer."""

from __future__ import annotations

from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizers import at_present
from fljax.core.algorithm import Algorithm, AlgorithmSpec, OptimizerFactory
from fljax.core.gradients import LocalTask
from fljax.core.precision import widened


def centralized(client_optimizer: OptimizerFactory, **hparams: float) -> AlgorithmSpec:
    """Returns training of one model by the only client of a federation.

    Its optimizer goes on from round to round, with momentum, moments and schedules; what an
    optimizer has to keep is the client's state.

    Args:
      client_optimizer: hparams -> optax optimizer.
      **hparams: The numbers that it reads from hparams.

    Example:
      >>> algorithms.centralized(lambda hparams: optax.sgd(hparams['lr']), lr=0.1).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 'lr': 0.1}
    """
    shared = fedavg(client_optimizer=client_optimizer, name="centralized", **hparams)

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm, optimizer = shared.build(task, hp), shared.client_optimizer(hp)
        (local,) = algorithm.passes

        def start(message, opt_state, job):
            carry = local.start(message, (), job)
            return carry._replace(opt_state=at_present(optimizer, opt_state, message.params))

        def finish(message, carry, job):
            contributions, _, stats = local.finish(message, carry, job)
            return contributions, carry.opt_state, stats

        return algorithm._replace(
            passes=(local._replace(start=start, finish=finish),),
            init_client=lambda variables: optimizer.init(widened(variables.params)),
        )

    return shared._replace(build=build, keeps_optimizer=True)

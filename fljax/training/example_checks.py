"""Refuses runs whose clients would show more of their examples than noisy gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

from fljax.core.algorithm import AlgorithmSpec, Variables, blank_job
from fljax.core.gradients import LossSums
from fljax.core.jaxprs import bodies
from fljax.core.task import Task
from fljax.data.dataset import FederatedDataset
from fljax.data.examples import batch_spec
from fljax.privacy.per_example import MIXES_EXAMPLES
from fljax.training.binding import bound
from fljax.training.initialization import initial_shapes
from fljax.training.local_work import local_work, schedules_of
from fljax.training.options import RoundOptions
from fljax.training.rehearsal import rehearse


def problems_of_examples(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> Iterator[str]:
    """Yields why noisy gradients would not hide the examples of a run, and what to do.

    Args:
      dataset, task, spec, options: As `fljax.training.federation.build` takes them.
    """
    if options.remainder != "partial":
        yield (
            f"remainder = {options.remainder!r} lets some rows be read more often than the "
            "accountant counts. Leave it out, or set batches = 'poisson'."
        )
    if options.steps_per_round is not None:
        yield (
            "steps_per_round sets other local steps than the accountant counts. Leave it out, and "
            "use local_steps or local_epochs."
        )
    if jax.tree.leaves(initial_shapes(task)[2]):
        yield MIXES_EXAMPLES
    if task.compares_examples:
        yield (
            f"the loss of the task {task.kind!r} compares the examples of a batch or mixes them, "
            "as the augmentation mixup does, and has no gradient of a single one, which could be "
            "clipped. Leave mixup out where it is set, or protect clients as a whole, such as by "
            "privacy = 'gaussian'."
        )
    if schedules_of(task, spec) != ["local"]:
        yield (
            f"{spec.name} reads every row once, or in several passes, and the accountant counts "
            "one pass of local steps. Use an algorithm that has one, such as fedavg or scaffold; "
            "for fedsgd that is fedavg with local_steps = 1."
        )
        return
    gradients, shows_more, changes_batches = _shown(dataset, task, spec, options)
    if shows_more and not gradients:
        yield (
            f"{spec.name} never calls task.gradient, which is what clips and adds noise: what its "
            "clients learn from their rows they find by themselves, such as by a loss of their "
            "own, and no noise covers it. Use an algorithm that takes its gradients from "
            "task.gradient, such as fedavg or scaffold."
        )
    elif shows_more:
        yield (
            f"the clients of {spec.name} send, keep or select by numbers that depend on their rows "
            "in other ways than by gradients (a loss, the rows of a batch), and no noise covers "
            "these. Use an algorithm whose clients do not, such as fedavg or scaffold."
        )
    if changes_batches:
        yield (
            f"the clients of {spec.name} take gradients of other batches than they are given, in "
            "which one example might count in the place of others. Give task.gradient the batch as "
            "it is, and change single examples in the preprocess of the data set."
        )
    if gradients > 1:
        yield (
            f"{spec.name} takes {gradients:g} gradients a step, each of which shows the examples "
            "of the batch, and the accountant counts one. Use an algorithm with one, such as "
            "fedavg or scaffold."
        )


# Steps of a job that are traced: what one takes from its batch the next one may pass on.
_STEPS = 2


def _shown(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> tuple[float, bool, bool]:
    """Returns the gradients of a local step, and whether clients show more, or change batches.

    The algorithm is traced with gradients that do not depend on the batch: nothing that leaves a
    job, but for its statistics, may depend on it then.
    """
    params, frozen, model_state = initial_shapes(task)
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
    numbers = {**spec.hparams, "num_clients": dataset.num_clients}
    hparams = {name: jnp.asarray(value, dtype) for name, value in numbers.items()}
    given, as_given, selects = [], [], []

    def gradient(params, model_state, batch, key):
        leaves = jax.tree.leaves(batch)
        as_given.append([id(leaf) for leaf in leaves] == [id(leaf) for leaf in given])
        total = sum(leaf.astype(dtype).sum() for leaf in leaves)
        return _no_gradient(params, key), LossSums(total, total), model_state

    def sent_and_kept(batch, variables, frozen, key):
        given.extend(jax.tree.leaves(batch))
        local = bound(task, frozen, dataset, like=batch)._replace(gradient=gradient)
        algorithm = spec.build(local, hparams)
        selects.extend(each.select for each in algorithm.passes if each.select is not None)
        job = blank_job(key)._replace(rows=jnp.int32(1))
        round = rehearse(algorithm, variables, key, batch=batch, steps=_STEPS, job=job)
        return round.contributions, [state for state, _ in round.kept]

    work = local_work(dataset.train.partition.sizes, options)
    batch = batch_spec(dataset.train.examples.spec, work.width)
    variables, key = Variables(params, model_state), jax.random.key(0)
    closed = jax.make_jaxpr(sent_and_kept)(batch, variables, frozen, key)
    _, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    shows_more = bool(selects) or any(used[: len(jax.tree.leaves(batch))])
    sizes = [leaf.size for leaf in jax.tree.leaves((params, key))]
    return _gradients_of(closed.jaxpr, sizes) / _STEPS, shows_more, not all(as_given)


@jax.jit
def _no_gradient(params, key):
    """Returns zeros, by a call that is found again in a program."""
    del key
    return jax.tree.map(jnp.zeros_like, params)


def _gradients_of(jaxpr: core.Jaxpr, sizes: list[int]) -> float:
    """Returns how many gradients a program takes at most, infinitely many in a loop without end.

    Args:
      jaxpr: The program.
      sizes: Numbers in each argument of one gradient; several at once, under vmap, have more.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.params.get("name") == _no_gradient.__name__:
            arguments = zip(equation.invars, sizes, strict=True)
            total += max(var.aval.size / max(size, 1) for var, size in arguments)
            continue
        inside = [_gradients_of(body, sizes) for body in bodies(equation.params)]
        if not any(inside):
            continue
        each = max(inside) if equation.primitive.name == "cond" else sum(inside)
        loops = {"scan": equation.params.get("length"), "while": math.inf}
        total += loops.get(equation.primitive.name, 1) * each
    return total

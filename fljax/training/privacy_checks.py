"""Refuses what a mechanism of privacy has no theorem for, before the first round."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from fljax.core.algorithm import Algorithm, AlgorithmSpec, Contribution, Variables, blank_job
from fljax.core.task import Task
from fljax.core.transforms import UPDATE, Pipeline, UplinkLink, as_configured, with_combine
from fljax.data.dataset import FederatedDataset
from fljax.data.examples import batch_spec
from fljax.privacy.mechanism import Guarantee, Mechanism
from fljax.privacy.protection import Protection
from fljax.privacy.secagg.refusals import chance_of_refusal
from fljax.training.binding import bound
from fljax.training.client_state import default_row
from fljax.training.example_checks import problems_of_examples
from fljax.training.initialization import initial_shapes
from fljax.training.local_work import local_work
from fljax.training.options import RoundOptions, RunOptions
from fljax.training.rehearsal import rehearse, rehearsed
from fljax.training.sampling import make_sampler

PyTree = Any

# With fewer clients, noise that hides one of them drowns what the others say: a delta below 1 / N,
# at which the guarantee may fail altogether, means nothing there.
FEWEST_CLIENTS = 20
# Share of delta that what happens hardly ever may have.
_OF_DELTA = 0.01


def check_messages(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, mechanism: Mechanism
) -> None:
    """Refuses algorithms whose messages a mechanism cannot protect, whatever its numbers.

    Args:
      dataset, task, spec: As for `fljax.training.federation.build`.
      mechanism: The mechanism.

    Raises:
      ValueError: With the reason and the remedy.
    """
    if mechanism.link is None:
        return
    where, sent = f"privacy = {mechanism.name}", rehearsed(dataset, task, spec).contributions
    _refuse(where, _of_algorithm(_built(dataset, task, spec), spec.name, sum(map(bool, sent))))
    _refuse(where, _of_single_numbers(sent, spec.name))


def _built(dataset: FederatedDataset, task: Task, spec: AlgorithmSpec) -> Algorithm:
    hparams = {**spec.hparams, "num_clients": dataset.num_clients}
    return spec.build(bound(task, initial_shapes(task)[1], dataset), hparams)


def check_protection(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    protection: Protection,
) -> None:
    """Refuses a run whose guarantee would not hold.

    Args:
      dataset, task, spec: As for `fljax.training.federation.build`.
      options: As they were given; their pipeline holds no link of the protection.
      protection: What is to protect the clients.

    Raises:
      ValueError: With the reason and the remedy.
    """
    combine = _built(dataset, task, spec).combine
    pipeline = with_combine(as_configured(options.pipeline), combine)
    mechanism = protection.mechanism
    if mechanism is None:
        where, secure = "secure_aggregation", protection.secure_aggregation
        _refuse(where, _of_stacks(pipeline, "under secure aggregation the server"))
        if secure is not None and secure.sent_norm is not None and math.isfinite(secure.sent_norm):
            sent = rehearsed(dataset, task, spec).contributions
            _refuse(where, _of_single_numbers(sent, spec.name))
        return
    where = f"privacy = {mechanism.name}"
    _refuse(where, _of_cohorts(dataset, options))
    guarantee = protection.guarantee(mechanism.hparams)
    link = None
    if mechanism.link is not None:
        link = mechanism.link(mechanism.hparams, protection.setting)
    if link is not None and link.release is not None:
        _refuse(where, _of_population(guarantee, dataset.num_clients))
    if mechanism.estimator is not None:
        _refuse(where, problems_of_examples(dataset, task, spec, options))
    if link is None:
        return
    params, *_ = initial_shapes(task)
    _refuse(where, _of_pipeline(pipeline, params, link))
    if link.release is not None:
        _refuse(where, _of_rounding(protection, guarantee))
        _refuse(where, _of_refusals(protection, guarantee))


def _refuse(where: str, problems: Iterator[str]) -> None:
    for problem in problems:
        raise ValueError(f"{where}: {problem}")


def _of_cohorts(dataset: FederatedDataset, options: RoundOptions) -> Iterator[str]:
    """Yields what is wrong with how cohorts come about."""
    if options.cohorts is not None:
        yield (
            "cohorts are replayed, and the guarantee counts on chance, or on a rule of who takes "
            "part when. Leave cohorts out, and set sampler = 'poisson'."
        )
    feedback = make_sampler(dataset, options, options.seed).feedback
    if feedback != "none":
        yield (
            f"the sampler has {feedback} feedback: it chooses clients by what their data have "
            "shown, which no noise covers. Set sampler = 'poisson'."
        )


def _of_population(guarantee: Guarantee, clients: int) -> Iterator[str]:
    """Yields what is wrong with noise on the sums of so many clients."""
    if clients < FEWEST_CLIENTS:
        yield (
            f"it hides which of {clients} clients took part, and noise that hides one of so few "
            f"drowns the others; {FEWEST_CLIENTS} are the fewest. Few clients with many rows each, "
            "such as hospitals, hide single examples: privacy = 'dpsgd'."
        )
    if guarantee.delta >= 1 / clients:
        yield (
            f"delta = {guarantee.delta:g}, but with {clients} clients it must be below 1 / "
            f"{clients} = {1 / clients:.3g}: publishing all that one client holds, drawn at "
            f"random, would keep to it. Set delta, such as {clients**-1.1:.1g}."
        )


def _of_algorithm(algorithm: Algorithm, name: str, releases: int) -> Iterator[str]:
    """Yields what is wrong with what an algorithm makes of the clients' messages.

    Args:
      algorithm: The algorithm.
      name: Its name.
      releases: In how many passes of a round clients send something.
    """
    if not releases:
        yield (
            f"the clients of {name} send nothing, so that there is nothing to protect from a "
            "server. Hide single examples: privacy = 'dpsgd'."
        )
    if any(each.select is not None for each in algorithm.passes):
        yield (
            f"{name} selects clients by what others have shown, so that one client decides on "
            "more than its own message. Use an algorithm that keeps all, such as fedavg."
        )
    if algorithm.combine is not None:
        yield (
            f"{name} combines updates by what each of them is, so that one client changes how "
            "much the others count. Use an algorithm that averages, such as fedavg."
        )
    if several := [each.sums_of for each in algorithm.passes if each.num_clusters > 1]:
        what = "has clusters, and which of them a client joins"
        if "cluster" not in several:
            what = f"has a sum for each {several[0]}, and what its clients tell of themselves there"
        yield (
            f"{name} {what} is covered by no noise. Use an algorithm with one sum of updates, such "
            "as fedavg."
        )
    if releases > 1:
        yield (
            f"{name} has {releases} passes a round in which clients send messages, and the "
            "accountant counts one release a round. Use an algorithm with one, such as fedavg or "
            "scaffold."
        )


def _of_single_numbers(sent: Sequence[Mapping[str, Contribution]], name: str) -> Iterator[str]:
    """Yields what is wrong with a norm that single numbers share with the rest of a message.

    Args:
      sent: {name: Contribution} of each pass.
      name: Of the algorithm.
    """
    for message in sent:
        for beside, part in message.items():
            leaves = jax.tree.leaves(part.value)
            is_like_update = UPDATE in message and _same_shapes(part.value, message[UPDATE].value)
            if not is_like_update and all(leaf.ndim == 0 for leaf in leaves):
                yield (
                    f"the clients of {name} send {beside!r}, a single number with a scale of its "
                    "own, by which the server divides or sets its pace. In one norm with all else "
                    "either of them would cut off the other, and noise of that norm drown the "
                    "number. Use an algorithm that sends changes of the model alone, such as "
                    "fedavg or scaffold."
                )


def _same_shapes(value: PyTree, other: PyTree) -> bool:
    return jax.tree.map(jnp.shape, value) == jax.tree.map(jnp.shape, other)


def _of_stacks(pipeline: Pipeline, who: str) -> Iterator[str]:
    if pipeline.needs_stack:
        yield (
            f"the aggregator or a cohort link sees every update by itself, and {who} has nothing "
            "but their sum. Use the weighted mean, which is the default."
        )


def _of_rounding(protection: Protection, guarantee: Guarantee) -> Iterator[str]:
    """Yields what is wrong with the integers that secure aggregation makes of messages."""
    secure = protection.secure_aggregation
    most = guarantee.clip_norm if guarantee.sent_norm is None else guarantee.sent_norm
    if secure is None or secure.sent_norm is None or most is None or not guarantee.noise_multiplier:
        return
    numbers = protection.mechanism.hparams
    unit = 1.0 if protection.unit is None else numbers[protection.unit]
    cap = numbers.get("weight_cap", 1.0)
    if secure.sent_norm * unit > most * cap * (1 + 1e-6):
        yield (
            f"secure aggregation may make messages longer than {most * cap:g}, their weights "
            "included, by rounding or as its clip and max_weight say, and noise that is in "
            "proportion to this norm does not hide them. Give secure_aggregation "
            f"clip={most:g}, by_norm=True, max_weight={cap:g} (from a text it has the first two by "
            "itself, and the largest weight of all clients, which weight_cap must not be below)."
        )


def _of_refusals(protection: Protection, guarantee: Guarantee) -> Iterator[str]:
    """Yields what is wrong with sums that are not opened, which shows who came."""
    secure, setting = protection.secure_aggregation, protection.setting
    if secure is None or secure.refused_share is None or not guarantee.noise_multiplier:
        return
    if guarantee.relation != "add_or_remove_one":
        return
    rate = setting.clients_per_round / setting.num_clients
    chance = chance_of_refusal(secure.refused_share, setting.num_clients, rate)
    if setting.num_rounds * chance > _OF_DELTA * guarantee.delta:
        yield (
            "secure aggregation opens no sum of fewer than two messages, nor one for which too few "
            f"clients answer, and with {setting.clients_per_round:g} clients a round one client "
            f"may decide on that in up to {chance:.2g} of all rounds, which no noise hides: in "
            f"{setting.num_rounds} rounds this must be below {_OF_DELTA:g} delta = "
            f"{_OF_DELTA * guarantee.delta:.2g}. Raise clients_per_round, lower vanishing or the "
            "threshold, leave out secure_aggregation, or use privacy = 'discrete_gaussian', which "
            "does not count on hiding who takes part."
        )


def _of_pipeline(pipeline: Pipeline, params, link: UplinkLink) -> Iterator[str]:
    """Yields what is wrong with the transforms behind the mechanism's link."""
    if link.release is None:
        return
    yield from _of_stacks(pipeline, "noise is enough for a sum alone: the guarantee")
    for number, other in enumerate(pipeline.uplink):
        if other.linear:
            yield (
                f"uplink link {number} decodes the sum of all messages, as sketches do, and a "
                "decoded sum is not bounded by the clipping norm of its messages. Use a compressor "
                "that decodes message by message; masks are secure_aggregation."
            )
        elif jax.tree.leaves(jax.eval_shape(other.init_server, params)):
            yield (
                f"uplink link {number} keeps a memory on the server that takes part in its sums "
                "(ef21, diana, marina), and no noise covers it. Use uplink_memory = "
                "'error_feedback', which clients keep, or 'none'."
            )


def weighting_of(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> str:
    """Returns what the weights of contributions depend on, found in the traced algorithm.

    Args:
      dataset, task, spec, options: As for `fljax.training.federation.build`.

    Returns:
      "uniform" if on nothing, all being 1; "examples" if on the number of rows alone; "own" if they
      are given client by client, are another number, or follow from anything else of a job, from
      what a client keeps or from what it has computed.
    """
    if options.client_weights is not None:
        return "own"
    params, frozen, model_state = initial_shapes(task)
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
    hparams = {
        name: jnp.asarray(value, dtype)
        for name, value in {**spec.hparams, "num_clients": dataset.num_clients}.items()
    }

    def build(frozen):
        return spec.build(bound(task, frozen, dataset), hparams)

    def weights(rows, job, own, variables, frozen, key, batch):
        sent = rehearse(
            build(frozen), variables, key, batch=batch, job=job._replace(rows=rows), own=own
        ).contributions
        return [[part.weight for part in each.values()] for each in sent]

    work = local_work(dataset.train.partition.sizes, options)
    like = batch_spec(dataset.train.examples.spec, work.width)
    variables, job = Variables(params, model_state), blank_job(jax.random.key(0))
    own = jax.eval_shape(lambda v, f: default_row(build(f), Pipeline(), v), variables, frozen)
    closed = jax.make_jaxpr(weights)(job.rows, job, own.algorithm, variables, frozen, job.key, like)
    outputs = [True] * len(closed.jaxpr.outvars)
    needed, (by_rows, *others) = partial_eval.dce_jaxpr(closed.jaxpr, outputs)
    if any(others):
        return "own"
    if by_rows:
        return "examples"
    constants = jax.core.eval_jaxpr(needed, closed.consts)
    return "uniform" if all((np.asarray(value) == 1).all() for value in constants) else "own"


def warn_of_choices(dataset: FederatedDataset, options: RunOptions) -> None:
    """Warns of choices by the data of clients that no guarantee covers."""
    choices = ["the best round is chosen"] * (dataset.val is not None)
    choices += ["patience ends the run"] * bool(options.patience)
    if choices:
        warnings.warn(
            f"privacy: {' and '.join(choices)} by validation data, which are rows of the same "
            "clients, and no noise covers such a choice. Report the last round, or hold out "
            "clients of their own.",
            stacklevel=3,
        )

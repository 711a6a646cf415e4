"""`ask`: asks clients for a statistic of what they hold, by the engine that trains models.

    reply = fljax.ask(dataset, "quantile(0.5, low=0, high=1, weight_cap=1)", column="x[0]",
                      privacy="gaussian", noise_multiplier=2.0)
    reply.answer.value

Sums are those of float64, in which whole numbers up to 2^53 are exact.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.analytics import names as queries
from fljax.analytics.passes import Heard, algorithm_of, task_of
from fljax.analytics.query import Answer, Asked, Query
from fljax.core.names import nearest
from fljax.core.settings import PRIVACY
from fljax.core.values import COUNT, SEED, Field, Interval, checked, whole_numbers, wrong
from fljax.data.dataset import FederatedDataset
from fljax.data.splits.root import without_root
from fljax.engine.devices.compilation import use_compilation_cache
from fljax.engine.devices.execution import use_all_cores
from fljax.privacy.mechanism import Mechanism
from fljax.training.asked_columns import column_of
from fljax.training.asked_privacy import check_protected, drawn_privacy, noise_of, told_privacy
from fljax.training.federation import Federation, RoundOptions, build
from fljax.training.hyperparameters import hyperparameters
from fljax.training.privacy import with_privacy
from fljax.training.trials import TrialInputs

_SAMPLE = Field(None, float, Interval(0, 1, low_open=True, high_open=True), optional=True)
_COHORTS = Field(10, int, Interval(2, 1000))
_CLIENTS = Field(None, int, COUNT, optional=True)
_BATCH = Field(None, int, COUNT, optional=True)
_SEED = Field(0, int, SEED)
# Clients of a cohort, and rows of a batch, where nobody says how many.
_COHORT, _ROWS = 10_000, 256
# Numbers that the lanes of a device hold together, and most lanes.
_HELD, _MOST_LANES = 2**25, 10_000
# Options of `RoundOptions` that say how a question is put, beside those of privacy.
_OPTIONS = (*PRIVACY, "pipeline", "devices", "lanes", "wave", "placement", "rounds_per_dispatch")
# What the record sums over all messages, by the statistics of jobs.
_SUMMED = {
    "messages": "jobs",
    "rows_read": "rows",
    "rows_left_out": "left_out",
    "uplink_bits": "uplink_bits",
    "downlink_bits": "downlink_bits",
}


class Reply(NamedTuple):
    """The answers of clients.

    Attributes:
      query: The query as it was written, or its name.
      answers: One of each seed.
      privacy: What was promised, as in the summary of a run: epsilon, delta, what is covered; None
        without noise. It covers the answer of one seed: those of several, and of several replies,
        add up.
      facts: {name: number}: "clients" of the population, the "share" of them that each question
        was put to, "questions", "rounds", "messages" and rows of all trials, bytes, seconds, and
        seconds of the processor.
    """

    query: str
    answers: list[Answer]
    privacy: dict[str, Any] | None
    facts: dict[str, float]

    @property
    def answer(self) -> Answer:
        """The answer of the first seed."""
        return self.answers[0]


class Turns(NamedTuple):
    """Whom questions are put to, and in how many rounds.

    Attributes:
      sampler, clients_per_round: As of a run.
      cohorts: Rounds of a question.
      share: Of the population that a question is put to.
      replaced: Whether cohorts may share clients.
    """

    sampler: str
    clients_per_round: int
    cohorts: int
    share: float
    replaced: bool = False

    @property
    def is_sample(self) -> bool:
        """Says whether some are left to chance: of cohorts that share clients, always."""
        return self.share < 1 or self.replaced


def ask(
    dataset: FederatedDataset,
    query: str | Query,
    *,
    column: str = "y",
    sample: float | None = None,
    cohorts: int = 10,
    clients_per_round: int | None = None,
    batch_size: int | None = None,
    seeds: Sequence[int] = (0,),
    **options: Any,
) -> Reply:
    """Asks clients for a statistic of their training rows.

    Everybody is asked once for each question, in cohorts one after another; or, where a mechanism
    adds its noise to the sum of a round, all together, so that there is one noise in a total.

    Args:
      dataset: The federated data.
      query: A name or a call of `fljax.analytics.names.QUERIES`, such as "mean(0, 100,
        weight_cap=5)", "module:function" of your own, or a Query.
      column: What of a row is asked about, as the model would see it: "x", "y", "x[3]", the name of
        a feature, or "x/age" where x is a dict.
      sample: Share of the clients that each question is put to; None asks everybody. Sums are
        scaled, and the standard error says what that costs.
      cohorts: In how many cohorts a sample is drawn, whose spread tells its standard error.
      clients_per_round: Largest cohort where everybody is asked; None for 10,000.
      batch_size: Rows that a client reads at once; None for 256 at most. Speed alone depends on it.
      seeds: Of trials that are asked side by side: of noise, samples, and what clients draw.
      **options: Of `RoundOptions`: privacy and its numbers (an unset clip_norm is what the query
        needs), secure_aggregation, pipeline, and where the program runs.

    Raises:
      TypeError: For an option that there is not.
      ValueError: For what does not fit: a query that nothing bounds under differential privacy,
        rows that move, a column that there is not.

    Example:
      >>> dataset = data.digits(partition='iid', num_clients=20)
      >>> reply = fljax.ask(dataset, "mean", column="y")
      >>> round(reply.answer.value, 3), reply.facts["messages"]
      (4.49, 20)
    """
    began = time.perf_counter(), time.process_time()
    _check(dataset, options)
    use_all_cores()
    use_compilation_cache()
    dataset = without_root(dataset)
    seeds = [checked("seeds", int(seed), _SEED) for seed in whole_numbers("seeds", seeds)]
    if not seeds:
        raise ValueError("seeds is empty; give one at least, such as (0,).")
    # float32 would skip whole numbers above 2^24
    with jax.enable_x64(True):
        values_of, like = column_of(dataset, column)
        made, text = _query(query, dataset, like, options.get("privacy") is not None)
        mechanism, given = drawn_privacy(made, options)
        turns = _turns(dataset.num_clients, made, mechanism, sample, cohorts, clients_per_round)
        apart = turns.is_sample and made.cohort is None
        spec, task = algorithm_of(made, values_of, turns.cohorts, apart=apart), task_of(made)
        rounds = RoundOptions(
            num_rounds=made.questions * turns.cohorts,
            clients_per_round=turns.clients_per_round,
            sampler=turns.sampler,
            batch_size=_batch_size(dataset, batch_size),
            shuffle=False,
            seed=seeds[0],
            calibrate=False,
            **given,
        )
        rounds = with_privacy(dataset, task, spec, _with_lanes(rounds, made, len(seeds)))
        check_protected(made, rounds)
        numbers = hyperparameters(spec, rounds.pipeline)
        trials = [TrialInputs(seed, numbers) for seed in seeds]
        messages = turns.share * float((dataset.train.partition.sizes > 0).sum())
        noise = noise_of(made, rounds, options, turns.cohorts, messages)
        asked = Asked(dataset.num_clients, turns.share, noise, replaced=turns.replaced)
        _check_tells(made, asked)
        federation = build(dataset, task, spec, rounds, trials)
        totals = _run(federation)
        answers = _answers(federation, made, asked, apart)
    spent = time.perf_counter() - began[0], time.process_time() - began[1]
    facts = {
        "clients": dataset.num_clients,
        "share": turns.share if made.cohort is None else made.cohort / dataset.num_clients,
        "questions": made.questions,
        "rounds": rounds.num_rounds,
        **{name: value for name, value in totals.items() if not name.endswith("_bits")},
        "uplink_bytes": totals["uplink_bits"] // 8,
        "downlink_bytes": totals["downlink_bits"] // 8,
        "seconds": spent[0],
        "cpu_seconds": spent[1],
    }
    return Reply(text, answers, told_privacy(made, rounds, numbers), facts)


def _check(dataset: Any, options: Mapping[str, Any]) -> None:
    """Refuses what is no data set, data that move, and options that there are not."""
    if not isinstance(dataset, FederatedDataset):
        raise wrong(
            "dataset", dataset, "a FederatedDataset, such as fljax.data.from_arrays(x, y, ...)"
        )
    if dataset.moves:
        raise ValueError(
            f"What clients of {dataset.name!r} own changes from round to round, and a query is "
            "answered in several. Ask about one of them: dataset.at(round)."
        )
    for name in options:
        if name not in _OPTIONS:
            near = nearest(name, _OPTIONS)
            meant = f"Did you mean {near}?" if near else f"Options: {', '.join(_OPTIONS)}."
            raise TypeError(f"ask has no option {name!r}. {meant}")


def _query(query: str | Query, dataset: FederatedDataset, like, noisy: bool) -> tuple[Query, str]:
    if isinstance(query, Query):
        return query, query.name
    groups = dataset.population.num_groups
    known = {
        "like": like, "num_clients": dataset.num_clients, "groups": groups, "noisy": noisy,
    }  # fmt: skip
    return queries.make(query, known), query


def _turns(
    clients: int,
    query: Query,
    mechanism: Mechanism | None,
    sample: float | None,
    cohorts: int,
    clients_per_round: int | None,
) -> Turns:
    """Returns whom the questions of a query are put to."""
    sample = checked("sample", sample, _SAMPLE)
    cohorts = checked("cohorts", cohorts, _COHORTS)
    largest = checked("clients_per_round", clients_per_round, _CLIENTS)
    together = mechanism is not None and mechanism.name not in _BY_COHORT
    if query.cohort is not None:
        if (sample, largest) != (None, None):
            raise ValueError(
                f"{query.name} says itself how many clients it asks. Leave out sample and "
                "clients_per_round."
            )
        return Turns("uniform", query.cohort, 1, 1.0)
    if sample is not None:
        drawn = max(1, round(sample * clients / cohorts))
        if together:
            return Turns("poisson", drawn, cohorts, drawn * cohorts / clients, replaced=True)
        groups = math.ceil(clients / drawn)
        if groups < cohorts:
            raise ValueError(
                f"sample = {sample:g} of {clients} clients cannot be drawn in {cohorts} cohorts. "
                f"Give cohorts={max(2, groups)}, or ask everybody."
            )
        return Turns("separated", drawn, cohorts, cohorts / groups)
    if together:
        if largest is not None and largest < clients:
            raise ValueError(
                f"clients_per_round = {largest}: {mechanism.name} adds noise to the sum of each "
                f"cohort, and a total of {math.ceil(clients / largest)} of them would have as many "
                "noises. Leave it out, so that all are asked together, or give a sample."
            )
        return Turns("uniform", clients, 1, 1.0)
    size = min(clients, largest or _COHORT)
    several = math.ceil(clients / size)
    return Turns("separated" if several > 1 else "uniform", size, several, 1.0)


# Mechanisms under which cohorts take turns: their noise is that of each message, or is made for it.
_BY_COHORT = (
    *("local_gaussian", "privunit", "discrete_gaussian", "skellam"),
    *("tree_aggregation", "banded_matrix"),
)


def _check_tells(query: Query, asked: Asked) -> None:
    """Refuses to ask where the answer would say nothing."""
    if query.everybody and (asked.share < 1 or asked.replaced):
        raise ValueError(
            f"{query.name}: from a sample of the clients nobody can tell what the others hold. Ask "
            "everybody: leave out sample."
        )
    if asked.noise is not None and asked.noise > query.most_noise:
        raise ValueError(
            f"{query.name}: noise of standard deviation {asked.noise:.3g} in its sums would leave "
            f"nothing of them; {query.most_noise:g} is the most. Lower noise_multiplier, or let "
            "less of a client count, by which the noise is multiplied."
        )


def _batch_size(dataset: FederatedDataset, given: int | None) -> int:
    most = int(dataset.train.partition.sizes.max())
    return min(max(most, 1), checked("batch_size", given, _BATCH) or _ROWS)


def _with_lanes(options: RoundOptions, query: Query, trials: int) -> RoundOptions:
    """Returns the options with as many lanes as are fast, unless they say how many."""
    if options.lanes:
        return options
    numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(query.message))
    fitting = _HELD // (options.batch_size * max(1, numbers))
    jobs = options.clients_per_round * trials
    return dataclasses.replace(options, lanes=max(1, min(fitting, _MOST_LANES, jobs)))


def _run(federation: Federation) -> dict[str, int]:
    """Puts all questions; returns what is summed over all messages."""
    totals = dict.fromkeys(_SUMMED, 0)
    before = None
    for plan, facts in federation.blocks(range(federation.options.num_rounds)):
        stats = federation.step_block(plan, facts)
        if before is not None:
            _add(totals, before)
        before = stats[0]
    _add(totals, before)
    return totals


def _add(totals: dict[str, int], stats: Mapping[str, jax.Array]) -> None:
    for name, values in jax.device_get({name: stats[key] for name, key in _SUMMED.items()}).items():
        totals[name] += int(values.sum(dtype=np.int64))


def _answers(federation: Federation, query: Query, asked: Asked, apart: bool) -> list[Answer]:
    """Returns the answer of each trial."""
    heard: Heard = jax.device_get(federation.state.server)
    found = []
    for trial in range(len(federation.trials)):
        own: Heard = jax.tree.map(lambda leaf, trial=trial: leaf[trial], heard)
        whom = asked._replace(cohorts=own.cohorts) if apart else asked
        found.append(_plain(query.answer(own.question, own.total, whom)))
    return found


def _plain(answer: Answer) -> Answer:
    """Returns an answer whose single numbers are Python's."""

    def number(leaf):
        return leaf.item() if hasattr(leaf, "item") and not np.ndim(leaf) else leaf

    plain = jax.tree.map(number, (answer.value, answer.standard_error, answer.details))
    return answer._replace(value=plain[0], standard_error=plain[1], details=plain[2])

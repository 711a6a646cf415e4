"""Makes a run robust, or attacked: draws attackers and aggregator from the options, and checks."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from fljax.core.algorithm import AlgorithmSpec
from fljax.core.settings import ROBUSTNESS
from fljax.core.task import Task
from fljax.core.transforms import (
    UPDATE,
    Aggregator,
    Pipeline,
    PipelineSpec,
    as_configured,
    hparams_of,
    pipeline_at,
    weighted_mean,
)
from fljax.core.values import shown
from fljax.data.dataset import FederatedDataset
from fljax.data.poisoning import poisoned
from fljax.engine.plan.batching import takes_part, works_of
from fljax.robustness import names
from fljax.robustness.aggregators.mixing import Mixing, chain
from fljax.robustness.attack import Attack
from fljax.robustness.drawn import Drawn
from fljax.robustness.worker_momentum import worker_momentum
from fljax.training.attack_checks import check_relabelling, facts_of
from fljax.training.cohort_sizes import arriving
from fljax.training.local_work import local_work, schedules_of, structure_of
from fljax.training.options import RoundOptions
from fljax.training.privacy_checks import weighting_of
from fljax.training.rehearsal import rehearsed
from fljax.training.trials import attackers_key

# Numbers among the options that the program takes as arguments.
_NUMBERS = ("attackers", "worker_momentum")


def with_robustness(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    traced: Collection[str] = (),
) -> tuple[FederatedDataset, RoundOptions]:
    """Puts attackers, attack, momentum and aggregator into the pipeline, and rows into the data.

    Options that ask for none of them, or have them already, are returned as they are.

    Args:
      dataset, task, spec, options: As `fljax.training.federation.build` takes them.
      traced: Those of the options whose numbers the program takes as arguments.

    Returns:
      (dataset, options): Of an attack on rows, the data set with what hostile clients hold.

    Raises:
      ValueError: For what would have no effect, or promise nothing, with the remedy.
    """
    if isinstance(options.aggregator, Drawn) or not is_asked_for(options):
        return dataset, options
    numbers = dict(_numbers(options, traced))
    given = hparams_of(options.pipeline)
    facts, clean = facts_of(dataset, task, options.attack), None
    if (attack := options.attack) is not None:
        if isinstance(attack, str):
            attack = names.make_attack(attack, facts)
        check_relabelling(attack, task.num_classes)
        if attack.own_rows is not None:
            clean, dataset = dataset, _with_own_rows(dataset, attack, options)

    def build(hparams: Mapping[str, Any]) -> Pipeline:
        own = {name: hparams[name] for name in numbers}
        return _added(pipeline_at(options.pipeline, hparams), options, own, facts)

    pipeline = PipelineSpec(build, {**given, **numbers}) if {**given, **numbers} else build({})
    text = options.aggregator if isinstance(options.aggregator, str) else None
    drawn = dataclasses.replace(options, pipeline=pipeline, aggregator=Drawn(text, clean))
    for problem in _problems(dataset, task, spec, drawn):
        raise ValueError(problem)
    return dataset, drawn


def without_own_rows(dataset: FederatedDataset, options: RoundOptions) -> FederatedDataset:
    """Returns the data set before hostile clients put rows of their own there.

    Args:
      dataset, options: As `with_robustness` returned them.
    """
    drawn = options.aggregator
    clean = drawn.clean if isinstance(drawn, Drawn) else None
    return dataset if clean is None else clean


def is_asked_for(options: RoundOptions) -> bool:
    """Returns whether options ask for an attack or another aggregator than the mean."""
    return any(getattr(options, name) != field.default for name, field in ROBUSTNESS.items())


def named_robustness(options: RoundOptions) -> dict[str, str]:
    """Returns {option: text} of aggregator and attack, for records; nothing of the user's own."""
    aggregator = options.aggregator
    texts = {
        "aggregator": aggregator.text if isinstance(aggregator, Drawn) else aggregator,
        "attack": options.attack,
    }
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _with_own_rows(
    dataset: FederatedDataset, attack: Attack, options: RoundOptions
) -> FederatedDataset:
    """Returns the data set with what hostile clients hold from the start."""
    if options.attackers_drawn != "once" or options.attack_rounds is not None:
        raise ValueError(
            f"attack = {options.attack} changes what hostile clients hold before the first round, "
            "once for all. Leave out attackers_drawn and attack_rounds, or poison their batches: "
            "label_flip, or triggers without once."
        )
    clients = np.arange(dataset.num_clients)
    found = names.make_attackers(
        options.attackers, options.attacker_clients, "once", None, dataset.members, dataset.root
    )
    hostile = found.among(clients, clients >= 0, 0, attackers_key(options.seed))
    return poisoned(dataset, np.asarray(hostile), attack.own_rows, options.seed)


def _numbers(options: RoundOptions, traced: Collection[str]) -> Iterator[tuple[str, float]]:
    """Yields (name, number) of what the program takes as arguments."""
    for name in _NUMBERS:
        if name in traced and (value := getattr(options, name)) is not None:
            yield name, value
    for key in ("aggregator", "attack"):
        if key in traced and isinstance(text := getattr(options, key), str):
            yield from names.numbers_in(key, text).items()


def _added(
    pipeline: Pipeline, options: RoundOptions, numbers: Mapping[str, Any], facts: Mapping[str, Any]
) -> Pipeline:
    """Returns a pipeline with what the options ask for, of numbers that may be traced."""

    def number(name):
        return numbers.get(name, getattr(options, name))

    uplink = []
    if options.worker_momentum is not None:
        how = {"dampened": options.worker_dampened, "attackers": options.attacker_momentum}
        uplink.append(worker_momentum(number("worker_momentum"), **how))
    attack, attackers = options.attack or Attack(), None
    if isinstance(attack, str):
        attack = names.make_attack(attack, facts, numbers)
    if attack != Attack():
        attackers = names.make_attackers(
            number("attackers"),
            options.attacker_clients,
            options.attackers_drawn,
            options.attack_rounds,
            facts["members"],
            facts["root"],
        )
    aggregator = options.aggregator
    if isinstance(aggregator, str):
        aggregator = names.make_aggregator(aggregator, facts, numbers)
    elif isinstance(aggregator, Mixing):
        aggregator = chain(aggregator)
    uplink = [link._replace(precedes=True) for link in (*uplink, *attack.uplink)]
    if aggregator is not weighted_mean and pipeline.aggregator is not weighted_mean:
        raise ValueError(
            "aggregator and pipeline.aggregator are both given. Leave one of them out."
        )
    return pipeline._replace(
        uplink=(*uplink, *pipeline.uplink),
        cohort=(*attack.cohort, *pipeline.cohort),
        batches=(*attack.batches, *pipeline.batches),
        attackers=attackers or pipeline.attackers,
        aggregator=pipeline.aggregator if aggregator is weighted_mean else aggregator,
        trigger=attack.trigger or pipeline.trigger,
    )


def _problems(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> Iterator[str]:
    """Yields what is wrong with attack and aggregator of a run, whose pipeline holds them."""
    pipeline = as_configured(options.pipeline)
    rule = pipeline.aggregator
    if options.attack is not None:
        yield from _of_attackers(dataset, pipeline, options)
    if not pipeline.needs_stack:
        return
    what = f"aggregator = {options.aggregator.text or 'the one given'}"
    sees = what if rule.needs == "stack" else f"attack = {options.attack}"
    if pipeline.sums_payloads(UPDATE):
        yield (
            f"{sees} must see the updates, and an uplink link decodes nothing but sums of "
            "payloads, as sketches and masks do. Use a compressor that decodes message by message."
        )
    if pipeline.shows_changes(UPDATE):
        yield (
            f"{sees} must see the updates, and with ef21 or diana what arrives is how they differ "
            "from what each client remembers, of which the server keeps nothing but the mean. Set "
            "uplink_memory = 'error_feedback'."
        )
    sent = rehearsed(dataset, task, spec).contributions
    if any(UPDATE in message and message[UPDATE].cluster is not None for message in sent):
        yield (
            f"{sees} must see all updates as one cohort, and those of {spec.name} belong to sums "
            "of several models, clients or groups. Use an algorithm with one sum, such as fedavg."
        )
    if rule.needs != "stack":
        return
    yield from _of_messages(what, sent, task, spec)
    if not rule.weighs:
        yield from _of_weights(what, dataset, task, spec, options)
    yield from _of_cohorts(what, rule, dataset, task, spec, options)


def _of_attackers(
    dataset: FederatedDataset, pipeline: Pipeline, options: RoundOptions
) -> Iterator[str]:
    """Yields what is wrong with hostile clients that are none, or never attack."""
    if options.attack_rounds is not None:
        first, _ = names.range_of_rounds(options.attack_rounds)
        if first > options.num_rounds:
            yield (
                f"attack_rounds = {options.attack_rounds!r} begin after the last of "
                f"{options.num_rounds} rounds. Name earlier ones, or set attack = 'none'."
            )
    once = options.attackers_drawn == "once"
    whole = dataset.members
    if not once:
        whole = min(whole, options.clients_per_round)
    if options.attacker_clients is not None:
        hostile = len(names.named_clients(options.attacker_clients, whole))
        who = f"attacker_clients = {shown(options.attacker_clients)}"
    else:
        hostile = int(np.round(options.attackers * whole))
        who = f"attackers = {options.attackers:g} of {whole} {'clients' if once else 'a round'}"
    if not hostile and options.attackers != 0:
        yield f"{who} are nobody. Raise it, or name hostile clients by attacker_clients."
    if hostile >= whole and pipeline.cohort:
        yield (
            f"attack = {options.attack}: colluders go by what honest clients send, and with {who} "
            "nobody is honest. Leave some honest."
        )


def _of_messages(what: str, sent, task, spec) -> Iterator[str]:
    """Yields what is wrong with messages of more than an update."""
    if any(each.select is not None for each in structure_of(task, spec).passes):
        yield (
            f"{what} guards updates alone, and clients of {spec.name} are chosen in the round by "
            "what they tell of themselves: a hostile one would tell what lets it be chosen, and "
            "how many send is not known before. Use an algorithm that lets all of a cohort send, "
            "such as fedavg."
        )
    others = sorted({name for message in sent for name in message} - {UPDATE})
    if others:
        yield (
            f"{what} guards updates alone, and the clients of {spec.name} send "
            f"{', '.join(map(repr, others))} too, of which the server takes the mean: a hostile "
            "client would send anything there. Use an algorithm and a model that send updates "
            "alone, such as fedavg and group normalization."
        )


def _of_weights(what: str, dataset, task, spec, options) -> Iterator[str]:
    """Yields what is wrong with unequal weights where a rule counts clients alike."""
    weighting = weighting_of(dataset, task, spec, options)
    sizes = dataset.train.partition.sizes
    if weighting == "uniform" or (weighting == "examples" and len(set(sizes[sizes > 0])) == 1):
        return
    if weighting == "examples":
        yield (
            f"{what} counts clients alike, as its paper does, and weighting = 'examples' weighs "
            "them by their rows, which a hostile client would invent. Set weighting = 'uniform'."
        )
    else:
        yield (
            f"{what} counts clients alike, and these have weights of their own. Leave out "
            "client_weights, or choose an algorithm that weighs clients alike."
        )


def _of_cohorts(what: str, rule: Aggregator, dataset, task, spec, options) -> Iterator[str]:
    """Yields what is wrong with cohorts that are too small; warns where that is rare."""
    if rule.problem is None:
        return
    sizes = dataset.train.partition.sizes
    works = works_of(local_work(sizes, options), schedules_of(task, spec, options.batches))
    updates = arriving(dataset, options, takes_part(sizes, works))
    if problem := rule.problem(updates.ordinary):
        remedy = "Raise clients_per_round, or assume fewer attackers"
        if options.schedule is not None:
            remedy += ", or choose a schedule in which more arrive at a time"
        yield f"{what}: {problem}. {remedy}."
    elif problem := rule.problem(updates.least):
        warnings.warn(
            f"{what}: {problem}. In such rounds it promises nothing.",
            stacklevel=2,
        )

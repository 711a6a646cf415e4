"""Prepares and runs the evaluations of a run: which rows, on which models, under which names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.core import random
from fljax.core.gradients import bind
from fljax.core.metrics import Metric, client_summary, spread_metric
from fljax.core.transforms import as_configured
from fljax.core.trees import zeros_like_shape
from fljax.data.dataset import FederatedDataset, Split
from fljax.data.splits.root import without_root
from fljax.engine.devices.placement import host_readable
from fljax.training import evaluation, personalization
from fljax.training.client_tables import (
    POPULATIONS,
    TRAINING,
    group_record,
    groups_of,
    identified,
    joined,
    population_of,
    recorded_groups,
)
from fljax.training.evaluation import EvalOutputs, EvalSet
from fljax.training.federation import Federation
from fljax.training.judged_rows import held_out_split, validation_split
from fljax.training.personalization import PersonalSet
from fljax.training.row_group_metrics import GroupedRows, grouped_rows, row_group_record
from fljax.training.triggered_rows import TRIGGERED, opened_split, triggered

_CLIENTS, _PERSONAL, _NEW_CLIENTS = "clients", "personal", "new_clients"
# Own models that stand for the population where clients share none.
STAND_INS = 10


class Evaluations(NamedTuple):
    """The evaluations of a run; see `make_evaluations`.

    Attributes:
      sets: {"val", "test", "held_out": EvalSet}, "clients" where clients are evaluated on rows
        that none of the others covers, and "triggered" where a backdoor is judged.
      splits: What the sets are the rows of, but for "clients"; of "triggered" as they are without
        the trigger.
      by_client: {name of a set whose rows are also reported by client: whose rows they are,
        "training" or "held_out" clients'}; `eval/clients/` summarizes the first.
      groups_of: Name of the set whose rows are also reported by group of clients, or None.
      groups: {name: [N] group of each client} that are reported so.
      grouped: (name of the set whose rows are also reported by group of rows, its rows), or None.
      dataset: Whose clients are evaluated.
      metrics: Of the task.
      stand_ins: Clients whose own models are evaluated because there is no global one, or None.
      personal: Clients whose own models are judged on held-out rows of their own, {"personal":
        those of the population, "new_clients": clients that never trained}, as far as there are.
      evaluate_personal: (federation, personal, round, trial) -> the evaluation of these, or None.
      evaluate: The compiled evaluation of one model.
      evaluate_many: (models, count, frozen, inputs) -> the same for the first `count` models of a
        stack.
      at: (number of completed rounds) -> the evaluations on what clients held in the last of them;
        None where they hold the same in all rounds.
    """

    sets: dict[str, EvalSet]
    splits: dict[str, Split]
    by_client: dict[str, str]
    groups_of: str | None
    groups: dict[str, np.ndarray]
    grouped: tuple[str, GroupedRows] | None
    dataset: FederatedDataset
    metrics: Sequence[Metric]
    stand_ins: np.ndarray | None
    personal: dict[str, PersonalSet]
    evaluate_personal: Any
    evaluate: Any
    evaluate_many: Any
    at: Callable[[int], Evaluations] | None = None

    def dispatch(self, federation: Federation, round: int) -> dict[str, EvalOutputs]:
        """Starts an evaluation of the models after a round; nothing waits, but for stand-ins."""
        if self.at is not None:
            return self.at(round).dispatch(federation, round)
        frozen = federation.inputs.frozen
        if self.stand_ins is None:
            variables = federation.variables
            outputs = {
                name: self.evaluate(variables, frozen, eval_set.inputs)
                for name, eval_set in self.sets.items()
            }
        else:
            outputs = self._dispatch_stand_ins(federation, 0)
        return outputs | self._dispatch_personal(federation, round, 0)

    def dispatch_trials(
        self, federation: Federation, trials: Sequence[int], rounds: Sequence[int]
    ) -> list[dict[str, EvalOutputs]]:
        """Starts an evaluation of the models of some trials, after their rounds, as `dispatch`.

        Returns:
          As `dispatch`, of each trial.
        """
        if self.at is not None:
            found = [
                self.at(round).dispatch_trials(federation, [trial], [round])
                for trial, round in zip(trials, rounds, strict=True)
            ]
            return [outputs for (outputs,) in found]
        if self.stand_ins is None:
            # always of one size: any number of trials is one program
            order = np.zeros(len(federation.trials), np.int32)
            order[: len(trials)] = trials
            models = _models_of(federation.algorithm.variables, federation.state.server, order)
            found = self._dispatch_many(models, len(trials), federation.inputs.frozen)
            each = taken_apart(found, len(order))[: len(trials)]
        else:
            each = [self._dispatch_stand_ins(federation, trial) for trial in trials]
        return [
            outputs | self._dispatch_personal(federation, round, trial)
            for outputs, round, trial in zip(each, rounds, trials, strict=True)
        ]

    def _dispatch_stand_ins(self, federation: Federation, trial: int) -> dict[str, EvalOutputs]:
        models = _own_models(federation, self.stand_ins, trial)
        found = self._dispatch_many(models, len(self.stand_ins), federation.inputs.frozen)
        # several CPU devices that run what follows beside so long a program may wait for each other
        # for ever
        return jax.block_until_ready(found)

    def _dispatch_personal(self, federation, round: int, trial: int) -> dict[str, EvalOutputs]:
        return {
            name: self.evaluate_personal(federation, own, round, trial)
            for name, own in self.personal.items()
        }

    def _dispatch_many(self, models, count, frozen):
        return {
            name: self.evaluate_many(models, count, frozen, eval_set.inputs)
            for name, eval_set in self.sets.items()
        }

    def finish(self, outputs: dict[str, EvalOutputs]) -> tuple[dict[str, float], dict]:
        """Waits for an evaluation.

        Returns:
          ({"eval/test/accuracy": ...}, {name: array} metrics of each client, empty if none; those
          of clients' own models stand under "personal/").
        """
        own: dict[str, float] = {}
        judged: list[dict[str, np.ndarray]] = []
        for name, clients in self.personal.items():
            whose = POPULATIONS[name]
            groups = groups_of(self.dataset, whose)
            found, table = personalization.finish(self.metrics, outputs[name], clients, groups)
            own |= {f"eval/{name}/{key}": value for key, value in found.items()}
            judged.append(identified(table, self.dataset, whose))
        columns = {f"{_PERSONAL}/{name}": values for name, values in joined(judged).items()}
        if self.stand_ins is not None:
            return _mean_over_models(self.metrics, outputs, self.sets) | own, columns
        record: dict[str, float] = {}
        for name, eval_set in self.sets.items():
            if name != _CLIENTS:
                found = evaluation.finish(self.metrics, outputs[name], eval_set)
                record |= {f"eval/{name}/{key}": value for key, value in found.items()}
        if self.groups_of is not None:
            record |= self._of_groups(outputs[self.groups_of], self.sets[self.groups_of])
        if self.grouped is not None:
            name, rows = self.grouped
            sums = evaluation.sums_by_row(outputs[name], self.sets[name])
            found = row_group_record(self.metrics, sums, rows)
            record |= {f"eval/{key}": number for key, number in found.items()}
        tables = [
            identified(
                evaluation.finish_clients(self.metrics, outputs[name], self.sets[name]),
                self.dataset,
                who,
            )
            for name, who in self.by_client.items()
        ]
        if tables:
            found = client_summary(tables[0], spread_metric(self.metrics))
            record |= {f"eval/{_CLIENTS}/{key}": value for key, value in found.items()}
        return record | own, joined(tables) | columns

    def _of_groups(self, outputs: EvalOutputs, eval_set: EvalSet) -> dict[str, float]:
        sums = evaluation.sums_by_row(outputs, eval_set)
        found = group_record(self.metrics, sums, eval_set.owners, self.groups)
        return {f"eval/{key}": number for key, number in found.items()}


def make_evaluations(
    federation: Federation,
    batch_size: int = 0,
    eval_clients: int = 0,
    personal: int = 0,
    dataset: FederatedDataset | None = None,
    seed: int | None = None,
    others: Sequence[Evaluations] = (),
) -> Evaluations:
    """Prepares the evaluations of a run.

    Clients are evaluated on rows they own but did not train on, where there are such: their part of
    the test set, else held-out clients, else their validation rows, else their training rows. Where
    all are evaluated, the held-out and the training clients both are. Groups of clients are
    evaluated on the rows that training clients own of the test set, else of the validation set,
    else on those that clients are evaluated on.

    Where the pipeline has a trigger, its backdoor is judged on rows of the test set, else of the
    validation set, else of the held-out one, where the trigger stands and the attacker's class is
    the right one: "accuracy" of these is the attack's success.

    Args:
      federation: The federation.
      batch_size: Rows of a batch; 0 chooses.
      eval_clients: Clients to evaluate one by one: 0 none, -1 all, k a seeded sample of those that
        have such rows, or all of them where there are no more than k.
      personal: Clients whose own models are judged as well, on the rows that they own of the test
        set, else of the validation set: 0 none, -1 all, k a seeded sample of those that have such
        rows. The same sample as that of as many `eval_clients`. Beside them as many clients that
        never trained, where the data have rows to adapt to and rows to be judged on of such.
      dataset: The data of the trials that are evaluated; None is the federation's.
      seed: Of the samples of clients; None is the federation's.
      others: Made before for the same federation and data of the same preprocessing: what they
        compile and where they share a split, what they placed on the devices, is used again.
    """
    # the server's own client is judged nowhere
    dataset = without_root(dataset or federation.dataset)
    mesh, seed = federation.mesh, federation.options.seed if seed is None else seed
    batch_size = batch_size or evaluation.BATCH_SIZE
    splits = {
        name: split
        for name in ("val", "test", "held_out")
        if (split := getattr(dataset, name)) is not None
    }

    def prepare(split, clients=None):
        shared = split.examples is dataset.train.examples
        data = federation.inputs.data if shared else None
        return evaluation.prepare(split, mesh, batch_size, data=data, clients=clients)

    def known(name, split):
        same = (
            other.sets[name]
            for other in others
            if name in other.splits
            and other.splits[name].examples is split.examples
            and other.splits[name].partition is split.partition
        )
        return next(same, None)

    sets = {name: known(name, split) or prepare(split) for name, split in splits.items()}
    owned = {name: split for name, split in splits.items() if split.partition is not None}
    by_client, sample = _single_clients(dataset, owned, eval_clients, seed)
    if sample is not None:
        sets[_CLIENTS] = prepare(*sample)
    trigger, opened = as_configured(federation.options.pipeline).trigger, opened_split(dataset)
    if trigger is not None and opened is not None:
        splits[TRIGGERED] = opened
        sets[TRIGGERED] = known(TRIGGERED, opened) or prepare(triggered(opened, trigger))
    reported_on, groups = None, recorded_groups(dataset)
    # rows say their groups themselves, those of nobody too
    groups = {name: of for name, of in groups.items() if name not in dataset.row_groups}
    if groups:
        among = [name for name in ("test", "val") if name in owned]
        among += [name for name, who in by_client.items() if who == TRAINING]
        reported_on = next(iter(among), None)
    own, evaluate_own = {}, None
    if personal:
        asked = (federation, dataset, personal, batch_size, seed)
        own[_PERSONAL] = personalization.personal_set(*asked)
        if (new := personalization.new_client_set(*asked)) is not None:
            own[_NEW_CLIENTS] = new
        evaluate_own = (
            others[0].evaluate_personal
            if others
            else personalization.personal_program(federation, dataset)
        )
    programs = (
        (others[0].evaluate, others[0].evaluate_many) if others else _programs(federation, dataset)
    )
    made = Evaluations(
        sets,
        splits,
        by_client,
        reported_on,
        groups,
        _grouped(dataset, splits, sets),
        dataset,
        federation.task.metrics,
        _stand_ins(federation, dataset, eval_clients, seed),
        own,
        evaluate_own,
        *programs,
    )
    if not dataset.moves:
        return made

    def at(round: int) -> Evaluations:
        held, before = dataset.at(max(round - 1, 0)), made
        if TRIGGERED in made.splits:
            # of other rows another number would tell, and another program run
            before = made._replace(splits=made.splits | {TRIGGERED: opened_split(held)})
        return make_evaluations(
            federation, batch_size, eval_clients, personal, held, seed, others=(before,)
        )

    return made._replace(at=at)


def check_judged(
    dataset: FederatedDataset,
    algorithm: str,
    eval_clients: int = 0,
    eval_personal: int = 0,
    *,
    has_global_model: bool,
    tunes: bool = False,
) -> None:
    """Raises ValueError where clients are to be judged by rows or models that there are not.

    Args:
      dataset: Whose clients they are.
      algorithm: Its name.
      eval_clients, eval_personal: As they were given.
      has_global_model: Whether the algorithm trains one.
      tunes: Whether clients choose numbers of their own models by validation rows.
    """
    if eval_clients and not has_global_model:
        raise ValueError(
            f"eval_clients = {eval_clients} judges the global model client by client, and clients "
            f"of {algorithm!r} share none. Set it to 0; eval_personal judges their own models."
        )
    if eval_personal:
        held_out_split(dataset, eval_personal)
        if tunes:
            validation_split(dataset, algorithm)


def _single_clients(
    dataset: FederatedDataset, owned: Mapping[str, Split], eval_clients: int, seed: int
) -> tuple[dict[str, str], tuple[Split, np.ndarray] | None]:
    """Returns ({set: whose rows}, (split, clients) where a sample of them needs a set of its own).

    Args:
      dataset: The data.
      owned: Its splits whose rows clients own, by name.
      eval_clients, seed: As `make_evaluations` takes them.
    """
    if not eval_clients:
        return {}, None
    order = [name for name in ("test", "held_out", "val") if name in owned]
    split = owned[order[0]] if order else dataset.train
    with_rows = evaluation.clients_with_rows(split, eval_clients, "eval_clients", "evaluated")
    if order and (eval_clients == -1 or eval_clients >= len(with_rows)):
        of_training = next((name for name in ("test", "val") if name in owned), None)
        reported = [name for name in order if name in ("held_out", of_training)]
        return {name: population_of(name) for name in reported}, None
    count = min(eval_clients, len(with_rows))
    chosen = with_rows[evaluation.sample_clients(len(with_rows), count, seed)]
    return {_CLIENTS: population_of(order[0] if order else "train")}, (split, chosen)


def _grouped(
    dataset: FederatedDataset, splits: Mapping[str, Split], sets: Mapping[str, EvalSet]
) -> tuple[str, GroupedRows] | None:
    """Returns the set that is reported by group of rows: test, else held-out, else validation."""
    if not dataset.row_groups:
        return None
    name = next((name for name in ("test", "held_out", "val") if name in splits), None)
    if name is None:
        return None
    owners, num_owners = sets[name].owners, sets[name].num_clients
    return name, grouped_rows(dataset, splits[name], owners, num_owners)


def _stand_ins(
    federation: Federation, dataset: FederatedDataset, eval_clients: int, seed: int
) -> np.ndarray | None:
    """Returns clients whose own models stand for a global one; None where there is one.

    Raises:
      ValueError: If `eval_clients` asks for a global model that there is not.
    """
    if federation.algorithm.has_global_model:
        return None
    check_judged(dataset, federation.spec.name, eval_clients, has_global_model=False)
    generator = random.generator(seed, "evaluation/personal")
    with_rows = np.flatnonzero(dataset.train.partition.sizes > 0)
    count = min(STAND_INS, len(with_rows))
    return np.sort(generator.choice(with_rows, count, replace=False))


def _programs(federation: Federation, dataset: FederatedDataset) -> tuple[Callable, Callable]:
    """Returns (evaluate, evaluate_many) of `Evaluations`."""
    mesh = federation.mesh
    evaluate = evaluation.make_evaluate(
        lambda frozen: bind(federation.task, frozen, dataset.preprocess), mesh
    )

    def evaluate_many(models, count, frozen, inputs):
        def one(number):
            return evaluate(jax.tree.map(lambda leaf: leaf[number], models), frozen, inputs)

        def body(number, outputs):
            return jax.tree.map(lambda all, new: all.at[number].set(new), outputs, one(number))

        size = len(jax.tree.leaves(models)[0])
        return jax.lax.fori_loop(0, count, body, zeros_like_shape(jax.eval_shape(one, 0), size))

    return evaluate, jax.jit(evaluate_many, out_shardings=host_readable(mesh))


@functools.partial(jax.jit, static_argnums=1)
def taken_apart(stacked: Any, count: int) -> list[Any]:
    """Returns what each of some models led to: one program, for slices by themselves are many."""
    return [jax.tree.map(lambda leaf, place=place: leaf[place], stacked) for place in range(count)]


@functools.partial(jax.jit, static_argnums=0)
def _models_of(variables: Callable, server: Any, trials: jax.Array):
    """Returns the stacked global models of some trials."""
    return jax.vmap(variables)(jax.tree.map(lambda leaf: leaf[trials], server))


def _own_models(federation: Federation, clients: np.ndarray, trial: int):
    """Returns the stacked own models of some clients, of an algorithm without a global one."""
    rows = federation.store.rows_of(clients, trial).algorithm
    return _kept_models(federation.algorithm.personalize, federation.state.server, trial, rows)


@functools.partial(jax.jit, static_argnums=0)
def _kept_models(personalize: Callable, server: Any, trial: int, rows: Any):
    server = jax.tree.map(lambda leaf: leaf[trial], server)
    return jax.vmap(lambda own: personalize(server, own, None, None))(rows)


def _mean_over_models(metrics, outputs, sets) -> dict[str, float]:
    """Returns the mean over models of each metric on each set."""
    record = {}
    metrics = [metric for metric in metrics if not metric.of_counts]
    for name, eval_set in sets.items():
        leaves, structure = jax.tree.flatten(outputs[name])
        models = map(structure.unflatten, zip(*map(np.asarray, leaves), strict=True))
        each = [evaluation.finish(metrics, model, eval_set) for model in models]
        record |= {
            f"eval/{name}/{metric.name}": float(np.mean([found[metric.name] for found in each]))
            for metric in metrics
        }
    return record

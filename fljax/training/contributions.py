"""Tells what each client contributes: how much worse the model would be without it.

A coalition is a set of clients that train while the others have no rows; its value is a metric of
its model, on validation rows, signed so that more is better. Coalitions train as trials of one
program, side by side, on the same seed, cohorts and batches.

    leave_one_out   V(all) - V(all but i): N + 1 trainings
    shapley         the mean of V(S and i) - V(S) over all orders of clients: 2^N trainings
    gtg_shapley     the same of each round, from the updates of that round: about two trainings, and
                    as many evaluations as it takes (Liu et al. 2022, arXiv:2109.02053)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core import random
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.metrics import spread_metric
from fljax.core.task import Task
from fljax.data.dataset import FederatedDataset, Partition, offsets_of
from fljax.training import evaluation
from fljax.training.evaluations import Evaluations, make_evaluations
from fljax.training.federation import Federation, build
from fljax.training.hyperparameters import hyperparameters
from fljax.training.options import RoundOptions
from fljax.training.trials import TrialInputs

# Shapley values by retraining: 2^10 trainings.
_MOST_CLIENTS = 10


class Shares(NamedTuple):
    """The clients' shares of what training has gained.

    Attributes:
      values: float64[N], which add up to about V(last model) - V(first model).
      by_round: float64[rounds, N]; 0 for clients that were not in a round's cohort.
      evaluations: How many models were evaluated.
    """

    values: np.ndarray
    by_round: np.ndarray
    evaluations: int


def values_of(
    coalitions: np.ndarray,
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    *,
    rows: str = "val",
    side_by_side: int = 8,
) -> np.ndarray:
    """Returns the value of each coalition after all rounds.

    Args:
      coalitions: bool[C, N], who trains.
      dataset, task, spec, options: As `fljax.training.federation.build` takes them.
      rows: "val" or "test", whose metric is the value: the task's first one.
      side_by_side: How many coalitions train at a time.

    Raises:
      ValueError: If the data have no such rows, or coalitions are no [C, N].

    Example:
      >>> from fljax.training.contributions import values_of
      >>> dataset = data.digits(partition="iid", num_clients=4, val_fraction=0.2)
      >>> task = tasks.classification(models.softmax_regression(64, 10), 10)
      >>> options = RoundOptions(num_rounds=2, clients_per_round=4, batch_size=20)
      >>> fedavg = algorithms.fedavg(client_lr=0.1)
      >>> values_of(np.eye(4, dtype=bool), dataset, task, fedavg, options).shape
      (4,)
    """
    coalitions = np.asarray(coalitions, bool)
    if coalitions.ndim != 2 or coalitions.shape[1] != dataset.num_clients:
        raise ValueError(
            f"coalitions are of shape {list(coalitions.shape)}, and must say of each of the "
            f"{dataset.num_clients} clients whether it trains: [coalitions, clients]."
        )
    _check_rows(dataset, rows)
    partitions = [_among(dataset.train.partition, members) for members in coalitions]
    # of which somebody trains, whoever the coalitions are
    partitions.append(dataset.train.partition)
    width, count = min(side_by_side, len(coalitions)), len(coalitions)
    federation = _federation(dataset, task, spec, options, partitions, width)
    judge = make_evaluations(federation)
    found: list[float] = []
    for begin in range(0, count, width):
        if begin:
            # the last ones may train a second time, so that nothing compiles anew
            numbers = [min(begin + place, count - 1) for place in range(width)]
            trials = [_trial(spec, options, number) for number in numbers]
            federation.replace(dict(enumerate(trials)))
        for plan, facts in federation.plans(0, options.num_rounds):
            federation.step(plan, facts)
        places = range(min(width, count - begin))
        outputs = judge.dispatch_trials(federation, places, [options.num_rounds] * len(places))
        found += [_value(judge, each[rows], rows) for each in outputs]
    return np.array(found)


def leave_one_out(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions, **how: Any
) -> np.ndarray:
    """Returns float64[N], what the value of all clients loses without each of them.

    Args:
      dataset, task, spec, options, **how: As `values_of` takes them.
    """
    clients = dataset.num_clients
    coalitions = np.concatenate([np.ones((1, clients), bool), ~np.eye(clients, dtype=bool)])
    everybody, *without = values_of(coalitions, dataset, task, spec, options, **how)
    return everybody - np.array(without)


def shapley(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions, **how: Any
) -> np.ndarray:
    """Returns float64[N], the Shapley value of each client, from trainings of all coalitions.

    Args:
      dataset, task, spec, options, **how: As `values_of` takes them; at most 10 clients.

    Raises:
      ValueError: For more clients, of which `gtg_shapley` is the estimate.
    """
    clients = dataset.num_clients
    if clients > _MOST_CLIENTS:
        raise ValueError(
            f"{clients} clients have 2^{clients} coalitions, each of which would train; "
            f"{_MOST_CLIENTS} clients are the most. Use gtg_shapley."
        )
    coalitions = (np.arange(2**clients)[:, None] >> np.arange(clients)) & 1 == 1
    values = values_of(coalitions, dataset, task, spec, options, **how)
    return shapley_of(
        lambda members: float(values[int(members @ 2 ** np.arange(clients))]), clients
    )


def shapley_of(value: Callable[[np.ndarray], float], clients: int) -> np.ndarray:
    """Returns the Shapley values of a game of few clients, by all of its coalitions.

    Args:
      value: (bool[clients]) -> the value of a coalition.
      clients: How many there are.

    Example:
      >>> from fljax.training.contributions import shapley_of
      >>> shapley_of(lambda members: float(members[0] and members[1]), 3).tolist()
      [0.5, 0.5, 0.0]
    """
    found = np.zeros(clients)
    for number in range(2**clients):
        members = (number >> np.arange(clients)) & 1 == 1
        size = int(members.sum())
        for client in np.flatnonzero(~members):
            joined = members.copy()
            joined[client] = True
            share = math.factorial(size) * math.factorial(clients - size - 1)
            found[client] += share / math.factorial(clients) * (value(joined) - value(members))
    return found


def gtg_shapley(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    *,
    rows: str = "val",
    weighting: str = "examples",
    round_truncation: float = 0.001,
    truncation: float = 0.0005,
    tolerance: float = 0.05,
    max_sweeps: int = 20,
) -> Shares:
    """Returns GTG-Shapley: Shapley values of each round's game, added up over rounds.

    A coalition's model in a round is the mean of its members' models after their local training
    from the global one. A round that gains no more than `round_truncation` counts for nobody.
    Orders of clients are drawn in sweeps, in each of which every client of the cohort comes first
    once; behind a coalition whose value is within `truncation` of everybody's, nobody gains.

    Args:
      dataset, task, spec, options: As `fljax.training.federation.build` takes them. The algorithm
        averages the clients' models, such as fedavg or fedprox with server_lr = 1.
      rows: "val" or "test", whose metric is the value.
      weighting: As of the algorithm.
      round_truncation, truncation: In units of the metric.
      tolerance: Sweeps end once the values change by less, relative to their size.
      max_sweeps: They end after so many at the latest.

    Raises:
      ValueError: If the data have no such rows, or the algorithm does not average.
    """
    _check_rows(dataset, rows)
    clients = dataset.num_clients
    members = np.concatenate([np.eye(clients, dtype=bool), np.ones((1, clients), bool)])
    partitions = [_among(dataset.train.partition, each) for each in members]
    federation = _federation(dataset, task, spec, options, partitions, clients + 1)
    _check_averages(federation)
    judge = make_evaluations(federation)
    sizes = dataset.train.partition.sizes.astype(np.float64)
    own = sizes if weighting == "examples" else (sizes > 0).astype(np.float64)
    by_round = np.zeros((options.num_rounds, clients))
    before, count = _values(judge, federation, rows, [clients])[0], 1
    sampler_state = None
    for round in range(options.num_rounds):
        ((plan, facts),) = federation.plans(round, round + 1, sampler_state)
        sampler_state = facts.sampler_state
        federation.step(plan, facts)
        cohort = np.unique(facts.clients[facts.trials == clients])
        cohort = cohort[own[cohort] > 0]
        models = _models(federation.algorithm.variables, federation.state.server)
        if round == 0:
            _check_mean(models, own, cohort)
        after = _values(judge, federation, rows, [clients])[0]
        count += 1
        if abs(after - before) > round_truncation and len(cohort):
            value = _Game(judge, federation, rows, models, own, cohort, before, after)
            generator = random.generator(options.seed, "contributions", round)
            by_round[round, cohort] = _guided(
                value, len(cohort), generator, truncation, tolerance, max_sweeps
            )
            count += value.evaluations
        federation.state = federation.state._replace(
            server=_everybodys(federation.state.server, clients)
        )
        before = after
    return Shares(by_round.sum(0), by_round, count)


class _Game:
    """The game of one round: values of coalitions of its cohort, each evaluated once."""

    def __init__(self, judge, federation, rows, models, own, cohort, before, after):
        self._judge, self._federation, self._rows = judge, federation, rows
        self._models, self._own, self._cohort = models, own, cohort
        everybody = np.ones(len(cohort), bool)
        self._known = {(~everybody).tobytes(): before, everybody.tobytes(): after}
        self.before, self.after, self.evaluations = before, after, 0

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        """Returns the values of coalitions, bool[C, cohort]; those not known are evaluated."""
        unknown = {row.tobytes(): row for row in coalitions if row.tobytes() not in self._known}
        rows = list(unknown.values())
        width = len(self._own)
        for begin in range(0, len(rows), width):
            block = rows[begin : begin + width]
            weights = np.zeros((width, width + 1), np.float64)
            weights[:, -1] = 1
            for place, members in enumerate(block):
                chosen = self._cohort[members]
                weights[place] = 0
                weights[place, chosen] = self._own[chosen] / self._own[chosen].sum()
            models = _mixed(self._models, jnp.asarray(weights))
            found = _judged(self._judge, self._federation, self._rows, models, len(block))
            self._known |= zip(map(np.ndarray.tobytes, block), found, strict=True)
        self.evaluations += len(rows)
        return np.array([self._known[row.tobytes()] for row in coalitions])


def _guided(
    game: _Game, clients: int, generator, truncation: float, tolerance: float, max_sweeps: int
) -> np.ndarray:
    """Returns Shapley values from sweeps over orders, in each of which everybody is first once."""
    total, last = np.zeros(clients), np.zeros(clients)
    for sweep in range(1, max_sweeps + 1):
        orders = np.array(
            [
                [first, *generator.permutation(np.delete(np.arange(clients), first))]
                for first in range(clients)
            ]
        )
        members = np.zeros((clients, clients), bool)
        values = np.full(clients, game.before)
        for place in range(clients):
            members[np.arange(clients), orders[:, place]] = True
            goes_on = np.abs(game.after - values) > truncation
            new = values.copy()
            new[goes_on] = game(members[goes_on])
            np.add.at(total, orders[:, place], (new - values) / clients)
            values = new
        mean = total / sweep
        if sweep > 1 and np.abs(mean - last).sum() <= tolerance * np.abs(mean).sum():
            break
        last = mean
    return mean


def _among(partition: Partition, members: np.ndarray) -> Partition:
    """Returns the partition in which only some clients have rows."""
    sizes = np.where(members, partition.sizes, 0)
    rows = [partition.rows(client) for client in np.flatnonzero(members)]
    return Partition(offsets_of(sizes), np.concatenate(rows) if rows else np.zeros(0, np.int32))


def _trial(spec: AlgorithmSpec, options: RoundOptions, partition: int) -> TrialInputs:
    return TrialInputs(options.seed, hyperparameters(spec, options.pipeline), partition)


def _federation(dataset, task, spec, options: RoundOptions, partitions, width: int) -> Federation:
    if options.privacy is not None or options.secure_aggregation is not None:
        raise ValueError(
            "Contributions are found from single clients' models, which privacy and "
            "secure_aggregation are there to hide. Leave these out."
        )
    trials = [_trial(spec, options, number) for number in range(width)]
    return build(dataset, task, spec, options, trials=trials, partitions=partitions)


def _check_rows(dataset: FederatedDataset, rows: str) -> None:
    if dataset.moves:
        raise ValueError(
            f"the data of {dataset.name!r} drift, and coalitions are of rows that stay: leave "
            "drift out"
        )
    if dataset.root is not None:
        raise ValueError(
            f"the server of {dataset.name!r} has root rows, and is in no coalition: leave them out"
        )
    if rows not in ("val", "test") or getattr(dataset, rows) is None:
        raise ValueError(
            f"rows = {rows!r}, and the data have "
            + (" and ".join(n for n in ("val", "test") if getattr(dataset, n)) or "none")
            + ". Set val_fraction for validation rows."
        )


def _check_averages(federation: Federation) -> None:
    algorithm = federation.algorithm
    if len(algorithm.passes) > 1 or algorithm.init_client or algorithm.combine:
        raise ValueError(
            f"gtg_shapley puts coalitions together from the clients' models, and "
            f"{federation.spec.name} makes something else of these. Use fedavg or fedprox, or "
            "leave_one_out, which trains each coalition."
        )


def _check_mean(models: Any, own: np.ndarray, cohort: np.ndarray) -> None:
    """Refuses a server whose model is not the weighted mean of the clients'."""
    weights = np.zeros((1, len(own) + 1))
    weights[0, cohort] = own[cohort] / max(own[cohort].sum(), 1)
    mixed = jax.device_get(_mixed(models, jnp.asarray(weights)))
    for mean, each in zip(*map(jax.tree.leaves, (mixed, jax.device_get(models))), strict=True):
        if not np.allclose(mean[0], each[-1], rtol=1e-3, atol=1e-3 * np.abs(each).max()):
            raise ValueError(
                "The server's model is not the mean of the clients' models under this weighting, "
                "of which gtg_shapley makes the models of coalitions. Use plain SGD with "
                "server_lr = 1, and give the algorithm's weighting."
            )


@functools.partial(jax.jit, static_argnums=0)
def _models(variables: Callable, server: Any) -> Any:
    return jax.vmap(variables)(server)


@jax.jit
def _mixed(models: Any, weights: jax.Array) -> Any:
    """Returns weighted means of models [M, ...], by weights [C, M]."""

    def mixed(leaf):
        mean = jnp.tensordot(weights.astype(jnp.result_type(leaf, jnp.float32)), leaf, 1)
        return mean.astype(leaf.dtype)

    return jax.tree.map(mixed, models)


@functools.partial(jax.jit, static_argnums=1)
def _everybodys(server: Any, place: int) -> Any:
    """Returns the servers of all trials as that of one."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[place], leaf.shape), server)


def _values(judge: Evaluations, federation: Federation, rows: str, places) -> list[float]:
    models = _models(federation.algorithm.variables, federation.state.server)
    chosen = jax.tree.map(lambda leaf: leaf[np.array(places)], models)
    width = federation.dataset.num_clients
    padded = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], width, 0), chosen)
    return _judged(judge, federation, rows, padded, len(places))


def _judged(judge: Evaluations, federation: Federation, rows: str, models, count) -> list[float]:
    """Returns the values of the first models of a stack."""
    inputs = judge.sets[rows].inputs
    outputs = jax.device_get(judge.evaluate_many(models, count, federation.inputs.frozen, inputs))
    each = [jax.tree.map(lambda leaf, n=number: leaf[n], outputs) for number in range(count)]
    return [_value(judge, found, rows) for found in each]


def _value(judge: Evaluations, outputs: Mapping, rows: str) -> float:
    metric = spread_metric(judge.metrics)
    return metric.sign * evaluation.finish([metric], outputs, judge.sets[rows])[metric.name]

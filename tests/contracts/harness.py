"""Runs rounds from explicit job tables, on several layouts of devices, lanes and waves."""

from typing import Any, NamedTuple

import jax
import numpy as np
import toy

from fljax.engine.plan.packed_plan import pack
from fljax.engine.plan.round_plan import JobTable, job_table
from fljax.training.federation import Federation, RoundOptions, build


class Layout(NamedTuple):
    devices: int
    lanes: int
    wave: int


ONE = Layout(1, 1, 1)
MANY = Layout(3, 2, 4)
LAYOUTS = (ONE, MANY)


class Run(NamedTuple):
    """A finished run; `stats`, `facts` and `states` have one entry a round, on the host."""

    federation: Federation
    stats: list[Any]
    facts: list[Any]
    states: list[Any]

    @property
    def params(self):
        return toy.params_of(self.federation)

    def total(self, name, round, number=-1):
        """Returns a statistic of one pass, summed over the jobs of a round."""
        return self.stats[round][number][name].sum()

    def by_client(self, name, round, number=-1):
        """Returns {client: statistic} of one pass."""
        values, clients = self.stats[round][number][name], self.facts[round].clients
        return dict(zip(clients[clients >= 0].tolist(), values[clients >= 0].tolist(), strict=True))

    def client_rows(self, trial=0):
        """Returns the stored state of all clients, leaves [N, ...]."""
        clients = np.arange(self.federation.dataset.num_clients)
        return jax.device_get(self.federation.store.rows_of(clients, trial))


def prepare(
    spec, tables, layout=ONE, *, parts=None, task=None, trials=None, waiting=(), **options
) -> Federation:
    """Builds a federation whose capacities hold the job tables."""
    defaults = {"batch_size": 4, "shuffle": False, "clients_per_round": 1}
    if "schedule" not in options:
        defaults["cohorts"] = [np.asarray(_table(table).client) for table in tables]
    return build(
        toy.dataset(toy.clients() if parts is None else parts),
        task or toy.softmax_task(),
        spec,
        RoundOptions(
            num_rounds=len(tables),
            **(defaults | layout._asdict() | options),
        ),
        trials,
        waiting=waiting,
    )


def drive(federation, tables) -> Run:
    """Runs one round for each table: a JobTable, or a list of clients."""
    run = Run(federation, [], [], [])
    for round, table in enumerate(tables):
        plan, facts = federation.planner.plan(round, _table(table))
        stats = federation.step(federation.place(pack(plan)), facts)
        run.stats.append(jax.device_get(stats))
        run.facts.append(facts)
        run.states.append(jax.device_get(federation.state))
    return run


def rounds(spec, tables, layout=ONE, **options) -> Run:
    return drive(prepare(spec, tables, layout, **options), tables)


def _table(table) -> JobTable:
    return table if isinstance(table, JobTable) else job_table(table)

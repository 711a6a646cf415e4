"""A configuration with rounds that take their time where a run is to be stopped on its way."""

import os
import time

from fljax.config import default_config
from fljax.core.sampler import uniform

ROUNDS = 24


def get_config():
    config = default_config()
    config.dataset = "digits"
    config.num_clients = 8
    config.partition = "iid"
    config.model = "softmax_regression"
    config.sampler = "preempted:unhurried"
    config.clients_per_round = 4
    config.num_rounds = ROUNDS
    config.batch_size = 64
    config.eval_every = 0
    config.eval_clients = 0
    config.rounds_per_dispatch = 1
    config.lanes = 1
    return config


def unhurried(num_clients, clients_per_round, seed):
    """Draws cohorts uniformly; slowly, from the sixth on, where a run is to be stopped."""
    sampler = uniform(num_clients, clients_per_round, seed)

    def select(state, round):
        if round >= 6 and os.environ.get("TO_BE_STOPPED"):
            time.sleep(0.5)
        return sampler.select(state, round)

    return sampler._replace(select=select)

"""A configuration whose rounds take their time, so that a signal meets a run on its way."""

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
    """Draws cohorts uniformly, a twentieth of a second each."""
    sampler = uniform(num_clients, clients_per_round, seed)

    def select(state, round):
        time.sleep(0.05)
        return sampler.select(state, round)

    return sampler._replace(select=select)

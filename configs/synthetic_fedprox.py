"""Synthetic(1, 1) of FedProx (Li et al. 2020, arXiv:1812.06127): softmax regression, 30 clients.

The paper's setting: 10 clients a round, E = 20, B = 10, learning rate 0.01, mu = 1; set
`--config.algorithm=fedavg --config.mu=None` for its baseline, and
`--config.dataset_options.alpha=0` (and beta) for its easier data sets.
Costs: ten seconds on two cores. Reaches: test accuracy 0.89 and test loss 0.32 after 200 rounds;
FedAvg 0.87 and 0.90, and it is less steady.
"""

from fljax.config import default_config


def get_config():
    config = default_config()
    config.dataset = "synthetic"
    config.dataset_options.alpha = 1.0
    config.dataset_options.beta = 1.0
    config.num_clients = 30
    config.partition = "natural"
    config.val_fraction = 0.0
    config.model = "softmax_regression"
    config.algorithm = "fedprox"
    config.mu = 1.0
    config.weighting = "examples"
    config.clients_per_round = 10
    config.local_epochs = 20
    config.batch_size = 10
    config.client_lr = 0.01
    config.num_rounds = 200
    config.eval_every = 10
    config.eval_clients = -1
    return config

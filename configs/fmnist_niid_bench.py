"""Fashion-MNIST as in NIID-Bench (Li et al. 2022, arXiv:2102.02079) and Flower's baseline of it.

10 clients, all of them in each of 50 rounds, E = 10, B = 64, SGD 0.01 with momentum 0.9, split by
label with Dirichlet(0.5). Published for FedAvg: 88.09 +- 0.29 % test accuracy, the best over rounds
(so the row that compares with it is chosen on test data and says so).
Costs: 600,000 examples a round, about 1.8 MFLOP each.
Reaches: 88 %.
"""

from fljax.config import default_config


def get_config():
    config = default_config()
    config.dataset = "fashion_mnist"
    config.num_clients = 10
    config.partition = "dirichlet"
    config.alpha = 0.5
    config.min_partition_size = 10
    config.val_fraction = 0.0
    config.model = "lenet_cnn"
    config.clients_per_round = 10
    config.local_epochs = 10
    config.batch_size = 64
    config.client_lr = 0.01
    config.client_momentum = 0.9
    config.num_rounds = 50
    config.eval_every = 1
    config.checkpoint_every = 10
    return config

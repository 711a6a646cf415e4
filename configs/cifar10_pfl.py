"""CIFAR-10 as in pfl-research's benchmark (Granqvist et al. 2024, arXiv:2404.06430).

1,000 clients of 50 images (IID), 50 a round, one local epoch of batch 10 at learning rate 0.1, a
CNN of 1,626,442 parameters, 1,500 rounds, evaluated every 10. Where there is only the subset of
15,000 images, cifar10_subset/cifar10_subset.npz (see README, "The data directory"), it is 300
clients of 50 images instead: set --config.num_clients=300.
Costs: 2,500 examples a round, about 379 TFLOP in all: hours on two cores, minutes on a GPU.
Reaches: about 70 % on the full data set.
"""

from fljax.config import default_config


def get_config():
    config = default_config()
    config.dataset = "cifar10"
    config.num_clients = 1000
    config.partition = "iid"
    config.val_fraction = 0.0
    config.model = "pfl_cifar10_cnn"
    config.clients_per_round = 50
    config.local_epochs = 1
    config.batch_size = 10
    config.client_lr = 0.1
    config.num_rounds = 1500
    config.eval_every = 10
    config.checkpoint_every = 100
    return config

"""MNIST by its genuine writers: a naturally ragged federation, tested on unseen writers.

539 NIST writers own MNIST's training images (19 to 131 each); the 10,000 test images are by 297
other writers, on whom the model is evaluated one by one as well. FedAvg on the EMNIST CNN of Reddi
et al. 2021 (arXiv:2003.00295) with 10 classes, 20 writers a round.
Costs: about 2,200 examples a round, 72 MFLOP each; about 2 s a round on two cores.
Reaches: 97 % test accuracy well within 200 rounds.
"""

from fljax.config import default_config


def get_config():
    config = default_config()
    config.dataset = "mnist_writers"
    config.partition = "natural"
    config.val_fraction = 0.05
    config.model = "emnist_cnn"
    config.clients_per_round = 20
    config.local_epochs = 1
    config.batch_size = 20
    config.client_lr = 0.1
    config.num_rounds = 200
    config.eval_every = 10
    config.eval_clients = -1
    config.target_accuracy = 0.97
    config.checkpoint_every = 50
    return config

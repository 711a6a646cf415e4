"""A first run: handwritten digits on 100 unequal clients, with both baselines.

Data: scikit-learn's 8x8 digits (1,797 images), split by label with Dirichlet(0.3) so that most
clients know a few digits only. FedAvg, 10 clients a round.
Costs: a few seconds on two cores. Reaches: test accuracy 0.93 or more.
"""

from fljax.config import default_config


def get_config():
    config = default_config()
    config.dataset = "digits"
    config.num_clients = 100
    config.partition = "dirichlet"
    config.alpha = 0.3
    config.val_fraction = 0.1
    config.model = "mlp"
    config.model_options.hidden = (64,)
    config.algorithm = "fedavg"
    config.clients_per_round = 10
    config.num_rounds = 200
    config.local_epochs = 2
    config.batch_size = 10
    config.client_lr = 0.1
    config.eval_every = 10
    config.eval_clients = -1
    config.target_accuracy = 0.93
    config.checkpoint_every = 100
    config.baselines = ("centralized", "local_only")
    return config

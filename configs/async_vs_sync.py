"""Asynchronous and synchronous training in simulated time: a study.

For `scripts/study.py`. Digits on 100 clients by Dirichlet(0.3), an MLP of 32 units, two epochs,
batch 10, rate 0.1; 20 clients work at a time. Waiting for all, asking 1.3 times as many (Bonawitz
et al. 2019, arXiv:1902.01046), and FedBuff with a buffer of 5 (Nguyen et al. 2021,
arXiv:2106.06639), to 90 % of the test rows. Devices' speeds are log-normal with sigma
1; behind a colon, `equal` has equal ones (jobs still take as long as a client's rows ask for).

Costs: 15 seconds on two cores, five seeds.
Reaches: 90 % after 1,130 simulated seconds waiting for all, 379 by over-selection and 122 with
FedBuff (medians of five seeds).
"""

from fljax.config import default_config
from fljax.studies import Criterion

DEVICES = {"lognormal": "lognormal(1.0)", "equal": "equal"}


def get_config(setting="lognormal"):
    config = default_config()
    config.dataset = "digits"
    config.num_clients = 100
    config.partition = "dirichlet"
    config.alpha = 0.3
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
    return config


def get_study():
    buffered = {
        "schedule": "fedbuff(concurrency=20, max_staleness=50)",
        "clients_per_round": 5,
        "num_rounds": 300,
        "weighting": "uniform",
    }
    return {
        "variants": {
            "wait for all": {"schedule": "wait_for_all"},
            "over-selection": {"schedule": "over_selection(1.3)"},
            "fedbuff": buffered,
        },
        "reference": "wait for all",
        "seeds": (0, 1, 2, 3, 4),
        "columns": ("last", "rounds_to_target", "simulated_to_target", "staleness"),
        "criterion": Criterion("eval/test/accuracy", at="last", allow_test=True),
    }

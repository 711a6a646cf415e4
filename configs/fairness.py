"""Fairness over clients: who gains, who loses, and what it costs on the mean.

For `scripts/study.py`, which runs the variants below and leaves a table, pictures and a report;
`scripts/simulate.py` runs a single one, with --config.algorithm=q_fedavg --config.q=5.

    python scripts/study.py --config=configs/fairness.py --workdir=runs/fairness

Synthetic(1, 1) of FedProx, 100 clients with test rows of their own, as in q-FedAvg's paper (Li et
al. 2020, arXiv:1905.10497): softmax regression, 10 clients a round, one epoch, batches of 10, rate
0.1. The variants share all but the algorithm, whose own numbers are chosen by hand.
"""

from fljax.config import default_config

VARIANTS = {
    "FedAvg": {},
    "FedAvg, clients alike": {"weighting": "uniform"},
    "q-FedAvg, q = 0": {"algorithm": "q_fedavg", "q": 0.0},
    "q-FedAvg, q = 1": {"algorithm": "q_fedavg", "q": 1.0},
    "q-FedAvg, q = 5": {"algorithm": "q_fedavg", "q": 5.0},
    "AFL": {"algorithm": "afl", "lambda_lr": 0.001},
    "TERM, t = 1": {"algorithm": "term", "t": 1.0},
    "FedMGDA+": {"algorithm": "fedmgda", "epsilon": 0.1},
    "GIFAIR": {"algorithm": "gifair", "lam": 0.003},
}


def get_config():
    config = default_config()
    config.dataset = "synthetic"
    config.dataset_options.alpha = 1.0
    config.dataset_options.beta = 1.0
    config.num_clients = 100
    config.partition = "natural"
    config.val_fraction = 0.1
    config.model = "softmax_regression"
    config.clients_per_round = 10
    config.local_epochs = 1
    config.batch_size = 10
    config.client_lr = 0.1
    config.num_rounds = 500
    config.eval_every = 50
    config.eval_clients = -1
    config.data_seed = config.get_ref("seed")
    return config


def get_study():
    return {
        "variants": VARIANTS,
        "reference": "FedAvg",
        "seeds": (0, 1, 2, 3, 4),
        "columns": (
            "final/eval/test/accuracy",
            "final/eval/clients/mean",
            "final/eval/clients/variance",
            "final/eval/clients/worst",
            "final/eval/clients/best",
            "final/eval/clients/jain",
            "gap/eval/clients/mean",
        ),
        "pictures": ("bars", "clients", "curves"),
    }

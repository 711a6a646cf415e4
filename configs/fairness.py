"""Fairness over clients: who gains, who loses, and what it costs on the mean.

For `fljax study`, which runs the variants below and leaves a table, pictures and a report;
`fljax run` runs a single one, with --config.algorithm=q_fedavg --config.q=5.

    fljax study fairness --workdir=runs/fairness

Fashion-MNIST's three kinds of tops, each of which one client has, as in the papers of AFL (Mohri et
al. 2019, arXiv:1902.00146) and q-FedAvg (Li et al. 2020, arXiv:1905.10497): softmax regression, all
clients in each round, one local step. Shirts look like both others, and FedAvg gives them up. Each
client trains on 900 rows, of its 1,000 a tenth is for validation, and is tested on 1,000.
Costs: 15 runs of q-FedAvg, in one program, two minutes on two cores. Reaches: a variance over
clients of 117 points squared at q = 0, 74 at q = 1, 32 at q = 5, and means of 78.3, 78.4, 78.3 %.
"""

import numpy as np

from fljax import data
from fljax.config import default_config

# Fashion-MNIST's numbers of T-shirts, pullovers and shirts.
TOPS = (0, 2, 6)
VARIANTS = {
    # q = 0 is FedAvg, and trains in one program with the others
    "q = 0": {"algorithm": "q_fedavg", "q": 0.0},
    "q = 1": {"algorithm": "q_fedavg", "q": 1.0},
    "q = 5": {"algorithm": "q_fedavg", "q": 5.0},
    "AFL": {"algorithm": "afl", "lambda_lr": 0.01},
    "TERM, t = 1": {"algorithm": "term", "t": 1.0},
    "FedMGDA+": {"algorithm": "fedmgda", "epsilon": 0.2, "server_lr": 0.03},
    "GIFAIR": {"algorithm": "gifair", "lam": 0.05},
}


def tops(data_dir=None, seed=0, val_fraction=0.0):
    """Returns the data: three clients, each with rows of one kind of tops."""
    whole = data.fashion_mnist(data_dir=data_dir, partition="iid", num_clients=1)
    x, y = _chosen(whole.train.examples.arrays)
    x_test, y_test = _chosen(whole.test.examples.arrays)
    return data.from_arrays(
        x,
        y,
        client_ids=y,
        x_test=x_test,
        y_test=y_test,
        test_client_ids=y_test,
        rows_per_client=1000,
        seed=seed,
        val_fraction=val_fraction,
        class_names=("T-shirt", "pullover", "shirt"),
        preprocess=whole.preprocess,
        name="tops",
    )


def _chosen(arrays):
    """Returns the images of tops, and their places among these."""
    rows = np.flatnonzero(np.isin(arrays["y"], TOPS))
    return arrays["x"][rows], np.searchsorted(TOPS, arrays["y"][rows])


def get_config():
    config = default_config()
    config.dataset = "fairness:tops"
    config.val_fraction = 0.1
    config.model = "softmax_regression"
    config.clients_per_round = 3
    config.local_steps = 1
    config.batch_size = 200
    config.client_lr = 0.01
    # the steps of large q are cautious: see docs/algorithms.md
    config.server_lr = 3.0
    config.server_lr_schedule = "cosine"
    config.num_rounds = 4800
    config.eval_every = 800
    config.eval_clients = -1
    return config


def get_study():
    return {
        "variants": VARIANTS,
        "reference": "q = 0",
        "seeds": (0, 1, 2, 3, 4),
        "columns": (
            "final/eval/clients/mean",
            "final/eval/clients/variance",
            "final/eval/clients/worst",
            "final/eval/clients/best",
            "final/eval/clients/jain",
            "gap/eval/clients/mean",
        ),
        "pictures": ("bars", "clients", "curves"),
    }

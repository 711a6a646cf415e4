"""Clusters of clients: rotated MNIST, as IFCA's authors have it (arXiv:2006.04088).

For `fljax study`: 120 clients have 100 training and 50 test rows each, all turned by 0, 90,
180 or 270 degrees, so that there are four clusters of 30 clients; nobody is told who is where. An
MLP of 200 hidden units, full batches, 10 local steps of 0.1, everybody in each round. All variants
start from the same seeds; `train/adjusted_rand/domain` says how far clusters agree with rotations.
"ifca" is what the paper writes, "ifca, restarts" lets five sets of models compete for eight rounds.
Costs: 120,000 examples a round, 1 MFLOP each, and for IFCA a forward pass by every model.
Reaches: 65.8 % with FedAvg, 88.9 % with IFCA and restarts, which has found all four clusters by
round 10 with each of ten seeds. Figures: BENCHMARKS.md.
"""

from fljax.config import default_config
from fljax.studies import Criterion

CLUSTERS = 4


def get_config():
    config = default_config()
    config.dataset = "mnist"
    config.dataset_options.standardize = False
    config.partition = "iid"
    config.num_clients = 120
    config.rows_per_client = 150
    config.own_test_fraction = 1 / 3
    config.feature_skew = "rotations(4)"
    config.model = "mlp"
    config.model_options.hidden = (200,)
    config.clients_per_round = 120
    config.num_rounds = 20
    config.local_steps = 10
    config.batch_size = 0
    config.client_lr = 0.1
    config.eval_every = 10
    config.eval_personal = -1
    config.calibrate = False
    return config


def get_study():
    return {
        "variants": {
            "fedavg": {"algorithm": "fedavg"},
            "local only": {"algorithm": "local_only"},
            "ifca": {"algorithm": "ifca", "num_clusters": CLUSTERS},
            "ifca, restarts": {"algorithm": "ifca", "num_clusters": CLUSTERS, "restarts": 5},
            "ifca, k = 6": {"algorithm": "ifca", "num_clusters": 6, "restarts": 5},
            "hypcluster": {"algorithm": "hypcluster", "num_clusters": CLUSTERS},
            "fedsoft": {"algorithm": "fedsoft", "num_clusters": CLUSTERS, "mu": 0.1},
            "cfl": {
                "algorithm": "cfl",
                "num_clusters": CLUSTERS,
                "eps1": 0.4,
                "eps2": 0.6,
                "min_rounds": 5.0,
            },
        },
        "reference": "fedavg",
        "seeds": tuple(range(10)),
        "columns": (
            "best",
            "gap",
            "gap to local only",
            "eval/personal/worst",
            "train/adjusted_rand/domain",
        ),
        "pictures": ("bars", "clients", "curves"),
        "criterion": Criterion(
            "eval/personal/accuracy", "eval/personal/accuracy", at="last", allow_test=True
        ),
    }

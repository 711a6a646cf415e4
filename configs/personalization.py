"""Personal models beside one global model, under label skew: a study.

For `fljax study`; `fljax run` runs single ones. Each client is judged on test
rows of its own with the model that it uses: its own, or the global one. Nothing is chosen; figures
are those of the last round. Settings, behind a colon:

    two_classes   Fashion-MNIST, 20 clients of 600 + 200 rows and two classes each, all of them in
                  each of 60 rounds, an MLP 784-100-10 (the default)
    dirichlet     the same, class proportions of each client by Dirichlet(0.1, ..., 0.1)
    weak          the same, by Dirichlet(10, ..., 10): where one shared model serves all clients
    pfllib_pat    PFLlib (Zhang et al. 2023, arXiv:2312.04992): all 70,000 rows over 20 clients of
                  two classes, a quarter of each to test on, a CNN of four layers, rate 0.005, one
                  epoch of batches of 10. Its table is of 2,000 rounds; here are 100
    pfllib_dir    the same, every class over the clients by Dirichlet(0.1)

Costs: 36 runs in 12 programs, some ten minutes on two cores; PFLlib's settings take hours.
Reaches: 77.8 % with FedAvg, 99.0 % with fine-tuning, Ditto, FedPer, FedRep and without a
federation, two classes a client, three seeds; figures: BENCHMARKS.md.
"""

from fljax.config import check_setting, default_config
from fljax.studies import Criterion

METHODS = (
    "fedavg", "local_only", "fine_tuning", "ditto", "fedper", "fedrep", "lg_fedavg", "fedbabu",
    "apfl", "per_fedavg", "fedala", "knn_per",
)  # fmt: skip
PFLLIB = {"pfllib_pat": "pfllib_pathological", "pfllib_dir": "pfllib_dirichlet"}


def get_config(setting="two_classes"):
    check_setting(setting, ("two_classes", "dirichlet", "weak", *PFLLIB))
    config = default_config()
    config.dataset = "fashion_mnist"
    config.num_clients = 20
    config.clients_per_round = 20
    config.own_test_fraction = 0.25
    config.batch_size = 10
    config.eval_personal = -1
    config.eval_every = 5
    if setting.startswith("pfllib"):
        config.partition = PFLLIB[setting]
        config.model = "mcmahan_cnn(padding='VALID')"
        config.client_lr = 0.005
        config.num_rounds = 100
        return config
    config.rows_per_client = 800
    config.model = "mlp"
    config.model_options.hidden = (100,)
    config.client_lr = 0.05
    config.num_rounds = 60
    if setting == "two_classes":
        # classes 2k and 2k + 1 for four clients each
        config.partition = "pfllib_pathological(balanced=True)"
    else:
        config.partition = "dirichlet_per_client"
        # the sum over ten classes
        config.alpha = 100.0 if setting == "weak" else 1.0
    return config


def get_study():
    return {
        "variants": {name: {"algorithm": name} for name in METHODS},
        "reference": "fedavg",
        "seeds": (0, 1, 2),
        "columns": ("best", "gap", "gap to local_only", "eval/personal/worst", "seconds"),
        "criterion": Criterion(
            "eval/personal/accuracy", "eval/personal/accuracy", at="last", allow_test=True
        ),
    }

"""A backdoor by model replacement (Bagdasaryan et al. 2020, arXiv:1807.00459), and norm bounding.

MNIST, ten clients that all take part, one of them hostile. In the last of 26 rounds it trains on
images of which half show a white square and are called zero, and sends an update so long that the
mean becomes its own model. Norm bounding (Sun et al. 2019, arXiv:1911.07963) shortens every update
to a norm at most. `eval/triggered/accuracy` is the share of test images with the square, of other
digits than zero, that are called zero.

For `fljax study`, whose variants are with and without bound and attack.

Costs: 54,000 examples a round, 1.2 MFLOP each.
Reaches: 99.9 % of these images are called zero with the mean, 0.4 % with norm bounding.
"""

from fljax.config import default_config
from fljax.studies import Criterion


def get_config():
    config = default_config()
    config.dataset = "mnist"
    config.num_clients = 10
    config.partition = "dirichlet"
    config.alpha = 0.9
    config.val_fraction = 0.1
    config.model = "mlp"
    config.model_options.hidden = (200,)
    config.clients_per_round = 10
    config.weighting = "uniform"
    config.local_epochs = 1
    config.batch_size = 32
    config.client_lr = 0.05
    config.num_rounds = 26
    config.eval_every = 1
    config.attack = "pixel_trigger(0), scaling"
    config.attacker_clients = "3"
    config.attack_rounds = "26"
    return config


def get_study():
    bound = {"aggregator": "norm_bound(1.0)"}
    nobody = {"attack": "none", "attack_rounds": None}
    return {
        "variants": {
            "mean": {},
            "norm bound": bound,
            "mean, no attack": nobody,
            "norm bound, no attack": bound | nobody,
        },
        "reference": "mean, no attack",
        "seeds": (0, 1, 2),
        "columns": ("last", "gap", "eval/triggered/accuracy"),
        "criterion": Criterion("eval/val/accuracy", "eval/test/accuracy", at="last"),
    }

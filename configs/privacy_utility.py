"""Accuracy against epsilon: a ladder of noise on MNIST by its genuine writers.

For `fljax study`, which runs the variants below with three seeds and leaves a table, a picture
over epsilon and a report; `fljax run` runs a single one, with
--config.noise_multiplier=... Each of 539 writers takes part in a round with probability 0.2
(Poisson, 108 on average), trains softmax regression for one epoch, and sends an update clipped to
norm 0.3; noise of multiplier z is added to the sum (McMahan et al. 2018, arXiv:1710.06963). Nothing
is chosen: figures are those of the last round, since no choice by the clients' own rows is covered.
Costs: 18 runs in one program, and 3 without privacy; 137 s of training on two cores that others
shared.
Reaches: 91.4 % without privacy, 89.9 % at epsilon 2.62 (z = 2, delta 1e-3, PLD), 88.1 % at 1.05
(z = 4); figures and picture: BENCHMARKS.md.
"""

from fljax.config import default_config
from fljax.studies import Criterion

NOISES = (0.5, 0.7, 1.0, 2.0, 4.0, 8.0)


def get_config():
    config = default_config()
    config.dataset = "mnist_writers"
    config.partition = "natural"
    config.model = "softmax_regression"
    config.sampler = "poisson"
    config.clients_per_round = 108
    config.local_epochs = 1
    config.batch_size = 10
    config.client_lr = 0.05
    config.weighting = "uniform"
    config.num_rounds = 60
    config.eval_every = 20
    config.privacy = "gaussian"
    config.clip_norm = 0.3
    config.noise_multiplier = 2.0
    config.delta = 1e-3
    return config


def get_study():
    unprotected = dict.fromkeys(("privacy", "clip_norm", "noise_multiplier", "delta"))
    return {
        "variants": {
            "no privacy": unprotected,
            **{
                f"z = {noise:g}": {"privacy": "gaussian", "noise_multiplier": noise}
                for noise in NOISES
            },
        },
        "reference": "no privacy",
        "seeds": (0, 1, 2),
        "columns": ("epsilon", "best", "gap"),
        "pictures": ("privacy", "bars", "curves"),
        "criterion": Criterion("eval/test/accuracy", at="last", allow_test=True),
    }

"""Heart disease in four hospitals: together, each by itself, and on pooled rows: a study.

For `fljax study`; `fljax run` runs single ones. FLamby's patients, split and
features (Ogier du Terrail et al. 2022, arXiv:2210.04620; 199 / 172 / 30 / 85 train, 104 / 89 / 16 /
45 are tested), logistic regression, all hospitals in each round. Every method is judged in each
hospital by the model that it has there. Settings, behind a colon:

    tuned     batches of 16; of three rates and 10 or 40 rounds those of the least loss on a fifth
              of each hospital's training rows (--config.val_fraction=0.2) are taken, then all
              rows train, and figures are those of the last round (the default)
    flamby    FLamby's FedAvg: 15 rounds of 100 steps, batches of 4, rate 0.001, PyTorch's initial
              weights; its published accuracy stands in docs/data.md

`pooled` takes one step of all hospitals at a time, from which the server's model is a step of SGD
on the rows of all: centralized training.
Costs: 15 runs, a minute on two cores. Reaches: docs/data.md.
"""

import dataclasses

import jax
from flax import nnx

from fljax import data
from fljax.config import check_setting, default_config
from fljax.studies import Criterion

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
METRICS = ("auc", "recall", "f1", "accuracy")


def hospitals(data_dir=None, seed=0, val_fraction=0.0):
    """Returns the data, each hospital a group of its own, so that records tell them apart."""
    dataset = data.heart_disease(data_dir=data_dir, seed=seed, val_fraction=val_fraction)
    return dataclasses.replace(dataset, groups={"hospital": dataset.client_ids})


def logistic(num_classes, input_shape):
    """Returns two logits whose difference starts as widely spread as PyTorch's `nn.Linear(13, 1)`.

    PyTorch draws weights and bias from +-1 / sqrt(13), uniformly.
    """
    bound = 1 / (2 * input_shape[0]) ** 0.5

    def init(key, shape, dtype, **_):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return lambda rngs: nnx.Linear(
        *input_shape, num_classes, kernel_init=init, bias_init=init, rngs=rngs
    )


def get_config(setting="tuned"):
    check_setting(setting, ("tuned", "flamby"))
    config = default_config()
    config.dataset = "heart_disease:hospitals"
    config.task = "binary"
    config.model = "softmax_regression"
    config.clients_per_round = 4
    config.eval_personal = -1
    config.local_epochs = None
    if setting == "flamby":
        config.model = "heart_disease:logistic"
        config.num_rounds = 15
        config.local_steps = 100
        config.batch_size = 4
        # two logits move twice as far apart as one moves
        config.client_lr = 0.0005
        config.eval_every = 15
        return config
    config.num_rounds = 10
    config.local_steps = 10
    config.batch_size = 16
    config.client_lr = 0.08
    config.eval_every = 10
    return config


def get_study():
    config = get_config()
    steps = config.num_rounds * config.local_steps
    names = [f"final/eval/personal/groups/hospital/{h}/{m}" for h in HOSPITALS for m in METRICS]
    return {
        "variants": {
            "fedavg": {},
            "local_only": {"algorithm": "local_only"},
            "pooled": {"local_steps": 1, "num_rounds": steps, "eval_every": steps},
        },
        "reference": "fedavg",
        "seeds": (0, 1, 2, 3, 4),
        "columns": ["final/eval/personal/auc", "final/eval/personal/accuracy", *names],
        "criterion": Criterion(
            "eval/personal/auc", "eval/personal/auc", at="last", allow_test=True
        ),
    }

"""Four hospitals learn to find tumours in MRI slices together, and hide each slice: a study.

For `fljax study`, which compares what is below with ten seeds, and `fljax audit`, which
attacks the federation with and without its protection; `fljax run` runs the protected one
alone. Settings, behind a colon:

    private   DP-SGD in each hospital and secure aggregation: what leaves a hospital hides each of
              its slices, and the server sees sums alone (the default)
    plain     the same federation without either

The 228 different slices of `brain_mri` (62 % of them with a tumour), in hospitals of 91, 68, 46 and
23, each with a scanner of its own; who a patient is the data do not say, so that a slice is what is
hidden. Each seed tests on other 30 % of each hospital's. A brain is nearly the mirror image of
itself and a tumour is not: a small CNN (682 parameters) sees a slice and what its halves differ in.
10 rounds of 5 steps on all rows of a hospital at once: whatever its size, each hospital spends the
same epsilon, which all 50 steps keep to (delta 1e-3, one slice more or less). Model, rates and norm
did best on a quarter of the training rows, over three seeds; that halves are worth comparing was
found by cross-validation over all slices, which flatters every method alike. Nothing else is chosen
by test rows, and figures are those of the last round. `local only` and `centralized`, one step of
all hospitals at a time, which is gradient descent on the rows of all, take 50 steps as well.
Costs: 70 runs in 4 programs, 99 s of processor time.
Reaches: over ten seeds, accuracy of all test slices 75.1 % and AUC 0.826 with FedAvg, 69.7 and
0.763 local only, 73.5 and 0.825 centralized; at epsilon 8 / 4 / 2 / 1 67.4 / 65.0 / 63.2 / 58.8 %
and 0.733 / 0.703 / 0.657 / 0.602, which is less than local only: 160 slices are too few for a CNN
that hides each of them. Figures by hospital: BENCHMARKS.md.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx

from fljax import data
from fljax.config import check_setting, default_config
from fljax.studies import Criterion

# Slices of hospitals, in proportion.
SHARES = (4, 3, 2, 1)
METRICS = ("accuracy", "recall", "f1", "auc")
EPSILONS = (8.0, 4.0, 2.0, 1.0)
PROTECTION = {
    "privacy": "dpsgd",
    "clip_norm": 3.0,
    "target_epsilon": 8.0,
    "delta": 1e-3,
    "secure_aggregation": "secure_aggregation(bits=16, clip=4.0)",
}
SETTINGS = {
    "private": PROTECTION | {"batches": "poisson", "client_lr": 0.1},
    "plain": dict.fromkeys(PROTECTION) | {"batches": "shuffled", "client_lr": 0.3},
}


def hospitals(data_dir=None, seed=0, own_test_fraction=0.0, val_fraction=0.0):
    """Returns the data: hospitals, patients and scanners are the same with every seed."""
    dataset = data.brain_mri(
        data_dir=data_dir,
        hospitals=SHARES,
        copies=False,
        scanners=False,
        seed=seed,
        own_test_fraction=own_test_fraction,
        val_fraction=val_fraction,
    )
    dataset = data.with_feature_skew(dataset, data.scanners(len(SHARES)))
    return dataclasses.replace(
        dataset,
        groups={"hospital": dataset.client_ids},
        # round numbers, which no slice decided on
        preprocess=data.image_scaling(((0.25,), (0.25,))),
    )


class MirroredCNN(nnx.Module):
    """5x5 convolution of 8 filters on a halved image and its asymmetry, averaged over 4 x 4 cells.

    The last layer starts at zero, so that no gradient is clipped for what chance said of a slice.
    """

    def __init__(self, rngs, width=8, cells=4):
        self.cells = cells
        self.conv = nnx.Conv(2, width, (5, 5), strides=2, rngs=rngs)
        self.norm = nnx.GroupNorm(width, 4, rngs=rngs)
        zeros = nnx.initializers.zeros
        self.dense = nnx.Linear(width * cells**2, 2, kernel_init=zeros, rngs=rngs)

    def __call__(self, x):
        x = _averaged(x, 2)
        x = jnp.concatenate([x, jnp.abs(x - x[:, :, ::-1])], -1)
        x = nnx.relu(self.norm(self.conv(x)))
        x = _averaged(x, x.shape[1] // self.cells)
        return self.dense(x.reshape(x.shape[0], -1))


def _averaged(x, size):
    """Returns the means of squares that lie beside each other."""
    return nnx.avg_pool(x, (size, size), strides=(size, size))


def get_config(setting="private"):
    check_setting(setting, SETTINGS)
    config = default_config()
    config.dataset = "hospitals_mri:hospitals"
    # each seed tests on other slices, the same for all variants
    config.data_seed = config.get_ref("seed")
    config.own_test_fraction = 0.3
    config.task = "binary"
    config.model = "hospitals_mri:MirroredCNN"
    config.clients_per_round = 4
    config.num_rounds = 10
    config.local_steps = 5
    config.batch_size = 0
    config.eval_every = 5
    config.eval_personal = -1
    config.update(SETTINGS[setting])
    return config


def get_study(setting="private"):
    config = get_config(setting)
    steps = config.num_rounds * config.local_steps
    private, plain = SETTINGS["private"], SETTINGS["plain"]
    one_by_one = {"local_steps": 1, "num_rounds": steps, "eval_every": 25}
    own, groups = "eval/personal", "eval/personal/groups/hospital"
    by_hospital = [f"{groups}/hospital_{k}/{m}" for k in range(len(SHARES)) for m in METRICS]
    return {
        "variants": {
            "FedAvg": plain,
            **{f"epsilon {e:g}": private | {"target_epsilon": e} for e in EPSILONS},
            "local only": plain | {"algorithm": "local_only", "client_lr": 0.1},
            "centralized": plain | one_by_one,
        },
        "reference": "FedAvg",
        "seeds": tuple(range(10)),
        "columns": [
            "epsilon",
            *(f"{own}/{m}" for m in METRICS),
            "gap",
            f"{own}/mean",
            *by_hospital,
        ],
        "pictures": ("privacy", "bars", "clients"),
        "criterion": Criterion(f"{own}/accuracy", f"{own}/accuracy", at="last", allow_test=True),
    }


def get_audit():
    return {"defences": {"private": {}, "plain": SETTINGS["plain"]}, "shadows": 24}

"""Attacks against defences: every rule that guards the mean, under every attack, and its cost.

For `fljax study`, which leaves a matrix, a table, and remarks on where the plain mean is
better; `fljax run` runs a single pair, with --config.aggregator=... and
--config.attack=... Settings, behind a colon:

    fashion   Fashion-MNIST, 100 clients of unlike labels (Dirichlet 0.3), of whom 25 take part in
              each of 100 rounds and a fifth are hostile: 5 of a cohort on average, which is what
              rules are told (the default)
    skewed    the same, by Dirichlet(0.05), where honest updates differ as hostile ones do
    small     digits, 14 clients of all labels, 2 of them hostile, all of them in each of 20
              rounds, one seed

    fljax study attacks_and_defences:small --workdir=runs/defences

Hostile clients act together and know all honest updates of the round, where an attack needs that;
others poison their data alone. Nothing is chosen: figures are those of the last round.
Costs: 720 runs in 240 programs. Of `small`, 40 programs and 195 s on two CPU cores, two thirds of
them compiling.
Reaches: `small`, under a tenfold flipped sign: 9.7 % with the mean, 88.3 % with Multi-Krum; a
backdoor opens for every test image with the mean, for three in a thousand with the median.
"""

from fljax.config import check_setting, default_config
from fljax.studies import Criterion

SETTINGS = ("fashion", "skewed", "small")
BACKDOOR = "pixel_trigger(0), scaling"
ATTACKS = (
    "none",
    "label_flip",
    "sign_flip(10)",
    "noise(1.0)",
    "free_rider",
    "mimic",
    "alie",
    "ipm(0.1)",
    "ipm(10)",
    "min_max",
    "min_sum",
    BACKDOOR,
)


def defences(hostile):
    """Returns what each defence changes, told how many of a round may be hostile."""
    rules = {
        "mean": "mean",
        "median": "median",
        "trimmed mean": f"trimmed_mean(f={hostile})",
        "Krum": f"krum({hostile})",
        "Multi-Krum": f"multi_krum({hostile})",
        "Bulyan": f"bulyan({hostile})",
        "buckets, Krum": f"bucketing(2), krum({hostile})",
        "buckets, median": "bucketing(2), median",
        "neighbours, median": f"nearest_neighbour_mixing({hostile}), median",
        "RFA": "rfa",
        "centered clipping": "centered_clipping(1.0)",
        "norm bound": "norm_bound(1.0)",
        "adaptive (TFF)": "adaptive_zeroing, adaptive_clipping",
        "DnC": f"dnc({hostile})",
        "SignGuard": "signguard",
        "clipped clustering": "clipped_clustering",
        "FoolsGold": "foolsgold",
        "robust learning rate": f"robust_learning_rate({hostile + 1})",
    }
    found = {name: {"aggregator": text} for name, text in rules.items()}
    found["momentum, clipping"] = found["centered clipping"] | {"worker_momentum": 0.9}
    found["FLTrust"] = {"aggregator": "fltrust", "root_rows": 100}
    return found


def get_config(setting="fashion"):
    check_setting(setting, SETTINGS)
    config = default_config()
    config.weighting = "uniform"
    config.model = "mlp"
    config.client_lr = 0.1
    config.calibrate = False
    if setting == "small":
        config.dataset = "digits"
        config.partition = "iid"
        config.num_clients = 14
        config.clients_per_round = 14
        config.attackers = 0.15
        config.model_options.hidden = (32,)
        config.local_steps = 5
        config.batch_size = 16
        config.num_rounds = 20
        # a program for one device compiles faster
        config.devices = 1
    else:
        config.dataset = "fashion_mnist"
        config.partition = "dirichlet"
        config.alpha = 0.05 if setting == "skewed" else 0.3
        config.min_partition_size = 10
        config.num_clients = 100
        config.clients_per_round = 25
        config.attackers = 0.2
        config.model_options.hidden = (64,)
        config.local_steps = 10
        config.batch_size = 32
        config.num_rounds = 100
        # each seed draws its own split, the same for all pairs
        config.data_seed = config.get_ref("seed")
    config.attack = "none"
    config.eval_every = config.num_rounds
    return config


def get_study(setting="fashion"):
    small = setting == "small"
    return {
        "variants": defences(2 if small else 5),
        "reference": "mean",
        "axes": {"attack": ATTACKS},
        # of small models, compiling is the cost; without an attack a round's seconds are its own
        "together": ATTACKS[1:] if small else (),
        "seeds": (0,) if small else (0, 1, 2),
        "columns": (
            "clean",
            "gap",
            "worst",
            "mean_over_faced",
            "success",
            "false_positives",
            "false_negatives",
            "cost",
        ),
        "criterion": Criterion(
            "eval/test/accuracy", "eval/test/accuracy", at="last", allow_test=True
        ),
    }

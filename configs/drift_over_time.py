"""Drift over time: a deployed model is watched, and clients train again when its errors rise.

For `fljax monitor`: scikit-learn's digits on 20 unequal clients, whose data drift by rounds.
The model serves from round 40 on; in each round every client meets 5 rows of its own that it never
trains on, and a detector hears whether they were classified right. An alarm calls for 30 rounds of
training. Streams:

    sudden       threes and eights change places in round 100
    gradual      pixels come into another order, row by row, in rounds 101 to 140
    recurring    threes and eights change places every 60 rounds

"every(60)" trains again without looking, "none" never.
Costs: 30 runs of 240 rounds, 3 seconds each on two cores (about).
Reaches: with ADWIN and one seed, alarms in the round of a sudden change and 5 rounds into a gradual
one, none false; retraining recovers 100, 94 and 99 % of the error that drift costs.
"""

from fljax.config import default_config


def get_config():
    config = default_config()
    config.dataset = "digits"
    config.num_clients = 20
    config.partition = "dirichlet"
    config.alpha = 1.0
    config.own_test_fraction = 0.3
    config.concept_drift = "label_swap(3, 8), sudden(100)"
    config.model = "mlp"
    config.clients_per_round = 10
    config.num_rounds = 240
    config.local_epochs = 2
    config.batch_size = 10
    config.client_lr = 0.1
    return config


def get_deployments():
    return {
        "streams": {
            "sudden": "label_swap(3, 8), sudden(100)",
            "gradual": "pixel_permutation(2), gradual(100, over=40)",
            "recurring": "label_swap(3, 8), recurrent(60)",
        },
        "detectors": ("adwin", "page_hinkley", "ddm", "every(60)", "none"),
        "deploy_after": 40,
        "retrain_rounds": 30,
        "watch_rows": 5,
        "seeds": (0, 1),
    }

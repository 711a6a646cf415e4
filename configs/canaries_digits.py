"""Canary clients in private federations of digits: what they prove of epsilon, and of less noise.

For `fljax audit`: 20 runs of DP-FedAvg on 670 clients, of whom 603 are canaries (each sent
with probability 1/2), everybody in each of 4 rounds, clipped to 0.3, noise multiplier 5; and 20
with a quarter of that noise, which breaks the promise.
Costs: 40 trials of one program, two CPU minutes.
Reaches: the promise is epsilon 1.555 at delta 1e-5. Bounds of one run, at 95 %, are 0.29 on average
and 0.91 at most; with a quarter of the noise 1.98, and above the promise in 20 of 20 runs.
"""

from fljax.config import default_config


def get_config():
    config = default_config()
    config.dataset = "digits"
    config.partition = "iid"
    config.num_clients = config.clients_per_round = 670
    config.val_fraction = 0.0
    config.model = "mlp"
    config.model_options.hidden = (64,)
    config.privacy = "gaussian"
    config.clip_norm = 0.3
    config.noise_multiplier = 5.0
    config.delta = 1e-5
    config.sampler = "poisson"
    config.weighting = "uniform"
    config.local_epochs = 1
    config.batch_size = 4
    config.client_lr = 0.1
    config.num_rounds = 4
    config.eval_every = 4
    return config


def get_audit():
    return {
        "defences": {"as promised": {}, "a quarter of the noise": {"noise_multiplier": 1.25}},
        "views": (),
        "reconstructed": 0,
        "canaries": 20,
        "canary_share": 0.9,
    }

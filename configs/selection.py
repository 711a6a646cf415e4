"""Samplers beside each other, in rounds, in simulated seconds, and by who is never chosen.

For `fljax study`. Digits on 100 clients by Dirichlet(0.3), an MLP of 32 units, ten clients a
round on devices of log-normal speed; the server waits for all. Uniform draws, by size, uniform with
Horvitz-Thompson weights, clustered sampling by sizes and by labels, power-of-choice among 20,
optimal sampling by norms, FedCS with a deadline of 20 seconds, DivFL. The report says for each how
many simulated seconds 90 % of the test rows took. Of power-of-choice and optimal sampling these are
upper bounds: whom they choose is known on the devices alone, so the plan lets all candidates train.
`summary.json` of a single run says who was ever chosen, by speed and by group. Samplers that wait
for what rounds have shown run by themselves:
`fljax run selection --config.sampler=oort`, or rpow_d(20).

Costs: 25 seconds on two cores, three seeds.
Reaches: 90 % after 1,110 simulated seconds with uniform draws, 690 with FedCS, 860 with DivFL; all
end between 93.2 and 94.2 %.
"""

from fljax.config import default_config
from fljax.studies import Criterion

UNIFORM_MEAN = {"weighting": "uniform"}
CANDIDATES = {"sampler": "by_size(replacement=False)", "clients_per_round": 20}
METHODS = {
    "uniform": {},
    "by size": {"sampler": "by_size", **UNIFORM_MEAN},
    "importance": {"sampler": "importance(probabilities='uniform')", **UNIFORM_MEAN},
    "clustered, sizes": {"sampler": "clustered", **UNIFORM_MEAN},
    "clustered, labels": {"sampler": "clustered(by='labels')", **UNIFORM_MEAN},
    "power of choice": {"algorithm": "power_of_choice", "chosen": 10.0, **CANDIDATES},
    "optimal": {"algorithm": "optimal_sampling", "chosen": 10.0, "clients_per_round": 20},
    "fedcs": {"sampler": "fedcs(deadline=20)"},
    "divfl": {"sampler": "divfl"},
}


def get_config():
    config = default_config()
    config.dataset = "digits"
    config.num_clients = 100
    config.partition = "dirichlet"
    config.alpha = 0.3
    config.val_fraction = 0.1
    config.model = "mlp"
    config.model_options.hidden = (32,)
    config.clients_per_round = 10
    config.num_rounds = 150
    config.local_epochs = 2
    config.batch_size = 10
    config.client_lr = 0.1
    config.profiles = "lognormal(1.0)"
    config.eval_every = 5
    config.target_accuracy = 0.9
    return config


def get_study():
    return {
        "variants": METHODS,
        "reference": "uniform",
        "seeds": (0, 1, 2),
        "columns": ("best", "last", "gap", "rounds_to_target", "simulated_to_target"),
        "criterion": Criterion("eval/val/accuracy", "eval/test/accuracy"),
    }

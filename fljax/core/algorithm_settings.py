"""The options of algorithms: each once, whichever algorithms have it.

An algorithm has those that its function's signature names, whose default counts where an option is
unset here.
"""

from __future__ import annotations

from fljax.core.values import (
    COUNT,
    DECAY,
    FACTOR,
    FINITE,
    NON_NEGATIVE,
    POSITIVE,
    SEED,
    Field,
    Interval,
)

ALGORITHM: dict[str, Field] = {
    "algorithm": Field(
        "fedavg", str,
        meaning="Names the federated algorithm: afl, apfl, cfl, delta_sgd, ditto, fairfed, "
        "fedadmm, fedala, fedavg, fedbabu, fedbn, feddc, feddrift, feddyn, fedexp, fedlin, "
        "fedmgda, fednova, fedopt, fedper, fedproto, fedprox, fedrep, fedrolex, fedsam, "
        "fedsgd, fedsoft, fedspeed, fine_tuning, fjord, gifair, heterofl, hypcluster, ifca, "
        "knn_per, layer_freezing, lg_fedavg, local_only, mime, mimelite, mofedsam, moon, "
        "optimal_sampling, "
        "per_fedavg, pfedme, power_of_choice, q_fedavg, scaffold, term.",
    ),
    "client_lr": Field(
        None, float, POSITIVE, optional=True, meaning="Sets the learning rate of the clients."
    ),
    "client_momentum": Field(
        None, float, DECAY, optional=True,
        meaning="Sets the momentum of the clients' SGD, which starts from zero in each round; "
        "unset: plain SGD.",
    ),
    "client_weight_decay": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Adds so many times the parameters to the clients' gradients; unset: nothing.",
    ),
    "mu": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Sets FedProx's proximal coefficient: how strongly clients are pulled back; in "
        "FedSpeed the inverse of lambda, in FedADMM rho, in FedDyn and FedDC alpha; weighs MOON's "
        "contrast.",
    ),
    "temperature": Field(
        None, float, POSITIVE, optional=True,
        meaning="Divides the cosines of MOON's contrast.",
    ),
    "rho": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Says how far uphill FedSAM takes a gradient, and FedSpeed in lengths of it.",
    ),
    "gradient_share": Field(
        None, float, FACTOR, optional=True,
        meaning="Sets the share of the gradient in a step of MoFedSAM, its beta; the rest is the "
        "server's last direction.",
    ),
    "ascent_share": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Sets the share of the gradient uphill in a step of FedSpeed, its alpha.",
    ),
    "gamma": Field(
        None, float, POSITIVE, optional=True,
        meaning="Lets rates of Delta-SGD be so many halves of the inverse of the smoothness.",
    ),
    "growth": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Says how fast rates of Delta-SGD may grow, its delta.",
    ),
    "option": Field(
        None, str, ("I", "II"), optional=True,
        meaning="Makes SCAFFOLD's control variates of a second pass over the rows (I), or of the "
        "way that clients went (II).",
    ),
    "base_optimizer": Field(
        None, str, ("sgd", "momentum", "adagrad", "adam", "yogi"), optional=True,
        meaning="Names the optimizer that Mime's clients step with, its statistics frozen.",
    ),
    "q": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Sets how fair q-FedAvg is; 0 counts clients alike.",
    ),
    "t": Field(
        None, float, FINITE, optional=True,
        meaning="Sets TERM's tilt towards clients with a large loss; 0 is FedAvg.",
    ),
    "lam": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Sets lambda: the pull of Ditto's and pFedMe's own models to the shared one, of "
        "FedProto's representations to prototypes, the weight of GIFAIR's group differences "
        "(by itself half of what its paper allows for a cohort).",
    ),
    "beta": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Sets how strongly FairFed's weights follow the gaps between groups of rows.",
    ),
    "lambda_lr": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Sets the learning rate of AFL's weights of clients or groups.",
    ),
    "epsilon": Field(
        None, float, Interval(0, 1), optional=True,
        meaning="Sets how far FedMGDA+ moves a client's weight from its share of the rows; keeps "
        "FedExP's rate small where updates cancel out.",
    ),
    "normalize_updates": Field(
        None, bool, optional=True, meaning="Gives all of FedMGDA+'s updates the length 1."
    ),
    "fair_among": Field(
        None, str, ("clients", "groups"), optional=True,
        meaning="Says what AFL and GIFAIR treat alike: clients, or the first of their groups.",
    ),
    "average_iterates": Field(
        None, bool, optional=True,
        meaning="Evaluates the mean of AFL's models of all rounds, not the last one.",
    ),
    "sensitive": Field(
        None, str, optional=True,
        meaning="Names the groups of rows that FairFed compares; unset: the first.",
    ),
    "privileged": Field(
        None, int, NON_NEGATIVE, optional=True,
        meaning="Numbers the group of rows that FairFed compares all others with.",
    ),
    "gap": Field(
        None, str, ("equal_opportunity", "demographic_parity"), optional=True,
        meaning="Says what FairFed compares: predictions of class 1 among rows of class 1, or all.",
    ),
    "weighting": Field(
        None, str, ("examples", "uniform"), optional=True,
        meaning="Weights clients in averages by their rows, or all alike.",
    ),
    "server_optimizer": Field(
        None, str, ("sgd", "momentum", "adagrad", "adam", "yogi"), optional=True,
        meaning="Names the optimizer of the server.",
    ),
    "server_lr": Field(
        None, float, POSITIVE, optional=True, meaning="Sets the learning rate of the server."
    ),
    "server_momentum": Field(
        None, float, DECAY, optional=True,
        meaning="Sets the momentum of FedAvgM's and FedNova's server.",
    ),
    "beta1": Field(
        None, float, DECAY, optional=True,
        meaning="Sets the decay of an adaptive server's first moment, or Mime's momentum.",
    ),
    "beta2": Field(
        None, float, DECAY, optional=True,
        meaning="Sets the decay of an adaptive server's second moment.",
    ),
    "tau": Field(
        None, float, POSITIVE, optional=True,
        meaning="Sets the adaptivity of an adaptive server, which bounds its steps from above.",
    ),
    "bias_correction": Field(
        None, bool, optional=True,
        meaning="Corrects an adaptive server's moments for their start, as Adam does.",
    ),
    "num_clusters": Field(
        None, int, COUNT, optional=True, unit="models",
        meaning="Gives the server so many models, between which clients choose.",
    ),
    "averaging": Field(
        None, str, ("models", "gradients"), optional=True,
        meaning="Says what IFCA averages: models after local steps, or gradients over all rows.",
    ),
    "restarts": Field(
        None, int, COUNT, optional=True,
        meaning="Lets so many sets of IFCA's models compete at the start; the best goes on.",
    ),
    "restart_rounds": Field(
        None, float, Interval(1), optional=True, unit="rounds",
        meaning="Lets sets of IFCA's models compete for so many rounds.",
    ),
    "eps1": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Lets CFL cut a cluster whose mean update has a norm below this.",
    ),
    "eps2": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Lets CFL cut a cluster of which some client's update has a norm above this.",
    ),
    "gamma_max": Field(
        None, float, DECAY, optional=True,
        meaning="Asks that the parts of a cluster that CFL cuts point apart by more than this.",
    ),
    "min_rounds": Field(
        None, float, NON_NEGATIVE, optional=True, unit="rounds",
        meaning="Lets CFL train for so many rounds before its first cut.",
    ),
    "drift_threshold": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Lets a client of FedDrift start a model of its own when its lowest loss rises by "
        "more than this from one time step to the next, and merges models nearer than this.",
    ),
    "step_rounds": Field(
        None, float, Interval(1), optional=True, unit="rounds",
        meaning="Lets a time step of FedDrift have so many rounds; data should change where one "
        "begins.",
    ),
    "eager": Field(
        None, bool, optional=True,
        meaning="Opens one model for all clients of FedDrift that drift in a time step, and merges "
        "none: FedDrift-Eager.",
    ),
    "personal_epochs": Field(
        None, int, COUNT, optional=True, unit="epochs",
        meaning="Trains Ditto's own models so many local epochs; unset: on the batches of the "
        "shared one.",
    ),
    "mixture": Field(
        None, float, Interval(0, 1), optional=True,
        meaning="Sets the share of the own part in a client's model of APFL, its alpha.",
    ),
    "adaptive_mixture": Field(
        None, bool, optional=True, meaning="Lets each client of APFL learn a share of its own."
    ),
    "inner_lr": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Sets the learning rate of the inner steps of Per-FedAvg and pFedMe.",
    ),
    "inner_steps": Field(
        None, int, COUNT, optional=True, unit="steps",
        meaning="Lets pFedMe take so many inner steps on each batch.",
    ),
    "hessian": Field(
        None, str, ("first_order", "hessian_free"), optional=True,
        meaning="Says whether Per-FedAvg has second derivatives, from a difference of gradients.",
    ),
    "hessian_step": Field(
        None, float, POSITIVE, optional=True,
        meaning="Sets how far from the model the gradients of that difference are taken.",
    ),
    "knn_weight": Field(
        None, float, Interval(0, 1), optional=True,
        meaning="Sets the weight of the nearest rows of a client in kNN-Per's predictions.",
    ),
    "adaptive_knn_weight": Field(
        None, bool, optional=True,
        meaning="Lets each client of kNN-Per choose that weight on its own validation rows.",
    ),
    "knn_scale": Field(
        None, float, POSITIVE, optional=True,
        meaning="Sets how wide kNN-Per's kernel over the nearest rows is.",
    ),
    "num_neighbors": Field(
        None, int, COUNT, optional=True, unit="rows",
        meaning="Lets kNN-Per ask so many nearest rows.",
    ),
    "ala_lr": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Sets the learning rate of FedALA's weights.",
    ),
    "ala_layers": Field(
        None, str, optional=True,
        meaning="Says which layers FedALA mixes, by a filter such as head, all or layers/0.",
    ),
    "ala_share": Field(
        None, float, FACTOR, optional=True,
        meaning="Sets the share of a client's rows on which FedALA learns its weights.",
    ),
    "ala_threshold": Field(
        None, float, POSITIVE, optional=True,
        meaning="Lets FedALA's clients, when they first learn weights, go over their rows until "
        "losses have a standard deviation below this.",
    ),
    "ala_losses": Field(
        None, int, COUNT, optional=True, unit="losses",
        meaning="Takes so many of the last losses for that.",
    ),
    "ala_max_passes": Field(
        None, int, COUNT, optional=True, unit="passes",
        meaning="Ends that after so many passes.",
    ),
    "smoothing": Field(
        None, float, FACTOR, optional=True,
        meaning="Sets the least importance of a center for a client of FedSoft.",
    ),
    "warmup_rounds": Field(
        None, float, Interval(1), optional=True, unit="rounds",
        meaning="Lets HypCluster's clients train models drawn at random for so many rounds.",
    ),
    "chosen": Field(
        None, float, Interval(1), optional=True, unit="clients",
        meaning="Lets so many clients of a cohort train in power-of-choice, those with the largest "
        "losses, and so many send their updates in optimal sampling, on average.",
    ),
    "adjustments": Field(
        None, int, NON_NEGATIVE, optional=True,
        meaning="Approximates the probabilities of optimal sampling by sums, adjusted so often; "
        "unset: the optimal ones.",
    ),
    "loss_rows": Field(
        None, str, ("all", "batch"), optional=True,
        meaning="Says of which rows candidates of power-of-choice tell the loss.",
    ),
    "personal": Field(
        None, str, optional=True,
        meaning="Says which part of the model stays with clients, in algorithms that share the "
        "rest: 'head', 'norm', a path, 'not head', as in fljax.core.personal.",
    ),
    "head_share": Field(
        None, float, Interval(0, 1), optional=True,
        meaning="Trains the client's own part in this share of FedRep's local steps, and then the "
        "shared one.",
    ),
    "finetune": Field(
        None, str, optional=True,
        meaning="Says which part of a client's model is trained further where it is judged, as "
        "'personal' does.",
    ),
    "finetune_epochs": Field(
        None, int, NON_NEGATIVE, optional=True, unit="epochs",
        meaning="Trains a client's model further for so many epochs where it is judged.",
    ),
    "finetune_lr": Field(
        None, float, POSITIVE, optional=True,
        meaning="Sets the learning rate of that training; unset: client_lr.",
    ),
    "finetune_batch_size": Field(
        None, int, NON_NEGATIVE, optional=True, unit="rows",
        meaning="Sets the rows of its batches; 0: all rows of the client at once.",
    ),
    "rates": Field(
        None, str, optional=True,
        meaning="Says which shares of the hidden units the levels of clients train in HeteroFL, "
        "FedRolex and FjORD, such as '1, 0.5, 0.25'.",
    ),
    "shares": Field(
        None, str, optional=True,
        meaning="Says which shares of the clients have each of these levels, by their ratios; "
        "unset: equal ones.",
    ),
    "dynamic": Field(
        None, bool, optional=True, meaning="Draws the levels of clients in each round anew."
    ),
    "level_seed": Field(
        None, int, SEED, optional=True,
        meaning="Seeds the draw of the clients' levels that holds for all rounds.",
    ),
    "scaler": Field(
        None, bool, optional=True,
        meaning="Divides what hidden layers make by the share of their units in training.",
    ),
    "static_norm": Field(
        None, bool, optional=True,
        meaning="Takes HeteroFL's statistics of batch normalization from a second pass over the "
        "cohort's rows, of the whole model.",
    ),
    "trained": Field(
        None, str, optional=True,
        meaning="Says which layers the levels of clients train in layer_freezing, such as "
        "'all; head'.",
    ),
}  # fmt: skip

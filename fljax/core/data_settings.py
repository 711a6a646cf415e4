"""The options of data: each once, for configurations and for Python."""

from __future__ import annotations

from fljax.core.values import (
    COUNT,
    DECAY,
    FILES,
    NON_NEGATIVE,
    POSITIVE,
    SEED,
    Field,
    Interval,
)

PARTITIONS = (
    "iid", "dirichlet", "dirichlet_hsu", "dirichlet_per_client", "shards", "classes_per_client",
    "quantity", "quantity_label", "pachinko", "pfllib_pathological", "pfllib_dirichlet", "natural",
)  # fmt: skip

DATA: dict[str, Field] = {
    "dataset": Field("digits", str, meaning="Names the data set."),
    "dataset_options": Field({}, dict, meaning="Passes further arguments to the data set."),
    "data_dir": Field(
        None, str, optional=True, affects=FILES,
        meaning="Holds the files of the data; unset: $FLJAX_DATA_DIR, else ~/.cache/fljax.",
    ),
    "code_dir": Field(
        None, str, optional=True, affects=FILES,
        meaning="Holds modules of your own, as in dataset = 'my_module:my_function'; unset: the "
        "folder of the config file.",
    ),
    "num_clients": Field(
        None, int, COUNT, optional=True, unit="clients",
        meaning="Divides the data among so many clients; unset: all clients of a natural "
        "partition, else 100. A natural partition takes so many of its own, by data_seed.",
    ),
    "partition": Field(
        None, str, optional=True,
        meaning=f"Names how rows are divided among clients: {', '.join(PARTITIONS)}; unset: "
        "natural clients where the data have them, else iid.",
    ),
    "alpha": Field(
        None, float, POSITIVE, optional=True,
        meaning="Sets the concentration of a Dirichlet partition, small if skewed; unset: 0.5, "
        "PFLlib's and pachinko's 0.1.",
    ),
    "shards_per_client": Field(
        None, int, COUNT, optional=True, unit="shards",
        meaning="Gives each client so many shards of sorted rows; unset: 2.",
    ),
    "classes_per_client": Field(
        None, int, COUNT, optional=True, unit="classes",
        meaning="Gives each client rows of so many classes; unset: 2.",
    ),
    "sigma": Field(
        None, float, Interval(0, 100), optional=True,
        meaning="Sets the standard deviation of the logarithm of clients' sizes; unset: 1.0.",
    ),
    "min_partition_size": Field(
        None, int, NON_NEGATIVE, optional=True, unit="rows",
        meaning="Gives each client so many rows at least; unset: 1.",
    ),
    "rows_per_client": Field(
        None, int, COUNT, optional=True, unit="rows",
        meaning="Gives each client exactly so many rows, a sample of those that the partition "
        "gives it; the others belong to nobody. Unset: all.",
    ),
    "own_test_fraction": Field(
        0.0, float, DECAY,
        meaning="Divides training and test rows alike among clients, then tests each client on "
        "this share of its own rows; 0: the test set of the data.",
    ),
    "feature_skew": Field(
        None, str, optional=True,
        meaning="Gives clients unlike features, by domain: calls such as 'rotations(4)', "
        "'gaussian_noise(0.5)', 'scanners(4)', named in fljax.data.heterogeneity.skew_names; "
        "unset: as they are.",
    ),
    "concept_shift": Field(
        None, str, optional=True,
        meaning="Lets labels mean unlike things to clients, by concept: calls such as "
        "'label_permutations(3)', 'label_swap(0, 1)', named in "
        "fljax.data.heterogeneity.concept_shift; unset: the same to all.",
    ),
    "label_noise": Field(
        None, str, optional=True,
        meaning="Gives training rows wrong labels: a call such as 'symmetric(0.2)', "
        "'pairwise(0.1, most=0.4)', named in fljax.data.heterogeneity.label_noise; unset: none.",
    ),
    "held_out_fraction": Field(
        0.0, float, DECAY,
        meaning="Keeps this share of the clients out of training, to be judged as new ones; 0: "
        "those that the data hold out.",
    ),
    "held_out_folds": Field(
        None, int, Interval(2), optional=True, unit="folds",
        meaning="Deals the clients to so many folds, of which one is kept out of training, "
        "instead of held_out_fraction: cross-validation over clients.",
    ),
    "held_out_fold": Field(
        None, int, NON_NEGATIVE, optional=True,
        meaning="Says which fold is kept out of training, from 0; unset: seed modulo "
        "held_out_folds, so that a study over as many seeds has each fold once.",
    ),
    "val_fraction": Field(
        0.0, float, DECAY, meaning="Splits this share of each client's rows off for validation."
    ),
    "data_checks": Field(
        None, str, optional=True,
        meaning="Looks for faults client by client, and says what is done about them: error, "
        "exclude, drop_rows, warn, named in fljax.data.checks; unset: nothing is looked for.",
    ),
    "root_rows": Field(
        0, int, NON_NEGATIVE, unit="rows",
        meaning="Gives the server so many clean training rows of its own, taken from those of the "
        "clients, for rules that trust updates by its update, such as aggregator = 'fltrust'; 0: "
        "none.",
    ),
    "concept_drift": Field(
        None, str, optional=True,
        meaning="Lets what a client holds change from round to round: what drifts, and when, such "
        "as 'label_swap(0, 1), sudden(50)', 'rotations(4), recurrent(25)', 'label_priors(2, "
        "alpha=0.3), gradual(50, over=40)', 'window(0.2)', named in "
        "fljax.data.heterogeneity.concept_drift; unset: it stays.",
    ),
    "data_seed": Field(
        0, int, SEED,
        meaning="Draws the partition, own test and validation rows, domains, concepts, wrong "
        "labels, held-out clients, root rows, who drifts when.",
    ),
}  # fmt: skip

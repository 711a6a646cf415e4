"""The table of all options: each once, for configurations and for Python.

From it come the keys of a configuration with their defaults, types and ranges, the checks and
defaults of `RoundOptions`, `RunOptions`, algorithms and partitions, what must stay the same when a
run is resumed, `--config_help`, and docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fljax.core.algorithm_settings import ALGORITHM
from fljax.core.data_settings import DATA
from fljax.core.privacy_settings import PRIVACY
from fljax.core.robustness_settings import ROBUSTNESS
from fljax.core.systems_settings import SYSTEMS
from fljax.core.values import (
    COUNT,
    FACTOR,
    FILES,
    FINITE,
    NON_NEGATIVE,
    POSITIVE,
    RECORD,
    SEED,
    SPEED,
    Field,
    Interval,
    checked,
)

MODEL: dict[str, Field] = {
    "model": Field(
        None,
        str,
        optional=True,
        meaning="Names the model; unset: softmax_regression, or none where a task of your own "
        "takes none.",
    ),
    "model_options": Field({}, dict, meaning="Passes further arguments to the model."),
    "init_from": Field(
        None,
        str,
        optional=True,
        meaning="Starts the model from the weights of a safetensors file; see "
        "fljax.models.with_weights. Unset: as the model draws them.",
    ),
    "adapters": Field(
        None,
        str,
        optional=True,
        meaning="Trains and sends small changes of the model's weights alone: a call such as "
        "'lora(rank=8)', see fljax.models.lora; unset: all weights.",
    ),
    "task": Field(
        None,
        str,
        optional=True,
        meaning="Names the task: classification, binary (two classes, judged by AUC), next_token, "
        "regression, ... (docs/tasks.md); "
        "unset: what the data are made for.",
    ),
    "augmentation": Field(
        None,
        str,
        optional=True,
        meaning="Changes training examples at random: calls such as 'crop(4), flip', named in "
        "fljax.tasks.augmentation; unset: as they are.",
    ),
    "fast_layers": Field(
        True,
        bool,
        meaning="Computes the convolutions of NNX modules from matrix products, many times as fast "
        "on CPUs and for clients side by side; results differ in rounding alone.",
    ),
}


# None is the algorithm's own default, which stands in the signature of its function.
def _schedule(side: str) -> dict[str, Field]:
    """Returns the options of one side's learning-rate schedule."""
    return {
        f"{side}_lr_schedule": Field(
            "constant", str, ("constant", "cosine", "exponential", "step"),
            meaning=f"Names what {side}_lr follows over the rounds; in Python a function from the "
            "round to a factor.",
        ),
        f"{side}_lr_decay_rate": Field(
            1.0, float, FACTOR,
            meaning=f"Multiplies {side}_lr by this factor every {side}_lr_decay_rounds.",
        ),
        f"{side}_lr_decay_rounds": Field(
            0, int, NON_NEGATIVE, unit="rounds",
            meaning="Sets the period of the decay; 0: one round (exponential), the rest of the "
            "run (cosine).",
        ),
        f"{side}_lr_warmup_rounds": Field(
            0, int, NON_NEGATIVE, unit="rounds",
            meaning=f"Lets {side}_lr grow linearly for so many rounds before its schedule starts.",
        ),
    }  # fmt: skip


TRAINING: dict[str, Field] = {
    "num_rounds": Field(
        100, int, COUNT, unit="rounds", affects=RECORD, meaning="Trains for so many rounds."
    ),
    "clients_per_round": Field(
        10, int, COUNT, unit="clients",
        meaning="Sets the size of a cohort; for samplers that draw each client independently, its "
        "mean.",
    ),
    "sampler": Field(
        "uniform", str,
        meaning="Names what draws cohorts: uniform, poisson, separated, or one that looks at "
        "sizes, losses, labels or speeds, such as 'by_size' or 'oort' (docs/systems.md).",
    ),
    "separation": Field(
        None, int, COUNT, optional=True, unit="rounds",
        meaning="Lets so many rounds lie between two participations of a client, at least, for "
        "the separated sampler; unset: a whole pass through the population.",
    ),
    "local_epochs": Field(
        None, int, NON_NEGATIVE, optional=True, unit="epochs",
        meaning="Passes so often over a client's rows in a round; unset: once, or what "
        "local_steps says.",
    ),
    "max_local_epochs": Field(
        None, int, COUNT, optional=True, unit="epochs",
        meaning="Gives clients unlike epochs, drawn from local_epochs to so many, the same in "
        "every round, run and trial; unset: all take local_epochs.",
    ),
    "local_steps": Field(
        None, int, NON_NEGATIVE, optional=True, unit="steps",
        meaning="Takes so many local steps in a round, instead of local_epochs.",
    ),
    "batch_size": Field(
        20, int, NON_NEGATIVE, optional=True, unit="rows",
        meaning="Sets the rows of a local batch; 0 or unset: all rows of the client at once.",
    ),
    "remainder": Field(
        "partial", str, ("partial", "drop", "wrap"),
        meaning="Says what becomes of rows that fill no batch: a smaller batch, nothing, or a "
        "batch with rows of the next epoch.",
    ),
    "shuffle": Field(True, bool, meaning="Reads the rows in a new random order in each epoch."),
    "batches": Field(
        "shuffled", str, ("shuffled", "poisson"),
        meaning="Makes local batches of the shuffled rows, or draws each row for each batch by "
        "itself (poisson), batch_size rows on average, which accountants of DP-SGD ask for.",
    ),
    "seed": Field(0, int, SEED, meaning="Seeds all that is random in a run, apart from the data."),
    **_schedule("client"),
    **_schedule("server"),
    "compute_dtype": Field(
        "float32", str, ("float32", "bfloat16"),
        meaning="Sets what clients' forward and backward passes compute in; parameters, updates, "
        "sums and evaluation stay float32.",
    ),
    "matmul_precision": Field(
        None, str, ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32"),
        optional=True, meaning="Sets how matrix products round; unset: as JAX is set.",
    ),
    "fused_updates": Field(
        None, bool, optional=True,
        meaning="Updates dense layers under plain SGD in the kernel of their gradients, on NVIDIA "
        "cards; results differ in rounding alone. Unset: where timings find it faster.",
    ),
}  # fmt: skip

COMPRESSION: dict[str, Field] = {
    "uplink": Field(
        "none", str,
        meaning="Compresses what clients send: calls such as 'top_k(0.01), qsgd(8)', named in "
        "fljax.compression.names.",
    ),
    "uplink_memory": Field(
        "none", str,
        meaning="Lets clients keep what compression lost: error_feedback, ef21, diana, marina.",
    ),
    "uplink_per_leaf": Field(
        False, bool, meaning="Compresses each tensor by itself, not the whole update at once."
    ),
    "downlink": Field("none", str, meaning="Compresses what clients receive, like uplink."),
    "downlink_memory": Field(
        "none", str,
        meaning="Lets the server keep what compression lost.",
    ),
    "downlink_per_leaf": Field(
        False, bool, meaning="Compresses each tensor by itself, not the whole model at once."
    ),
}  # fmt: skip

EVALUATION: dict[str, Field] = {
    "eval_every": Field(
        10, int, NON_NEGATIVE, unit="rounds", affects=RECORD,
        meaning="Evaluates every so many rounds, and after the last one; 0: only then.",
    ),
    "eval_batch_size": Field(
        0, int, NON_NEGATIVE, unit="rows", affects=SPEED,
        meaning="Sets the rows of an evaluation batch; 0: chosen automatically.",
    ),
    "eval_clients": Field(
        0, int, Interval(-1), unit="clients", affects=RECORD,
        meaning="Evaluates so many clients one by one, a seeded sample; 0: none, -1: all.",
    ),
    "eval_personal": Field(
        0, int, Interval(-1), unit="clients", affects=RECORD,
        meaning="Judges so many clients' own models on held-out rows of their own, or the global "
        "one where the algorithm makes no others; 0: none, -1: all.",
    ),
    "target_accuracy": Field(
        None, float, FACTOR, optional=True, affects=RECORD,
        meaning="Reports what it costs to reach this test accuracy (validation, without a test "
        "set).",
    ),
    "target": Field(
        None, float, FINITE, optional=True, affects=RECORD,
        meaning="Is the same of tasks that are not judged by accuracy: a value of their first "
        "metric.",
    ),
    "stop_at_target": Field(
        False, bool, affects=RECORD, meaning="Ends the run once the target is reached."
    ),
    "patience": Field(
        0, int, NON_NEGATIVE, unit="evaluations", affects=RECORD,
        meaning="Ends the run after so many evaluations in a row without a better validation "
        "accuracy (or the task's first metric); 0: never.",
    ),
    "min_delta": Field(
        0.0, float, NON_NEGATIVE, affects=RECORD,
        meaning="Counts as better, for patience, only what gains more than this.",
    ),
    "baselines": Field(
        (), tuple, ("centralized", "local_only"), affects=RECORD,
        meaning="Trains these baselines as well, with as many gradient steps.",
    ),
}  # fmt: skip

RECORDING: dict[str, Field | dict[str, Field]] = {
    "ceremony": Field(
        False, bool, affects=FILES,
        meaning="Holds the ceremony of secure aggregation once before the first round, on the host "
        "and among as many clients as a cohort has; the summary says what it costs. Needs the "
        "extra secagg.",
    ),
    "checkpoint_every": Field(
        0, int, NON_NEGATIVE, unit="rounds", affects=FILES,
        meaning="Saves a checkpoint every so many rounds; 0: only at the end and on Ctrl-C.",
    ),
    "keep_checkpoints": Field(
        2, int, COUNT, unit="checkpoints", affects=FILES, meaning="Keeps the newest checkpoints."
    ),
    "uplink_mbps": Field(
        None, float, POSITIVE, optional=True, unit="Mbit/s",
        meaning="Sets the speed of a client's uplink, for simulated transfer times.",
    ),
    "downlink_mbps": Field(
        None, float, POSITIVE, optional=True, unit="Mbit/s",
        meaning="Sets the speed of a client's downlink, for simulated transfer times.",
    ),
    "wandb": {
        "mode": Field(
            "disabled", str, ("disabled", "offline", "online"), affects=FILES,
            meaning="Sends the records to Weights & Biases.",
        ),
        "project": Field("fljax", str, affects=FILES, meaning="Names the project there."),
        "name": Field(
            None, str, optional=True, affects=FILES,
            meaning="Names the run there; unset: the workdir.",
        ),
        "group": Field(
            None, str, optional=True, affects=FILES, meaning="Names the group of the run there."
        ),
    },
    "tensorboard": Field(
        False, bool, affects=FILES,
        meaning="Writes the records for TensorBoard as well, to tensorboard/ in the workdir. Needs "
        "the extra tensorboard.",
    ),
    "mlflow": {
        "mode": Field(
            "disabled", str, ("disabled", "offline", "online"), affects=FILES,
            meaning="Sends the records to MLflow: to a database that needs no network (offline), "
            "or to a server. Needs the extra mlflow.",
        ),
        "experiment": Field("fljax", str, affects=FILES, meaning="Names the experiment there."),
        "name": Field(
            None, str, optional=True, affects=FILES,
            meaning="Names the run there; unset: the workdir.",
        ),
        "uri": Field(
            None, str, optional=True, affects=FILES,
            meaning="Says where that is; unset: mlflow.db in the workdir (offline), or what the "
            "variable MLFLOW_TRACKING_URI says (online).",
        ),
    },
}  # fmt: skip

EXECUTION: dict[str, Field] = {
    "lanes": Field(
        0, int, NON_NEGATIVE, unit="clients", affects=SPEED,
        meaning="Trains so many clients side by side on a device; 0: chosen automatically.",
    ),
    "devices": Field(0, int, NON_NEGATIVE, affects=SPEED, meaning="Uses so many devices; 0: all."),
    "wave": Field(
        0, int, NON_NEGATIVE, unit="clients", affects=SPEED,
        meaning="Collects the updates of so many clients at once; 0: chosen automatically.",
    ),
    "placement": Field(
        "auto", str, ("auto", "device", "stream"), affects=SPEED,
        meaning="Says whether training data lie on the devices or are sent round by round.",
    ),
    "calibrate": Field(
        None, bool, optional=True, affects=SPEED,
        meaning="Finds lanes, devices and waves by trial where they are 0; unset: from 50 rounds "
        "on, as far as it pays.",
    ),
    "rounds_per_dispatch": Field(
        0, int, NON_NEGATIVE, unit="rounds", affects=SPEED,
        meaning="Runs so many rounds in one go, for algorithms whose clients keep nothing; 0: "
        "several where rounds take milliseconds.",
    ),
}  # fmt: skip

# Options of `simulate` that no configuration has.
CALL: dict[str, Field] = {
    "resume": Field(
        False, bool, affects=FILES, meaning="Goes on from the newest checkpoint of the workdir; "
        "starts where there is none.",
    ),
    "progress": Field(True, bool, affects=FILES, meaning="Shows progress on standard error."),
}  # fmt: skip

# The groups of a configuration's keys.
GROUPS: dict[str, Mapping[str, Field | dict[str, Field]]] = {
    "data": DATA,
    "model": MODEL,
    "algorithm": ALGORITHM,
    "training": TRAINING,
    "compression": COMPRESSION,
    "robustness": ROBUSTNESS,
    "privacy": PRIVACY,
    "systems": SYSTEMS,
    "evaluation": EVALUATION,
    "recording": RECORDING,
    "execution": EXECUTION,
}

# All options with a value of their own, by name.
OPTIONS: dict[str, Field] = {
    name: field
    for group in (*GROUPS.values(), CALL)
    for name, field in group.items()
    if isinstance(field, Field)
}


def affecting(*kinds: str) -> frozenset[str]:
    """Returns the names of the options that affect this: "results", "record", "speed", "files"."""
    return frozenset(
        name
        for group in (*GROUPS.values(), CALL)
        for name, field in group.items()
        for option in (field.values() if isinstance(field, dict) else (field,))
        if option.affects in kinds
    )


def checked_all(values: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Returns values that the fields of the same names allow; see `checked`."""
    return {name: checked(name, value, fields[name]) for name, value in values.items()}

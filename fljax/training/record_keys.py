"""Names the keys that the records of a run will have, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from fljax.core.algorithm import AlgorithmSpec
from fljax.core.clusterings import is_clustered
from fljax.core.metrics import SPREAD, Metric
from fljax.core.task import Task
from fljax.core.transforms import UPDATE, Pipeline, PipelineSpec, as_configured
from fljax.data.dataset import FederatedDataset
from fljax.engine.program.client import HOSTILE
from fljax.training import drift
from fljax.training.client_tables import POPULATIONS, TRAINING, group_keys, groups_of
from fljax.training.privacy_records import EPSILON
from fljax.training.rehearsal import rehearsed
from fljax.training.round_records import agreement_key, key_of, recorded
from fljax.training.row_group_metrics import row_group_keys
from fljax.training.triggered_rows import TRIGGERED

# What `fljax.training.round_records.training_record` writes, whatever the algorithm.
_TRAINING = (
    *(f"train/{name}" for name in ("clients", "local_steps")),
    *(f"train/clients_{fate}" for fate in ("nonfinite", "lost", "without_rows")),
    *(f"comm/{name}_bytes" for name in ("uplink", "downlink", "round_uplink", "round_downlink")),
    *(f"comm/client_uplink_bytes_{name}" for name in ("mean", "min", "max")),
)
_TRANSFERS = ("comm/round_transfer_seconds", "comm/transfer_seconds")


def evaluation_keys(
    dataset: FederatedDataset,
    metrics: Sequence[Metric],
    eval_clients: int = 0,
    eval_personal: int = 0,
    pipeline: Pipeline | PipelineSpec = Pipeline(),  # noqa: B008, it is immutable
) -> list[str]:
    """Returns the keys that evaluations write.

    Args:
      dataset: The federated data.
      metrics: Of the task.
      eval_clients: How many clients are evaluated one by one; 0 none.
      eval_personal: How many clients' own models are; 0 none.
      pipeline: Which may have the trigger of a backdoor.

    Example:
      >>> dataset = data.from_arrays(np.zeros((4, 2)), [0, 0, 1, 1], client_ids=[0, 0, 1, 1])
      >>> import dataclasses
      >>> tested = dataclasses.replace(dataset, test=dataset.train)
      >>> evaluation_keys(tested, [Metric("mse", "lower")])
      ['eval/test/mse']
    """
    splits = [name for name in ("val", "test", "held_out") if getattr(dataset, name) is not None]
    if splits and as_configured(pipeline).trigger is not None:
        splits.append(TRIGGERED)
    keys = [f"eval/{split}/{metric.name}" for split in splits for metric in metrics]
    of_rows = row_group_keys(dataset, metrics)

    def of_clients(population):
        # rows say their groups themselves, those of nobody too
        groups = groups_of(dataset, population).items()
        return group_keys(metrics, {n: of for n, of in groups if n not in dataset.row_groups})

    if eval_clients:
        keys += [f"eval/clients/{name}" for name in SPREAD]
    if eval_personal:
        names = [*(metric.name for metric in metrics), *SPREAD]
        for whose, population in POPULATIONS.items():
            if population == TRAINING or dataset.held_out_train is not None:
                own = [*names, *of_clients(population), *of_rows]
                keys += [f"eval/{whose}/{name}" for name in own]
    keys += [f"eval/{key}" for key in of_rows if splits]
    return keys + [f"eval/{key}" for key in of_clients(TRAINING)]


def training_keys(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    pipeline: Pipeline | PipelineSpec = Pipeline(),  # noqa: B008, it is immutable
    *,
    transfers: bool = False,
    private: bool = False,
    clock: Sequence[str] = (),
) -> list[str]:
    """Returns the keys that rounds write, those of the algorithm's own statistics among them.

    Args:
      dataset: The federated data.
      task: What is trained.
      spec: The algorithm, as configured.
      pipeline: Transforms between clients and server, as configured.
      transfers: Whether transfers are simulated.
      private: Whether a mechanism of privacy accounts for the rounds.
      clock: Keys that the schedule adds.
    """
    rehearsal = rehearsed(dataset, task, spec, pipeline)
    statistics = recorded([of_pass for _, of_pass in rehearsal.kept])
    own = [
        f"train/{name}" for name in statistics if name != "weight" and not name.endswith("/weight")
    ]
    if is_clustered(statistics):
        own += [agreement_key(name) for name in dataset.groups]
    chain = as_configured(pipeline)
    own += ["train/clients_refused"] * chain.agrees
    own += [HOSTILE] * (chain.attackers is not None)
    own += map(key_of, chain.aggregator.reports)
    own += ["train/clients_unselected"] * (len(rehearsal.kept) > 1)
    if UPDATE in rehearsal.contributions[-1]:
        own += drift.KEYS
        own += drift.KEYS_OF_WHOLE_UPDATES * chain.leaves_alone(UPDATE)
    return [*_TRAINING, *own, *clock, *(_TRANSFERS * transfers), *([EPSILON] * private)]

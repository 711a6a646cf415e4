"""Times what privacy adds to a round of others, with and without it by turns.

    OPACUS/bin/python scripts/peer_privacy_cost.py opacus --data=emnist_cnn_10.npz
    PFL/bin/python scripts/peer_privacy_cost.py pfl --data=emnist_cnn_100.npz

Opacus has privacy of examples, and pfl-research privacy of users. Each needs an environment of its
own with NumPy and PyTorch, and nothing of fljax; what the workload file holds:
`fljax/benchmarks/workload_file.py`. A round trains its cohort client after client on one core, from
the parameters of the file. Seconds are those of the processor, whoever else uses it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

CLIP_NORM, NOISE_MULTIPLIER = 1.0, 1.0
# Variants of Opacus: how it finds gradients of examples, or their norms alone ("ghost").
GRADIENTS = ("hooks", "functorch", "ghost")
# Rounds before those that count.
WARM_UP = 1


def main() -> None:
    """Times the variants of a peer, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peer", choices=("opacus", "pfl"))
    parser.add_argument("--data", required=True, help="The workload file.")
    parser.add_argument("--rounds", type=int, default=5, help="Turns that count.")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    with np.load(given.data) as archive:
        held = dict(archive)
    make = opacus_rounds if given.peer == "opacus" else pfl_rounds
    seconds = by_turns(make(held, json.loads(str(held["meta"]))), given.rounds)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in (given.peer, "torch")]
    print(table(seconds), ", ".join(versions), sep="\n\n")


def by_turns(
    variants: Mapping[str, Callable[[int], None]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Times rounds of variants by turns.

    Args:
      variants: {label: function that runs the round of a number}.
      rounds: Turns that count.
      clock: () -> seconds.

    Returns:
      {label: seconds of each round that counts}.
    """
    seconds: dict[str, list[float]] = {label: [] for label in variants}
    for number in range(rounds + WARM_UP):
        for label, run in variants.items():
            begin = clock()
            run(number)
            seconds[label].append(clock() - begin)
    return {label: taken[WARM_UP:] for label, taken in seconds.items()}


def table(seconds: Mapping[str, Sequence[float]]) -> str:
    """Returns a Markdown table of what variants add to the first one, turn by turn."""
    lines = ["| privacy | round, CPU s | added (range) |", "|---|---:|---:|"]
    plain = next(iter(seconds.values()))
    for label, own in seconds.items():
        added = [a / b - 1 for a, b in zip(own, plain, strict=True)]
        spread = f"{statistics.median(added):+.1%} ({min(added):+.1%} to {max(added):+.1%})"
        lines.append(f"| `{label}` | {statistics.median(own):.3f} | {spread} |")
    return "\n".join(lines)


def opacus_rounds(held: Mapping[str, np.ndarray], meta: Mapping[str, Any]):
    """Returns rounds of plain SGD, and of Opacus' DP-SGD by each way to gradients of examples."""
    import torch
    from opacus import PrivacyEngine
    from run_torch_workload import as_images, make_model
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    x, y = as_images(torch.from_numpy(held["x"]), meta), torch.from_numpy(held["y"]).long()
    offsets, batch = held["offsets"], meta["batch"]

    def rounds_of(gradients: str | None) -> Callable[[int], None]:
        model, loss = make_model(meta, held), nn.CrossEntropyLoss()
        weights = list(model.parameters())
        begin = [weight.detach().clone() for weight in weights]
        optimizer = torch.optim.SGD(weights, lr=meta["lr"], foreach=True)
        if gradients is not None:
            # It asks for a loader to learn how large batches are; rows come as in the plain loop.
            rows = TensorDataset(x[: 2 * batch], y[: 2 * batch])
            model, optimizer, *rest = PrivacyEngine().make_private(
                module=model,
                optimizer=optimizer,
                criterion=loss,
                data_loader=DataLoader(rows, batch_size=batch),
                noise_multiplier=NOISE_MULTIPLIER,
                max_grad_norm=CLIP_NORM,
                poisson_sampling=False,
                grad_sample_mode=gradients,
            )
            loss = rest[0] if gradients == "ghost" else loss

        def run(number: int) -> None:
            for client in held["cohorts"][number % len(held["cohorts"])]:
                with torch.no_grad():
                    torch._foreach_copy_(weights, begin)
                start, stop = int(offsets[client]), int(offsets[client + 1])
                for row in range(start, stop, batch):
                    end = min(row + batch, stop)
                    optimizer.zero_grad(set_to_none=True)
                    loss(model(x[row:end]), y[row:end]).backward()
                    optimizer.step()

        return run

    private = {f"DP-SGD, {gradients}": rounds_of(gradients) for gradients in GRADIENTS}
    return {"none": rounds_of(None), **private}


def pfl_rounds(held: Mapping[str, np.ndarray], meta: Mapping[str, Any]):
    """Returns rounds of pfl-research: FedAvg, and with the Gaussian mechanism on the server."""
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByUser
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.common_types import Population
    from pfl.context import CentralContext
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel
    from pfl.privacy.adaptive_clipping import AdaptiveClippingGaussianMechanism
    from pfl.privacy.gaussian_mechanism import GaussianMechanism
    from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism
    from run_torch_workload import as_images, make_model

    x, y = as_images(torch.from_numpy(held["x"]), meta), torch.from_numpy(held["y"]).long()
    offsets, cohorts = held["offsets"], held["cohorts"]
    network, loss = make_model(meta, held), torch.nn.CrossEntropyLoss()
    network.loss, network.metrics = (lambda x, y: loss(network(x), y)), None
    server = torch.optim.SGD(network.parameters(), lr=meta["server_lr"])
    model = PyTorchModel(network, torch.optim.SGD, server)
    begin = model.get_parameters()
    cohort = cohorts.shape[1]
    how = NNTrainHyperParams(
        local_batch_size=meta["batch"],
        local_num_epochs=meta["epochs"],
        local_learning_rate=meta["lr"],
    )
    algorithm = FederatedAveraging()
    # of the noise on a sum of signs, as its authors advise for cohorts of 20 and more
    deviation = max(0.1 * cohort, 2 * NOISE_MULTIPLIER)
    mechanisms = {
        "none": [],
        "Gaussian": [
            CentrallyAppliedPrivacyMechanism(GaussianMechanism(CLIP_NORM, NOISE_MULTIPLIER))
        ],
        "adaptive clipping": [
            AdaptiveClippingGaussianMechanism(
                lambda bound: GaussianMechanism(bound, NOISE_MULTIPLIER), CLIP_NORM, deviation, 0.5
            )
        ],
    }

    def rounds_of(mechanism: list) -> Callable[[int], None]:
        place = iter(())

        def next_client() -> int:
            return int(next(place))

        def dataset_of(client: int) -> Dataset:
            rows = slice(int(offsets[client]), int(offsets[client + 1]))
            return Dataset((x[rows], y[rows]), user_id=client)

        data = FederatedDataset(dataset_of, next_client)
        backend = SimulatedBackend(data, data, [WeightByUser(), *mechanism])

        def run(number: int) -> None:
            nonlocal place
            place = iter(cohorts[number % len(cohorts)])
            model.set_parameters(begin)
            context = CentralContext(
                number, False, cohort, Population.TRAIN, NNAlgorithmParams(1, 1, cohort, None), how,
                seed=number,
            )  # fmt: skip
            update, metrics = backend.gather_results(model, algorithm, central_context=context)
            algorithm.process_aggregated_statistics(context, metrics, model, update)

        return run

    return {label: rounds_of(mechanism) for label, mechanism in mechanisms.items()}


if __name__ == "__main__":
    main()

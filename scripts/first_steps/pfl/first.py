"""Trains on handwritten digits by pfl-research."""

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def tensors(x, y):
    return [torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64)]


x, y = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(x / 16, y, test_size=0.2, random_state=0)
parts = np.array_split(np.arange(len(train_y)), 100)
rows = {client: tensors(train_x[part], train_y[part]) for client, part in enumerate(parts)}


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, 10),
        )

    def forward(self, x):
        return self.layers(x)

    def loss(self, x, y, eval=False):
        self.eval() if eval else self.train()
        return torch.nn.functional.cross_entropy(self(x), y)

    @torch.no_grad()
    def metrics(self, x, y, eval=True):
        self.eval() if eval else self.train()
        right = (self(x).argmax(1) == y).sum().item()
        return {"accuracy": Weighted(right, len(y))}


network = Network()
model = PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), 1.0))
clients = FederatedDataset(
    lambda client: Dataset(rows[client], user_id=str(client)),
    get_user_sampler("random", list(rows)),
)
FederatedAveraging().run(
    algorithm_params=NNAlgorithmParams(
        central_num_iterations=50,
        evaluation_frequency=1000,
        train_cohort_size=10,
        val_cohort_size=0,
    ),
    backend=SimulatedBackend(
        training_data=clients, val_data=clients, postprocessors=[WeightByDatapoints()]
    ),
    model=model,
    model_train_params=NNTrainHyperParams(
        local_batch_size=10, local_num_epochs=2, local_learning_rate=0.1
    ),
    model_eval_params=NNEvalHyperParams(local_batch_size=None),
)
found = network.metrics(*tensors(test_x, test_y))["accuracy"]
print(f"accuracy {found.overall_value:.4f}")

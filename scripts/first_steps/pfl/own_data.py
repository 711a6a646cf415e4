"""Trains on rows of a CSV file, whose first column says whose they are, by pfl-research."""

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


def tensors(x, y):
    return [torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64)]


def read(path):
    table = np.genfromtxt(path, delimiter=",", skip_header=1, dtype=np.float32)
    return table[:, 0].astype(int), table[:, 1:-1], table[:, -1].astype(np.int32)


owner, train_x, train_y = read("rows.csv")
_, test_x, test_y = read("test.csv")
rows = {
    client: tensors(train_x[owner == client], train_y[owner == client])
    for client in np.unique(owner).tolist()
}


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


# workers begin at one model, and choose the same clients, if their seeds are the same
torch.manual_seed(0)
np.random.seed(0)
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

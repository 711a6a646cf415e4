"""Trains on handwritten digits by Flower."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


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


x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.2, random_state=0)
rows = list(zip(train_x.tensor_split(100), train_y.tensor_split(100), strict=True))
client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    x, y = rows[int(context.node_config["partition-id"])]
    network = Network()
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        for batch in torch.randperm(len(y)).split(10):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
    content = {
        "arrays": ArrayRecord(network.state_dict()),
        "metrics": MetricRecord({"num-examples": len(y)}),
    }
    return Message(content=RecordDict(content), reply_to=message)


server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAvg(fraction_train=0.1, fraction_evaluate=0.0, min_available_nodes=100)
    initial = ArrayRecord(Network().state_dict())
    found = strategy.start(grid=grid, initial_arrays=initial, num_rounds=50)
    network = Network()
    network.load_state_dict(found.arrays.to_torch_state_dict())
    accuracy = (network(test_x).argmax(1) == test_y).float().mean()
    print(f"accuracy {accuracy:.4f}")


if __name__ == "__main__":
    run_simulation(server_app=server_app, client_app=client_app, num_supernodes=100)

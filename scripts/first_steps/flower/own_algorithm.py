"""Trains by an algorithm of one's own, whose clients stay near the server's model, by Flower."""

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation


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


def read(path):
    table = np.genfromtxt(path, delimiter=",", skip_header=1, dtype=np.float32)
    return table[:, 0].astype(int), torch.tensor(table[:, 1:-1]), torch.tensor(table[:, -1]).long()


owner, train_x, train_y = read("rows.csv")
_, test_x, test_y = read("test.csv")
rows = [(train_x[owner == client], train_y[owner == client]) for client in np.unique(owner)]
client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    x, y = rows[int(context.node_config["partition-id"])]
    network = Network()
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    start = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        for batch in torch.randperm(len(y)).split(10):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(x[batch]), y[batch])
            moved = zip(network.parameters(), start, strict=True)
            pull = sum(((new - old) ** 2).sum() for new, old in moved)
            (loss + 0.1 / 2 * pull).backward()
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

"""Runs a workload file with PyTorch and prints one JSON line: a peer in a comparison.

python scripts/run_torch_workload.py --data=w2c100.npz --workload=w2c100 --rounds=5 [--vmap]

Plain PyTorch, tuned: data and models on the device, products in TF32, no synchronization within a
round. By default one model trains client after client, with `torch.optim.SGD(foreach=True)`. With
--vmap all clients of a cohort train side by side, by `torch.func.vmap` of `torch.func.grad`; what
the smaller ones lack of the largest one's batches is masked. It needs NumPy and PyTorch, nothing of
fljax. What the file holds: `fljax/benchmarks/workload_file.py`.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--workload", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vmap", action="store_true")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    begin = time.perf_counter()
    with np.load(given.data) as archive:
        held = dict(archive)
    meta = json.loads(str(held["meta"]))
    if meta["name"] != given.workload:
        sys.exit(f"{given.data} holds the workload {meta['name']!r}, not {given.workload!r}.")
    model = make_model(meta, held).to(device)
    server = [weight.detach().clone() for weight in model.parameters()]
    x, y = (torch.from_numpy(held[name]).to(device) for name in ("x", "y"))
    x, y = as_images(x, meta), y.long()
    make = cohort_side_by_side if given.vmap else client_after_client
    train = make(model, x, y, held["offsets"], meta)
    seconds, examples = [], []
    for number in range(given.rounds + 1):
        cohort = held["cohorts"][number % len(held["cohorts"])]
        rows = np.diff(held["offsets"])[cohort]
        weights = torch.as_tensor(rows / rows.sum(), dtype=torch.float32, device=device)
        change = train(server, cohort, weights)
        torch._foreach_add_(server, change, alpha=meta["server_lr"])
        if device == "cuda":
            torch.cuda.synchronize()
        end = time.perf_counter()
        seconds.append(end - begin)
        examples.append(int(rows.sum()) * meta["epochs"] / seconds[-1])
        begin = end
    first, *timed = seconds
    line = {
        "peer": f"PyTorch {torch.__version__}{', vmap' if given.vmap else ''}",
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "median_s_per_round": statistics.median(timed),
        "min": min(timed),
        "max": max(timed),
        "times": timed,
        "first_round_s": first,
        "examples_per_s": statistics.median(examples[1:]),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "final_train_loss": final_loss(model, server, held, meta, device),
    }
    print(json.dumps(line))


def make_model(meta, held):
    """Returns the model of a workload file with its initial parameters."""
    params = {name[2:]: torch.from_numpy(value) for name, value in held.items() if name[:2] == "p/"}
    layers = []
    if meta["model"] == "cnn":
        layers += [_convolution(params, "conv1"), nn.ReLU(), _convolution(params, "conv2")]
        layers += [nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25), _FlattenLikeFlax()]
        layers += [_dense(params, "fc1"), nn.ReLU(), nn.Dropout(0.5), _dense(params, "fc2")]
        return nn.Sequential(*layers)
    count = sum(name.endswith("_w") for name in params)
    layers.append(nn.Flatten())
    for number in range(1, count + 1):
        layers += [_dense(params, f"fc{number}"), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class _FlattenLikeFlax(nn.Module):
    """Flattens images by height, width, channels, as the parameters of the file expect it."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


def _convolution(params, name):
    weight = params[f"{name}_w"].permute(3, 2, 0, 1).contiguous()
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(params[f"{name}_b"])
    return layer


def _dense(params, name):
    weight = params[f"{name}_w"].T.contiguous()
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(params[f"{name}_b"])
    return layer


def as_images(x, meta):
    """Returns inputs as the model takes them: channels first where it has convolutions."""
    if meta["model"] != "cnn":
        return x.float()
    return x.float().reshape(-1, *meta["shape"]).permute(0, 3, 1, 2).contiguous()


def client_after_client(model, x, y, offsets, meta):
    """Returns what trains a cohort on one model that is used again."""
    weights = list(model.parameters())
    optimizer = torch.optim.SGD(weights, lr=meta["lr"], foreach=True)
    loss = nn.CrossEntropyLoss()

    def train(server, cohort, shares):
        change = [torch.zeros_like(weight) for weight in server]
        for client, share in zip(cohort, shares, strict=True):
            with torch.no_grad():
                torch._foreach_copy_(weights, server)
            start, stop = int(offsets[client]), int(offsets[client + 1])
            for _ in range(meta["epochs"]):
                for begin in range(start, stop, meta["batch"]):
                    end = min(begin + meta["batch"], stop)
                    optimizer.zero_grad(set_to_none=True)
                    loss(model(x[begin:end]), y[begin:end]).backward()
                    optimizer.step()
            with torch.no_grad():
                moved = torch._foreach_sub(weights, server)
                torch._foreach_mul_(moved, share)
                torch._foreach_add_(change, moved)
        return change

    return train


def cohort_side_by_side(model, x, y, offsets, meta):
    """Returns what trains a cohort with an axis of clients on every array."""
    names = [name for name, _ in model.named_parameters()]
    batch = meta["batch"]

    def loss(weights, inputs, targets, mask):
        logits = functional_call(model, dict(zip(names, weights, strict=True)), (inputs,))
        each = nn.functional.cross_entropy(logits, targets, reduction="none")
        return (each * mask).sum() / mask.sum().clamp(min=1)

    gradient = vmap(grad(loss), randomness="different")

    def train(server, cohort, shares):
        starts, sizes = offsets[cohort], np.diff(offsets)[cohort]
        weights = [weight.expand(len(cohort), *weight.shape).clone() for weight in server]
        steps = math.ceil(int(sizes.max()) / batch)
        place = np.arange(steps * batch)
        real = place < sizes[:, None]
        rows = np.where(real, starts[:, None] + place, starts[:, None])
        rows, real = (torch.as_tensor(part, device=x.device) for part in (rows, real))
        for _ in range(meta["epochs"]):
            for begin in range(0, steps * batch, batch):
                taken, mask = rows[:, begin : begin + batch], real[:, begin : begin + batch]
                moved = gradient(tuple(weights), x[taken], y[taken], mask.float())
                torch._foreach_add_(weights, list(moved), alpha=-meta["lr"])
        moved = torch._foreach_sub(weights, [weight[None] for weight in server])
        return [torch.tensordot(shares, change, 1) for change in moved]

    return train


@torch.no_grad()
def final_loss(model, server, held, meta, device):
    """Returns the mean loss on the file's evaluation examples, without dropout."""
    for weight, value in zip(model.parameters(), server, strict=True):
        weight.copy_(value)
    model.eval()
    x = as_images(torch.from_numpy(held["eval_x"]).to(device), meta)
    y = torch.from_numpy(held["eval_y"]).to(device).long()
    losses = [
        nn.functional.cross_entropy(
            model(x[begin : begin + 500]), y[begin : begin + 500], reduction="sum"
        )
        for begin in range(0, len(x), 500)
    ]
    return float(sum(losses)) / len(x)


if __name__ == "__main__":
    main()

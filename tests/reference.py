"""Independent float64 NumPy loops over clients, one for each algorithm, for softmax regression.

Nothing here comes from the library: no vectorization, no JAX, one client and one batch at a time.
Shuffling is off, so a batch is a slice of the client's rows in stored order.
"""

import numpy as np


def loss_and_gradient(params, x, y):
    """Returns the summed loss and the gradient of the mean loss of a batch."""
    logits = x @ params["w"] + params["b"]
    logits = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(probabilities[rows, y]).sum()
    probabilities[rows, y] -= 1
    probabilities /= len(y)
    return loss, {"w": x.T @ probabilities, "b": probabilities.sum(axis=0)}


def batches(x, y, batch_size, epochs):
    for _ in range(epochs):
        for start in range(0, len(y), batch_size):
            yield x[start : start + batch_size], y[start : start + batch_size]


def combine(function, *trees):
    return {name: function(*(tree[name] for tree in trees)) for name in trees[0]}


def zeros(params):
    return combine(np.zeros_like, params)


def local_sgd(params, x, y, lr, batch_size, epochs, momentum=0.0, mu=0.0, shift=None):
    """Returns (trained parameters, summed loss, rows seen, steps)."""
    start, velocity = params, zeros(params)
    total, rows, steps = 0.0, 0, 0
    for batch_x, batch_y in batches(x, y, batch_size, epochs):
        loss, grad = loss_and_gradient(params, batch_x, batch_y)
        grad = combine(lambda g, p, s: g + mu * (p - s), grad, params, start)
        if shift is not None:
            grad = combine(np.add, grad, shift)
        velocity = combine(lambda v, g: momentum * v + g, velocity, grad)
        params = combine(lambda p, v: p - lr * v, params, velocity)
        total, rows, steps = total + loss, rows + len(batch_y), steps + 1
    return params, total, rows, steps


class Server:
    """Server optimizers as in Algorithm 2 of Reddi et al. 2021, and SGD with momentum."""

    def __init__(self, params, kind="sgd", lr=1.0, beta1=0.9, beta2=0.99, tau=1e-3, momentum=0.9,
                 bias_correction=False):  # fmt: skip
        self.params, self.kind, self.lr = params, kind, lr
        self.beta1, self.beta2, self.tau, self.momentum = beta1, beta2, tau, momentum
        self.corrected, self.count = bias_correction, 0
        self.m = zeros(params)
        start = 0.0 if bias_correction else tau**2
        self.v = combine(lambda p: np.full_like(p, start), params)

    def step(self, change):
        self.count += 1
        if self.kind == "sgd":
            self.params = combine(lambda p, d: p + self.lr * d, self.params, change)
            return
        if self.kind == "momentum":
            self.m = combine(lambda m, d: self.momentum * m + d, self.m, change)
            self.params = combine(lambda p, m: p + self.lr * m, self.params, self.m)
            return
        b1, b2 = self.beta1, self.beta2
        self.m = combine(lambda m, d: b1 * m + (1 - b1) * d, self.m, change)
        rule = {
            "adagrad": lambda v, d: v + d**2,
            "yogi": lambda v, d: v - (1 - b2) * d**2 * np.sign(v - d**2),
            "adam": lambda v, d: b2 * v + (1 - b2) * d**2,
        }[self.kind]
        self.v = combine(rule, self.v, change)
        m, v = self.m, self.v
        if self.corrected:
            m = combine(lambda m: m / (1 - b1**self.count), m)
            if self.kind != "adagrad":
                v = combine(lambda v: v / (1 - b2**self.count), v)
        self.params = combine(
            lambda p, m, v: p + self.lr * m / (np.sqrt(v) + self.tau), self.params, m, v
        )


def weighted_mean(changes, weights):
    total = sum(weights)
    return combine(
        lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)) / total,
        *changes,
    )


def of(value, client):
    """Returns a client's own number where the value is a list of them."""
    return value[client] if np.ndim(value) else value


def weight_of(weighting, client, rows):
    if isinstance(weighting, str):
        return rows if weighting == "examples" else 1
    return weighting[client]


def federated(params, clients, cohorts, *, lr, batch_size, epochs=1, weighting="examples",
              momentum=0.0, mu=0.0, server=None):  # fmt: skip
    """FedAvg, FedOpt and FedProx; `clients` is a list of (x, y); returns (params, train losses).

    `lr`, `batch_size`, `epochs` may be lists of each client's own, `weighting` its own weights.
    """
    server = server or Server(params)
    losses = []
    for cohort in cohorts:
        changes, weights, total, rows = [], [], 0.0, 0
        for client in cohort:
            x, y = clients[client]
            if len(y) == 0:
                continue
            trained, loss, seen, _ = local_sgd(
                server.params, x, y, of(lr, client), of(batch_size, client), of(epochs, client),
                momentum, mu,
            )  # fmt: skip
            changes.append(combine(np.subtract, trained, server.params))
            weights.append(weight_of(weighting, client, len(y)))
            total, rows = total + loss, rows + seen
        if any(weights):
            server.step(weighted_mean(changes, weights))
        if changes:
            losses.append(total / rows)
    return server.params, losses


def fedsgd(params, clients, cohorts, *, server_lr, weighting="examples"):
    for cohort in cohorts:
        present = [client for client in cohort if len(clients[client][1])]
        grads = [loss_and_gradient(params, *clients[client])[1] for client in present]
        weights = [weight_of(weighting, client, len(clients[client][1])) for client in present]
        mean = weighted_mean(grads, weights)
        params = combine(lambda p, g: p - server_lr * g, params, mean)
    return params


def scaffold(params, clients, cohorts, *, lr, server_lr, batch_size, epochs=1, weighting="uniform",
             transmit=lambda *message: message):  # fmt: skip
    """Algorithm 1 of Karimireddy et al. 2020 with option II; returns (params, controls, c).

    transmit: (change of the model, change of the control) -> what arrives of the two.
    """
    control, participants = zeros(params), sum(len(y) > 0 for _, y in clients)
    own = [zeros(params) for _ in clients]
    for cohort in cohorts:
        changes, control_changes, weights = [], [], []
        for client in cohort:
            x, y = clients[client]
            if len(y) == 0:
                continue
            shift, rate = combine(np.subtract, control, own[client]), of(lr, client)
            trained, _, _, steps = local_sgd(
                params, x, y, rate, of(batch_size, client), of(epochs, client), shift=shift
            )
            new = combine(
                lambda ci, c, start, end, path=steps * rate: ci - c + (start - end) / path,
                own[client], control, params, trained,
            )  # fmt: skip
            change, control_change = transmit(
                combine(np.subtract, trained, params), combine(np.subtract, new, own[client])
            )
            changes.append(change)
            control_changes.append(control_change)
            own[client] = new
            weights.append(weight_of(weighting, client, len(y)))
        mean = weighted_mean(changes, weights)
        params = combine(lambda p, d: p + server_lr * d, params, mean)
        for change in control_changes:
            control = combine(lambda c, d: c + d / participants, control, change)
    return params, own, control


def mean_in_type(leaves, weights, old):
    """Returns the weighted mean of arrays in the type of `old`, computed in float64.

    Integers and truth values are rounded to the nearest, ties to even.
    """
    total = sum(w * np.asarray(leaf, np.float64) for w, leaf in zip(weights, leaves, strict=True))
    mean = total / sum(weights)
    if old.dtype.kind in "iub":
        mean = np.rint(mean)
    return mean.astype(old.dtype)


def local_only(params, clients, cohorts, *, lr, batch_size, epochs=1, momentum=0.0):
    """Every client goes on with its own model and velocity; returns the models."""
    times = [sum(client in cohort for cohort in cohorts) for client in range(len(clients))]
    return [
        local_sgd(params, x, y, lr, batch_size, epochs * number, momentum)[0]
        for (x, y), number in zip(clients, times, strict=True)
    ]

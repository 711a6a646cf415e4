"""Independent float64 NumPy loops over clients of algorithms against drift, for softmax regression.

As in `reference`: no vectorization, no JAX, one client and one batch at a time.
"""

import numpy as np
from reference import batches, combine, local_sgd, loss_and_gradient, of, weighted_mean, zeros


def square(tree):
    return sum((leaf**2).sum() for leaf in tree.values())


def norm(tree):
    return np.sqrt(square(tree))


def present(clients, cohort):
    return [client for client in cohort if len(clients[client][1])]


def stepped(params, clients, client, rate, direction, *, batch_size, epochs):
    """Goes on along direction(params, x, y) of each batch; returns (parameters, steps)."""
    steps = 0
    for x, y in batches(*clients[client], of(batch_size, client), of(epochs, client)):
        params = combine(lambda p, d: p - rate * d, params, direction(params, x, y))
        steps += 1
    return params, steps


def gradient(params, x, y):
    return loss_and_gradient(params, x, y)[1]


def weights_of(weighting, clients, cohort):
    if not isinstance(weighting, str):
        return [weighting[client] for client in cohort]
    return [len(clients[client][1]) if weighting == "examples" else 1 for client in cohort]


def fedexp(params, clients, cohorts, *, epsilon, lr, batch_size, epochs, weighting="examples"):
    """Returns (the mean of the last two iterates, the rates of the rounds)."""
    before, rates = params, []
    for cohort in cohorts:
        cohort = present(clients, cohort)
        if not cohort:
            continue
        ends = [
            local_sgd(params, *clients[c], *(of(n, c) for n in (lr, batch_size, epochs)))[0]
            for c in cohort
        ]
        updates = [combine(np.subtract, end, params) for end in ends]
        weights = weights_of(weighting, clients, cohort)
        mean = weighted_mean(updates, weights)
        squares = np.average([square(update) for update in updates], weights=weights)
        rates.append(max(1.0, squares / (2 * (square(mean) + epsilon))))
        before, params = params, combine(lambda p, d: p + rates[-1] * d, params, mean)
    return combine(lambda a, b: (a + b) / 2, before, params), rates


def averaged(params, clients, cohorts, train, *, server_lr=1.0, weighting="examples"):
    """FedAvg of what train(params, client) returns."""
    for cohort in cohorts:
        cohort = present(clients, cohort)
        if cohort:
            updates = [combine(np.subtract, train(params, c), params) for c in cohort]
            mean = weighted_mean(updates, weights_of(weighting, clients, cohort))
            params = combine(lambda p, d: p + server_lr * d, params, mean)
    return params


def gradient_uphill(params, x, y, rho):
    here = gradient(params, x, y)
    return gradient(combine(lambda p, g: p + rho * g / norm(here), params, here), x, y)


def fedsam(params, clients, cohorts, *, rho, lr, server_lr=1.0, weighting="examples", **work):
    def uphill(params, x, y):
        return gradient_uphill(params, x, y, rho)

    def train(params, c):
        return stepped(params, clients, c, of(lr, c), uphill, **work)[0]

    return averaged(params, clients, cohorts, train, server_lr=server_lr, weighting=weighting)


def mofedsam(params, clients, cohorts, *, rho, beta, lr, server_lr=1.0, weighting="uniform",
             **work):  # fmt: skip
    """Returns (parameters, the direction of the last round in which somebody came)."""
    momentum = zeros(params)

    def direction(params, x, y):
        uphill = gradient_uphill(params, x, y, rho)
        return combine(lambda g, m: beta * g + (1 - beta) * m, uphill, momentum)

    for cohort in cohorts:
        cohort = present(clients, cohort)
        if cohort:
            found = [stepped(params, clients, c, of(lr, c), direction, **work) for c in cohort]
            weights = weights_of(weighting, clients, cohort)
            mean = weighted_mean([combine(np.subtract, end, params) for end, _ in found], weights)
            paths = [of(lr, c) * steps for c, (_, steps) in zip(cohort, found, strict=True)]
            path = np.average(paths, weights=weights)
            momentum = combine(lambda d, path=path: -d / path, mean)
            params = combine(lambda p, d: p + server_lr * d, params, mean)
    return params, momentum


def fedspeed(params, clients, cohorts, *, mu, rho, share, lr, server_lr=1.0, weighting="uniform",
             **work):  # fmt: skip
    """Returns (parameters, corrections of the clients)."""
    own = [zeros(params) for _ in clients]

    def train(start, c):
        def direction(params, x, y):
            here = gradient(params, x, y)
            there = gradient(combine(lambda p, g: p + rho * g, params, here), x, y)
            mixed = combine(lambda a, b: (1 - share) * a + share * b, here, there)
            return combine(lambda g, m, p, s: g - m + mu * (p - s), mixed, own[c], params, start)

        end, _ = stepped(start, clients, c, of(lr, c), direction, **work)
        own[c] = combine(lambda m, p, s: m - mu * (p - s), own[c], end, start)
        return combine(lambda p, m: p - m / mu, end, own[c])

    end = averaged(params, clients, cohorts, train, server_lr=server_lr, weighting=weighting)
    return end, own


def fedadmm(params, clients, cohorts, *, mu, lr, server_lr=1.0, weighting="uniform", **work):
    """Returns (parameters, models of the clients, their dual variables)."""
    models = [params for _ in clients]
    duals = [zeros(params) for _ in clients]
    augmented = lambda c: combine(lambda w, y: w + y / mu, models[c], duals[c])  # noqa: E731

    def train(start, c):
        def direction(params, x, y):
            return combine(
                lambda g, d, p, s: g + d + mu * (p - s),
                gradient(params, x, y), duals[c], params, start,
            )  # fmt: skip

        old = augmented(c)
        models[c], _ = stepped(start, clients, c, of(lr, c), direction, **work)
        duals[c] = combine(lambda d, p, s: d + mu * (p - s), duals[c], models[c], start)
        sent = combine(np.subtract, augmented(c), old)
        return combine(np.add, start, sent)

    end = averaged(params, clients, cohorts, train, server_lr=server_lr, weighting=weighting)
    return end, models, duals


def feddc(params, clients, cohorts, *, mu, lr, weighting="uniform", **work):
    """Returns (parameters, drifts of the clients, their control variates)."""
    control = zeros(params)
    drifts, controls = ([zeros(params) for _ in clients] for _ in range(2))
    participants = sum(len(y) > 0 for _, y in clients)

    def train(start, control, c):
        def direction(params, x, y):
            return combine(
                lambda g, m, s, h, p, x: g - m + s + mu * (p + h - x),
                gradient(params, x, y), controls[c], control, drifts[c], params, start,
            )  # fmt: skip

        end, steps = stepped(start, clients, c, of(lr, c), direction, **work)
        drifts[c] = combine(lambda h, p, x: h + p - x, drifts[c], end, start)
        path, old = steps * of(lr, c), controls[c]
        controls[c] = combine(lambda m, s, x, p: m - s + (x - p) / path, old, control, start, end)
        return end, combine(np.subtract, controls[c], old)

    for cohort in cohorts:
        cohort = present(clients, cohort)
        if cohort:
            found = [train(params, control, c) for c in cohort]
            mean = weighted_mean([end for end, _ in found], weights_of(weighting, clients, cohort))
            # the mean over all clients that can take part, whoever came
            drift = combine(lambda *leaves: sum(leaves) / participants, *drifts)
            params = combine(np.add, mean, drift)
            changes = [change for _, change in found]
            control = combine(lambda s, *new: s + sum(new) / participants, control, *changes)
    return params, drifts, controls


def delta_sgd(params, clients, cohorts, *, gamma, growth, lr, server_lr=1.0,
              weighting="examples", batch_size, epochs):  # fmt: skip
    def train(start, c):
        now, before, rate, theta = start, start, of(lr, c), 1.0
        for step, (x, y) in enumerate(batches(*clients[c], of(batch_size, c), of(epochs, c))):
            here = gradient(now, x, y)
            if step:
                way = norm(combine(np.subtract, now, before))
                bend = norm(combine(np.subtract, here, gradient(before, x, y)))
                new = min(gamma * way / (2 * bend), np.sqrt(1 + growth * theta) * rate)
                rate, theta = new, new / rate
            before, now = now, combine(lambda p, g, r=rate: p - r * g, now, here)
        return now

    return averaged(params, clients, cohorts, train, server_lr=server_lr, weighting=weighting)


def hidden(params, x):
    """Returns what the last layer of a network with one hidden layer reads."""
    return np.tanh(x @ params["w1"] + params["b1"])


def moon_gradient(params, x, y, near, far, mu, temperature):
    """Returns (summed loss without the contrast, gradient with it) of that network."""
    z = hidden(params, x)
    loss, head = loss_and_gradient({"w": params["w2"], "b": params["b2"]}, z, y)
    logits = z @ params["w2"] + params["b2"]
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    chances[np.arange(len(y)), y] -= 1
    slope = chances @ params["w2"].T

    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    cosines, slopes = [], []
    for model in (near, far):
        other = hidden(model, x)
        other = other / np.linalg.norm(other, axis=1, keepdims=True)
        cosines.append((unit * other).sum(1))
        away = other - cosines[-1][:, None] * unit
        slopes.append(away / np.linalg.norm(z, axis=1, keepdims=True))
    share = 1 / (1 + np.exp((cosines[0] - cosines[1]) / temperature))
    slope = slope + mu * share[:, None] / temperature * (slopes[1] - slopes[0])

    slope = slope * (1 - z**2) / len(y)
    return loss, {"w1": x.T @ slope, "b1": slope.sum(0), "w2": head["w"], "b2": head["b"]}


def moon(params, clients, cohorts, *, mu, temperature, lr, server_lr=1.0, weighting="examples",
         **work):  # fmt: skip
    """Returns (parameters, the models that clients ended with)."""
    ended = [params for _ in clients]

    def train(start, c):
        before = ended[c]

        def direction(params, x, y):
            return moon_gradient(params, x, y, start, before, mu, temperature)[1]

        ended[c], _ = stepped(start, clients, c, of(lr, c), direction, **work)
        return ended[c]

    end = averaged(params, clients, cohorts, train, server_lr=server_lr, weighting=weighting)
    return end, ended

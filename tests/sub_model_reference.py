"""Sub-models in float64, one client at a time, each of them a narrower model of its own.

Parameters are dicts {name: array}; `layers` says which layer of hidden units each axis of an array
is, or None. A client's part is cut out by indices, trained as it is, and put back.
"""

import numpy as np

MLP_LAYERS = {
    "w0": (None, 0), "b0": (0,), "w1": (0, 1), "b1": (1,), "w2": (1, None), "b2": (None,),
}  # fmt: skip


def cut(tree, layers, held):
    """Returns the part with the units `held[layer]`, index arrays."""
    return {name: leaf[_places(leaf, layers[name], held)] for name, leaf in tree.items()}


def _places(leaf, axes, held):
    every = [
        np.arange(size) if layer is None else held[layer]
        for size, layer in zip(leaf.shape, axes, strict=True)
    ]
    return np.ix_(*every)


def mlp_gradient(params, x, y, scale):
    """Returns the gradient of the mean loss of a perceptron whose hidden layers are scaled."""
    z0 = scale * (x @ params["w0"] + params["b0"])
    h0 = np.maximum(z0, 0)
    z1 = scale * (h0 @ params["w1"] + params["b1"])
    h1 = np.maximum(z1, 0)
    logits = h1 @ params["w2"] + params["b2"]
    delta = np.exp(logits - logits.max(1, keepdims=True))
    delta /= delta.sum(1, keepdims=True)
    delta[np.arange(len(y)), y] -= 1
    delta /= len(y)
    grads = {"w2": h1.T @ delta, "b2": delta.sum(0)}
    delta = (delta @ params["w2"].T) * (z1 > 0) * scale
    grads |= {"w1": h0.T @ delta, "b1": delta.sum(0)}
    delta = (delta @ params["w1"].T) * (z0 > 0) * scale
    return grads | {"w0": x.T @ delta, "b0": delta.sum(0)}


def federated(params, clients, cohorts, *, layers, held, gradient, lr, batch_size, epochs=1,
              weighting="examples", scale=lambda client: 1.0, in_step=None,
              state=None):  # fmt: skip
    """Returns (parameters, state) after all rounds.

    Args:
      params: Of the whole model.
      clients, cohorts: [(x, y)], and lists of clients, one for each round.
      layers: {name: layer of each axis}, of parameters and state.
      held: (client, round) -> [index array of each layer].
      gradient: (part, x, y, scale) -> its gradient; with `state`, (part, state, x, y, scale) ->
        (gradient, state').
      scale: (client) -> what hidden layers are multiplied by.
      in_step: (client, round, step) -> indices of what trains in this step, None for all.
      state: Statistics of the whole model.
    """
    params = {name: leaf.copy() for name, leaf in params.items()}
    state = {name: leaf.copy() for name, leaf in (state or {}).items()}
    for round, cohort in enumerate(cohorts):
        whole = {**params, **state}
        total = {name: np.zeros_like(leaf) for name, leaf in whole.items()}
        weight = {name: np.zeros_like(leaf) for name, leaf in whole.items()}
        for client in cohort:
            x, y = clients[client]
            if not len(y):
                continue
            part = {name: leaf.copy() for name, leaf in whole.items()}
            step = 0
            for _ in range(epochs):
                for start in range(0, len(y), batch_size):
                    rows = slice(start, start + batch_size)
                    now = in_step(client, round, step) if in_step else held(client, round)
                    _train(part, layers, now, gradient, x[rows], y[rows], scale(client), lr, state)
                    step += 1
            n = len(y) if weighting == "examples" else 1
            for name, leaf in part.items():
                places = _places(leaf, layers[name], held(client, round))
                total[name][places] += n * leaf[places]
                weight[name][places] += n
        for name, leaf in whole.items():
            there = weight[name] > 0
            leaf[there] = total[name][there] / weight[name][there]
        params = {name: whole[name] for name in params}
        state = {name: whole[name] for name in state}
    return params, state


def _train(part, layers, held, gradient, x, y, scale, lr, state):
    """Takes one step of a part, in place."""
    small = cut(part, layers, held)
    own = {name: leaf for name, leaf in small.items() if name not in state}
    if state:
        grads, after = gradient(own, {name: small[name] for name in state}, x, y, scale)
        for name, leaf in after.items():
            part[name][_places(part[name], layers[name], held)] = leaf
    else:
        grads = gradient(own, x, y, scale)
    for name, grad in grads.items():
        part[name][_places(part[name], layers[name], held)] -= lr * grad

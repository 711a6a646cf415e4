"""A battery of tiny and odd federations, compiled as users' runs are.

Compilers go wrong where shapes are small: a matrix of one column, a batch of one row, a lane alone.
Each case here is a few rounds in the default compilation, held against an independent float64 loop
where `reference.py` has one, else against the same rounds laid out and compiled in another way.
Whoever changes a compiler option or a layout of the round program by hand runs it at length:

    python tests/battery.py --cases=500 --xla=xla_cpu_prefer_vector_width=256
"""

from __future__ import annotations

import argparse
import ast
import itertools
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import quick
import reference
import toy
from accelerators import exchanging
from flax import nnx

from fljax import algorithms
from fljax.algorithms.server_optimizers import scale_by_second_moment
from fljax.compression import names
from fljax.engine.devices.compilation import cpu_options
from fljax.engine.plan.blocks import unstack
from fljax.engine.program import round as round_program
from fljax.tasks import classification
from fljax.training.federation import RoundOptions, build
from fljax.training.hyperparameters import hyperparameters
from fljax.training.trials import TrialInputs

# Everybody's turn comes, alone and beside others; the last round has one client.
COHORTS = ([0, 3, 1], [2, 3, 0], [1, 2], [3])
NARROW = ("bf16", "fp16")
UNBIASED = ("rand_k(0.5)", "qsgd(4)", "uniform(4)", "rotated_uniform(4)", "terngrad", "natural")
CONTRACTIVE = ("top_k(0.4)", "int8", "sign", "drive", "top_k(0.5), int8", "powersgd(1)")
OTHERS = (*NARROW, "identity", "int8_channels", "eden", "rotation", "prune(0.5)", "fetch_sgd")
# By the memory of the uplink, what it may keep company with.
CODES = {
    "no code": ("none",),
    "none": (*UNBIASED, *CONTRACTIVE, *OTHERS),
    "error_feedback": CONTRACTIVE,
    "ef21": CONTRACTIVE,
    "diana": UNBIASED,
    "marina(0.4)": UNBIASED,
}
# The same for the downlink.
DOWNLINK_CODES = {
    "none": ("none",),
    "plain": (*UNBIASED[1:], "int8", *NARROW),
    "difference": CONTRACTIVE[:3],
    "error_feedback": ("int8", "sign"),
}
ADAPTIVE = {"beta1": 0.8, "beta2": 0.95, "tau": 1e-2}
AXES: dict[str, tuple] = {
    "algorithm": ("fedavg", "fedprox", "fedsgd", "scaffold", "local_only"),
    "momentum": (None, 0.9),
    "server": ("sgd", "momentum", "adam", "yogi", "adagrad"),
    "memory": tuple(CODES),
    "downlink": tuple(DOWNLINK_CODES),
    "model": ("products", "entries", "nnx", "mlp", "norm"),
    # the last ones have weights that are held transposed
    "shape": ((1, 1), (1, 2), (2, 2), (3, 5), (8, 2), (5, 1), (130, 2), (90, 3)),
    "sizes": ((4, 9, 6, 2), (1, 1, 3, 1), (5, 0, 1, 7), (3, 3, 3, 3)),
    "batch": (1, 2, 0),
    "epochs": (1, 2),
    "lanes": (1, 2, 3),
    "exchange": (1, 2, 3),
    "wave": (1, 2),
    "devices": (1, 3),
    "dtype": ("float32", "float64"),
    "block": (1, 2),
    "trials": (1, 2),
    "placement": ("device", "stream"),
}


# Drawn for each case of a covering; that with most pairs is taken, so more make fewer cases.
_CANDIDATES = 200


class Case(NamedTuple):
    """One federation; the fields are those of `AXES`, and the codes that go with them.

    `exchange` is how many lanes exchange together, as on accelerators.
    """

    algorithm: str
    momentum: float | None
    server: str
    memory: str
    downlink: str
    model: str
    shape: tuple[int, int]
    sizes: tuple[int, ...]
    batch: int
    epochs: int
    lanes: int
    wave: int
    devices: int
    dtype: str
    block: int
    trials: int
    placement: str
    uplink_code: str = "none"
    downlink_code: str = "none"
    exchange: int = 1

    def __str__(self):
        return " ".join(f"{name}={value}" for name, value in self._asdict().items())


class _Dense(nnx.Module):
    """A dense layer, behind a normalization if wanted."""

    def __init__(self, case: Case, start, skew, normalized: bool, rngs: nnx.Rngs):
        features, classes = case.shape
        self.norm = nnx.BatchNorm(features, rngs=rngs) if normalized else None
        self.out = nnx.Linear(
            features, classes, rngs=rngs, param_dtype=case.dtype,
            kernel_init=lambda *_: jnp.asarray(start["w"]),
            bias_init=lambda *_: jnp.asarray(start["b"]),
        )  # fmt: skip
        self.skew = skew

    def __call__(self, x, mask):
        x = x if self.norm is None else self.norm(x, mask=mask[:, None])
        return self.out(x) * jnp.asarray(self.skew, x.dtype)


class Outcome(NamedTuple):
    """Traces that a trial leaves behind; None of what a reference does not tell.

    Attributes:
      params: Leaves of the model.
      losses: Mean training loss of each round.
      rows: Leaves of what the algorithm keeps for the clients, [N, ...].
      others: Everything else that the next round would read.
    """

    params: list[np.ndarray]
    losses: list[float] | None = None
    rows: list[np.ndarray] | None = None
    others: Any = None


def drawn(generator: np.random.Generator, **fixed) -> Case:
    """Returns a case at random, with some of its fields given."""
    values = {name: axis[generator.integers(len(axis))] for name, axis in AXES.items()} | fixed
    return _sensible(Case(**values), generator)


def _sensible(case: Case, generator) -> Case:
    """Returns the case without what does not go together."""
    if case.algorithm == "local_only":
        case = case._replace(memory="no code", downlink="none")
    if case.algorithm not in ("fedavg", "fedprox", "fedsgd"):
        case = case._replace(server="sgd")
    if case.algorithm in ("fedsgd", "scaffold"):
        case = case._replace(momentum=None)
    if case.model == "norm":
        case = case._replace(dtype="float32")  # as Flax keeps its statistics
    pick = lambda options: options[generator.integers(len(options))]  # noqa: E731
    case = case._replace(
        uplink_code=pick(CODES[case.memory]), downlink_code=pick(DOWNLINK_CODES[case.downlink])
    )
    remembers = case.memory not in ("no code", "none") or case.uplink_code == "powersgd(1)"
    if remembers or case.algorithm in ("scaffold", "local_only"):
        # what clients keep is read and written between dispatches
        case = case._replace(block=1)
    return case._replace(exchange=min(case.exchange, case.lanes))


def covering(seed: int = 0, **axes: Sequence) -> list[Case]:
    """Returns cases in which any two values of two of these axes meet, where they can.

    Args:
      seed: Of everything that is drawn: of other axes, one value a case.
      **axes: Values by axis.
    """
    generator = np.random.default_rng(seed)
    pairs = [
        frozenset([(axis, a), (other, b)])
        for axis, other in itertools.combinations(axes, 2)
        for a, b in itertools.product(axes[axis], axes[other])
    ]
    cases, missing = [], dict.fromkeys(pairs)
    while missing:
        pair = next(iter(missing))
        candidates = []
        for _ in range(_CANDIDATES):
            some = {name: values[generator.integers(len(values))] for name, values in axes.items()}
            candidates.append(drawn(generator, **some | dict(pair)))
        met = [_pairs(candidate, axes) & missing.keys() for candidate in candidates]
        best = max(range(len(met)), key=lambda number: len(met[number]))
        if met[best]:
            cases.append(candidates[best])
        # a pair that none of its candidates has cannot be
        for covered in {pair, *met[best]}:
            missing.pop(covered)
    return cases


def _pairs(case: Case, axes: Iterable[str]) -> set[frozenset]:
    values = [(axis, getattr(case, axis)) for axis in axes]
    return {frozenset(pair) for pair in itertools.combinations(values, 2)}


def wrong(case: Case, seed: int = 0) -> str | None:
    """Runs a case; returns what is wrong with it, or None."""
    with jax.enable_x64(case.dtype == "float64"):
        got = _run(case, seed)
        expected = _expected(case, seed)
    tolerance = 1e-8 if case.dtype == "float64" else 3e-4
    for trial, (outcome, other) in enumerate(zip(got, expected, strict=True)):
        for field, a, b in zip(Outcome._fields, outcome, other, strict=True):
            error = 0.0 if b is None else _error(a, b)
            if not error <= tolerance:
                return f"{field} of trial {trial} {error:.2g} off"
    return None


def _error(got: Any, expected: Any) -> float:
    """Returns the largest error of a leaf, relative to the leaf where it is large."""
    leaves = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in leaves]
    scale = lambda b: max(1.0, np.abs(b).max(initial=0))  # noqa: E731
    return max((np.abs(a - b).max(initial=0) / scale(b) for a, b in pairs), default=0.0)


def _expected(case: Case, seed: int) -> list[Outcome]:
    compressed = (case.uplink_code, case.downlink_code) != ("none", "none")
    if not compressed and case.model in ("products", "entries", "nnx"):
        return [_loop(case, seed, trial) for trial in range(case.trials)]
    other = case._replace(
        trials=1, block=1, devices=1, lanes=2 if case.lanes == 1 else 1, wave=3 - case.wave,
        exchange=1,
    )  # fmt: skip
    with quick.compilation():
        return [_run(other, seed, trial)[0] for trial in range(case.trials)]


def _rates(trial: int) -> tuple[float, float]:
    """Returns a trial's learning rates of clients and server."""
    return (0.2, 0.7) if trial == 0 else (0.1, 0.4)


def _clients(case: Case, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng([seed, 1])
    features, classes = case.shape
    return [
        (
            generator.standard_normal((size, features)).astype(case.dtype),
            generator.integers(0, classes, size).astype(np.int32),
        )
        for size in case.sizes
    ]


def _start(case: Case, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng([seed, 2])
    weights = generator.standard_normal(case.shape) / np.sqrt(case.shape[0])
    return {
        "w": weights.astype(case.dtype),
        "b": 0.1 * generator.standard_normal(case.shape[1]).astype(case.dtype),
    }


def _task(case: Case, seed: int):
    start = _start(case, seed)
    features, classes = case.shape
    # without it the two columns of two classes are each other's negatives, and of equal size
    compressed = (case.uplink_code, case.downlink_code) != ("none", "none")
    skew = tuple(1 + 0.3 * number * compressed for number in range(classes))

    def products(params, x):
        return (x @ params["w"] + params["b"]) * jnp.asarray(skew, x.dtype)

    def entries(params, x):
        return ((x[:, :, None] * params["w"]).sum(1) + params["b"]) * jnp.asarray(skew, x.dtype)

    def hidden(params, x):
        return products(params["out"], jnp.tanh(x @ params["w"] + params["b"]))

    def perceptron(key):
        width = max(2, features // 2)
        inner = _start(case._replace(shape=(features, width)), seed + 1)
        return inner | {"out": _start(case._replace(shape=(width, classes)), seed + 2)}

    models = {
        "products": (lambda key: start, products),
        "entries": (lambda key: start, entries),
        "mlp": (perceptron, hidden),
        "nnx": partial(_Dense, case, start, skew, False),
        "norm": partial(_Dense, case, start, skew, True),
    }
    return classification(models[case.model], classes)


def _spec(case: Case, trial: int = 0):
    client_lr, server_lr = _rates(trial)
    momentum = {"client_momentum": case.momentum}
    if case.algorithm == "local_only":
        return algorithms.local_only(client_lr, **momentum)
    if case.algorithm == "scaffold":
        return algorithms.scaffold(client_lr, server_lr)
    if case.algorithm == "fedsgd":
        return algorithms.fedsgd(server_lr, server_optimizer=_server_optimizer(case.server))
    if case.algorithm == "fedprox":
        momentum["mu"] = 0.7
    numbers = {"adam": ADAPTIVE, "yogi": ADAPTIVE, "adagrad": {"beta1": 0.8, "tau": 1e-2}}
    return algorithms.fedopt(
        case.server, client_lr, server_lr, **numbers.get(case.server, {}), **momentum
    )


def _server_optimizer(kind: str):
    if kind in ("sgd", "momentum"):
        return lambda hp: optax.sgd(hp["server_lr"], 0.9 if kind == "momentum" else None)
    return lambda hp: optax.chain(
        scale_by_second_moment(kind, *ADAPTIVE.values()),
        optax.scale_by_learning_rate(hp["server_lr"]),
    )


def _run(case: Case, seed: int, first: int = 0) -> list[Outcome]:
    """Runs a case with the library; its trials have the rates of `first`, `first + 1`, ..."""
    parts, task = _clients(case, seed), _task(case, seed)
    link = names.Names(
        uplink=case.uplink_code,
        uplink_memory="none" if case.memory == "no code" else case.memory,
        downlink=case.downlink_code,
        downlink_memory="none" if case.downlink == "plain" else case.downlink,
    )
    params = jax.eval_shape(task.init, jax.random.key(0))[0]
    options = RoundOptions(
        num_rounds=len(COHORTS), clients_per_round=3, cohorts=COHORTS, shuffle=False,
        batch_size=case.batch, local_epochs=case.epochs, devices=case.devices, lanes=case.lanes,
        wave=case.wave, placement=case.placement, rounds_per_dispatch=case.block,
        pipeline=names.pipeline(link, params, len(parts), seed),
    )  # fmt: skip
    trials = [
        TrialInputs(5 + number, hyperparameters(_spec(case, number), options.pipeline))
        for number in range(first, first + case.trials)
    ]
    dataset = toy.dataset(parts, case.shape[1])
    # what is asked for before and after the rounds is no matter of how they are compiled
    with exchanging(case.exchange), quick.compilation():
        federation = build(dataset, task, _spec(case), options, trials)
    losses = [[] for _ in trials]
    for plan, facts in federation.blocks(range(len(COHORTS))):
        stats = jax.device_get(federation.step_block(plan, facts))
        for round_stats, fact in zip(unstack(stats, len(facts)), facts, strict=True):
            for trial, found in enumerate(losses):
                mine = fact.trials == trial
                found.append(
                    round_stats[-1]["loss"][mine].sum() / round_stats[-1]["weight"][mine].sum()
                )
    with quick.compilation():
        return [
            _outcome(federation, len(parts), trial, losses[trial]) for trial in range(len(trials))
        ]


def _outcome(federation, num_clients: int, trial: int, losses: list[float]) -> Outcome:
    variables = federation.variables_of(trial)
    rows = federation.store.rows_of(np.arange(num_clients), trial)
    # of clients that keep models of their own, the models
    own = getattr(rows.algorithm, "params", rows.algorithm)
    state = jax.tree.map(lambda leaf: leaf[trial], federation.state)
    others = (state, rows)
    return Outcome(jax.tree.leaves(variables.params), losses, jax.tree.leaves(own), others)


def _loop(case: Case, seed: int, trial: int) -> Outcome:
    """Runs a trial of a case with the float64 loops."""
    client_lr, server_lr = _rates(trial)
    parts = [(np.asarray(x, np.float64), y) for x, y in _clients(case, seed)]
    start = reference.combine(lambda leaf: np.asarray(leaf, np.float64), _start(case, seed))
    work = {"lr": client_lr, "batch_size": case.batch or max(case.sizes), "epochs": case.epochs}
    if case.algorithm == "local_only":
        own = reference.local_only(start, parts, COHORTS, momentum=case.momentum or 0.0, **work)
        return Outcome(jax.tree.leaves(start), rows=_stacked(own))
    if case.algorithm == "scaffold":
        params, own, _ = reference.scaffold(start, parts, COHORTS, server_lr=server_lr, **work)
        return Outcome(jax.tree.leaves(params), rows=_stacked(own))
    if case.algorithm == "fedsgd":
        # one step of rate 1 along the gradient of all rows
        work = {"lr": 1.0, "batch_size": max(case.sizes), "epochs": 1}
    server = reference.Server(start, case.server, server_lr, momentum=0.9, **ADAPTIVE)
    mu = 0.7 if case.algorithm == "fedprox" else 0.0
    params, losses = reference.federated(
        start, parts, COHORTS, server=server, momentum=case.momentum or 0.0, mu=mu, **work
    )
    return Outcome(jax.tree.leaves(params), losses)


def _stacked(trees):
    return jax.tree.leaves(jax.tree.map(lambda *leaves: np.stack(leaves), *trees))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100, help="how many, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--xla", action="append", default=[], metavar="NAME=VALUE")
    for name in AXES:
        parser.add_argument(f"--{name}", type=ast.literal_eval, help="the same in every case")
    arguments = parser.parse_args()
    options = dict(text.split("=") for text in arguments.xla)
    round_program.cpu_options = lambda: cpu_options() | options
    given = {name: value for name in AXES if (value := getattr(arguments, name)) is not None}
    generator = np.random.default_rng(arguments.seed)
    failures, begin = 0, time.process_time()
    for number in range(arguments.cases):
        case = drawn(generator, **given)
        if error := wrong(case, arguments.seed + number):
            failures += 1
            print(f"{error}: seed={arguments.seed + number} {case}", flush=True)
    seconds = time.process_time() - begin
    print(f"{failures} of {arguments.cases} cases wrong ({seconds:.0f} CPU seconds)")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 3)
    main()

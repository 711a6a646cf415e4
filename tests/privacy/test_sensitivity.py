"""One client moves the sums of a round by the clip norm at most, whatever it does."""

import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from flax import nnx
from privacy.private import pipeline

from fljax import algorithms
from fljax.core.transforms import UplinkLink
from fljax.engine.devices.placement import copied
from fljax.privacy.adaptive import BIT, adaptive_clipping
from fljax.privacy.gaussian import gaussian
from fljax.tasks import classification

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

MEMBERS = 4
CLIENTS = [client for client, size in enumerate(toy.SIZES) if size]


class Normalized(nnx.Module):
    """Softmax regression on normalized features."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(toy.FEATURES, rngs=rngs)
        self.dense = nnx.Linear(toy.FEATURES, toy.CLASSES, rngs=rngs)

    def __call__(self, x, mask=None):
        return self.dense(self.norm(x, mask=None if mask is None else mask[:, None]))


ENLARGING = UplinkLink(
    encode=lambda value, state, job, key: (jax.tree.map(lambda x: x * 3 + 1, value), state),
    decode=lambda payload, state: payload,
)

# What an algorithm sends, beside the update. What FedProx and FedAdam send is what FedAvg sends.
CASES = {
    "fedavg": (algorithms.fedavg(0.3, weighting="uniform"), ()),
    "weights": (algorithms.fedavg(0.3), ()),
    "fedsgd": (algorithms.fedsgd(0.3, weighting="uniform"), ()),
    "scaffold": (algorithms.scaffold(0.3), ("control",)),
    "feddc": (algorithms.feddc(0.1, 0.3), ("control", "drift")),
    "fedexp": (algorithms.fedexp(0.001, 0.3, weighting="uniform"), ("square_norm",)),
    "fednova": (algorithms.fednova(0.3, weighting="uniform"), ("path",)),
    "statistics": (algorithms.fedavg(0.3, weighting="uniform"), ("model_state",)),
    "per_layer": (algorithms.scaffold(0.3), ("control",)),
    "adaptive": (algorithms.fedavg(0.3, weighting="uniform"), ()),
    # in the first of its passes clients send nothing
    "adaptive, two passes": (
        algorithms.ditto(0.1, 0.3, personal_epochs=1, weighting="uniform"), ()
    ),
    "compressed": (algorithms.fedavg(0.3, weighting="uniform"), ()),
}  # fmt: skip

# Of what is sent, names of single numbers.
NUMBERS = (BIT, "square_norm", "path")


@functools.cache
def federation_of(name):
    """Returns a federation whose link keeps the sums of the last round, and what it starts from."""
    spec, rest = CASES[name]
    task = toy.softmax_task(np.float32)
    if name == "statistics":
        task = classification(Normalized, toy.CLASSES)
    options = {"clipping": "per_layer"} if name == "per_layer" else {}
    if name == "weights":
        options["weight_cap"] = 10.0

    mechanism = gaussian(1.0, 0.0, **options)
    if name.startswith("adaptive"):
        mechanism, rest = adaptive_clipping(1.0, 0.0), (BIT,)

    def kept(params):
        values = {"update": params} | dict.fromkeys(rest, params)
        if "model_state" in rest:
            values["model_state"] = task.init(jax.random.key(0))[2]
        values |= {name: jnp.zeros(()) for name in rest if name in NUMBERS}
        return jax.tree.map(jnp.zeros_like, values)

    def keeping(link):
        def encode(message, state, job, key, server):
            told = (server["own"],) if link.sees_server else ()
            return link.encode(message, state, job, key, *told)

        def release(sums, server, round, key):
            told, own = link.release(sums, server["own"], round, key)
            return told, {"own": own, "sums": {name: total.sum for name, total in sums.items()}}

        return link._replace(
            encode=encode,
            decode=lambda payload, server: link.decode(payload, server["own"]),
            init_server=lambda params: {"own": link.init_server(params), "sums": kept(params)},
            release=release,
            sees_server=True,
        )

    links = (ENLARGING,) if name == "compressed" else ()
    behind = "links" if links else "nothing"
    chain = pipeline(mechanism, MEMBERS, *links, behind=behind, wrap=keeping)
    federation = harness.prepare(
        spec, [[*CLIENTS, *CLIENTS]], harness.Layout(1, 2, 2), task=task, pipeline=chain,
        parts=toy.clients(dtype=np.float32),
    )  # fmt: skip
    return federation, copied(federation.state), federation.store.state()


def sums_of(name, cohort, clip_norm, change=lambda x: x, whose=None):
    """Returns (sum of bits, other sums of a round before noise, in float64)."""
    federation, start, store = federation_of(name)
    federation.load(start, store)
    hparams = federation.inputs.hparams
    numbers = {**hparams, "clip_norm": jnp.full_like(hparams["clip_norm"], clip_norm)}
    data, old = dict(federation.inputs.data), federation.inputs
    if whose is not None:
        ends = np.cumsum(toy.SIZES)
        rows = slice(ends[whose] - toy.SIZES[whose], ends[whose])
        x = np.array(data["x"])
        x[rows] = change(x[rows])
        data["x"] = jax.device_put(x, data["x"].sharding)
    federation.inputs = old._replace(hparams=numbers, data=data)
    run = harness.drive(federation, [cohort])
    federation.inputs = old
    kept = run.states[0].pipeline.uplink[0]["sums"]
    bit = kept.pop(BIT, np.zeros(1))
    return bit, [leaf.astype(np.float64) for leaf in jax.tree.leaves(kept)]


def distance(one, other):
    return math.sqrt(sum(np.square(a - b).sum() for a, b in zip(one, other, strict=True)))


CHANGES = {
    "NaN": lambda x: np.full_like(x, np.nan),
    "infinite": lambda x: np.full_like(x, np.inf),
    "huge": lambda x: np.full_like(x, 1e30),
    "large": lambda x: x * 1e15,
    "zero": np.zeros_like,
    "negated": lambda x: -3 * x,
}


@pytest.mark.parametrize("name", CASES)
@hypothesis.given(
    cohort=st.lists(st.sampled_from(CLIENTS), min_size=1, max_size=5),
    clip_norm=st.sampled_from([1e-3, 0.2, 3.0, 1e10]),
    change=st.sampled_from(sorted(CHANGES)),
    alteration=st.sampled_from(["removed", "changed"]),
)
@hypothesis.settings(
    max_examples=12, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_one_client_moves_sums_by_the_clip_norm_at_most(
    name, cohort, clip_norm, change, alteration
):
    """Its jobs all together; where its data change, what it sent and what it sends move them."""
    if name == "compressed":  # what enlarges messages makes something of a second job's zero
        cohort = list(dict.fromkeys(cohort))
    who, cap = cohort[0], 10.0 if name == "weights" else 1.0
    bound = float(np.float32(clip_norm)) * cap
    bit, whole = sums_of(name, cohort, clip_norm, CHANGES[change], whose=who)
    assert all(np.isfinite(leaf).all() for leaf in whole)
    most = 0.5
    if alteration == "removed":
        rest_bit, rest = sums_of(name, [client for client in cohort if client != who], clip_norm)
    else:
        rest_bit, rest = sums_of(name, cohort, clip_norm)
        bound, most = 2 * bound, 2 * most
    assert distance(whole, rest) <= bound * (1 + 1e-6)
    assert abs(bit - rest_bit) <= most

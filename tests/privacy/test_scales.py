"""Numbers that clients send beside the update have bounds of their own, or a run is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from fljax import algorithms, data, models, privacy, tasks
from fljax.core.algorithm import Aggregate, blank_job
from fljax.core.transforms import UPDATE, Pipeline
from fljax.training.federation import RoundOptions
from fljax.training.privacy import with_privacy
from fljax.training.rehearsal import rehearsed

SIZES = [30, 20, 40]
FURTHER = {"fedbn": {"personal": "head"}, "fedopt": {"server_optimizer": "adam"}}
SPECS = {name: algorithms.make(name, **FURTHER.get(name, {})) for name in algorithms.ALGORITHMS}
# clients weigh by what they have computed or kept; those of FedProto by rows of a class
OWN_WEIGHTS = ("fedproto", "fedsoft", "q_fedavg")


@pytest.fixture(scope="module")
def federation():
    """(data, task) that have what every algorithm needs: two classes, groups of rows."""
    rng = np.random.default_rng(0)
    x, sex = rng.standard_normal((90, 5)).astype(np.float32), np.where(rng.random(90) < 0.5, 0, 1)
    y = (x[:, 0] > 0).astype(np.int32)
    dataset = data.from_arrays(
        x, y, client_ids=np.repeat(range(3), SIZES), x_test=x[:6], y_test=y[:6],
        row_groups={"sex": sex}, test_row_groups={"sex": sex[:6]}, val_fraction=0.0,
    )  # fmt: skip
    return dataset, tasks.classification(models.mlp((5, 4, 2)), 2)


@pytest.fixture(scope="module")
def sent(federation):
    """{algorithm: the names that its clients send, in the order of the passes}."""
    return {
        name: [own for each in rehearsed(*federation, spec).contributions for own in each]
        for name, spec in SPECS.items()
    }


def test_one_bound_is_that_of_the_update(federation, sent):
    """Of all algorithms: whatever else is sent has a bound of its own, or nothing starts."""
    others = {name: [own for own in names if own != UPDATE] for name, names in sent.items()}
    assert others["mofedsam"] == ["path"] and others["fedexp"] == ["square_norm"]
    assert others["scaffold"] == ["control"] and not others["fedavg"]
    for name, spec in SPECS.items():
        one = Pipeline(uplink=(privacy.fixed_point(clip=0.5),))
        if others[name]:
            first = others[name][0]
            with pytest.raises(ValueError, match=f"send '{first}' too.*'{first}': 10.0"):
                rehearsed(*federation, spec, one)
        else:
            rehearsed(*federation, spec, one)
    for name in ("mofedsam", "mime"):
        each = privacy.fixed_point(clip={UPDATE: 0.5} | dict.fromkeys(others[name], 10.0))
        rehearsed(*federation, SPECS[name], Pipeline(uplink=(each,)))


def test_weights_that_are_cut_off_are_refused(federation):
    """By name the largest weight is found in the data, or has to be written."""
    options = RoundOptions(num_rounds=1, clients_per_round=3, local_steps=1)

    def start(spec, secure, **further):
        asked = dataclasses.replace(options, secure_aggregation=secure, **further)
        return with_privacy(*federation, spec, asked).privacy.secure_aggregation.max_weight

    for name in OWN_WEIGHTS:
        with pytest.raises(ValueError, match="not known before the run"):
            start(SPECS[name], "secure_aggregation")
    assert start(SPECS["q_fedavg"], "secure_aggregation(max_weight=90.0)") == 90.0
    assert start(SPECS["fedavg"], "secure_aggregation") == 40.0
    assert start(SPECS["mofedsam"], "secure_aggregation") == 1.0
    link = privacy.secure_aggregation()
    with pytest.raises(ValueError, match="max_weight = 1, but clients weigh up to 40, .*=40"):
        start(SPECS["fedavg"], link)
    with pytest.raises(ValueError, match="clients weigh up to 2"):
        start(SPECS["fedavg"], link, client_weights=np.array([2.0, 1.0, 1.0]))
    assert start(algorithms.fedavg(weighting="uniform"), link) == 1.0


@pytest.mark.parametrize(
    "protection",
    [
        {"privacy": "gaussian(0.5, 1.0)"},
        {"privacy": "local_gaussian(0.5, 4.0)"},
        {"privacy": "skellam(0.5, 1.0)"},
        {"secure_aggregation": "secure_aggregation(by_norm=True)"},
    ],
    ids=lambda protection: next(iter(protection.values())),
)
def test_single_numbers_share_no_norm_with_a_message(federation, sent, protection):
    """A number to divide by would be clipped with the update, and be drowned by its noise."""
    options = RoundOptions(
        num_rounds=1, clients_per_round=3, sampler="poisson", local_steps=1, **protection
    )
    found = set()
    for name in ("fednova", "mofedsam", "fedexp", "scaffold", "feddc", "fedavg"):
        try:
            with_privacy(*federation, SPECS[name], options)
        except ValueError as error:
            if "a single number with a scale of its own" in str(error):
                found.add(name)
    assert found == {"fednova", "mofedsam", "fedexp"}


@pytest.mark.usefixtures("quick_compilation")
def test_numbers_with_bounds_of_their_own_arrive():
    """A way of 16 beside an update whose bound is 2, of a client that weighs 3."""
    link = privacy.fixed_point(bits=24, clip={UPDATE: 2.0, "path": 40.0}, max_weight=8.0)
    message = {UPDATE: np.array([0.5, -1.75], np.float32), "path": np.float32(16.0)}
    weights = dict.fromkeys(message, np.float32(3.0))
    job = blank_job(jax.random.key(0))._replace(weights=weights)

    @jax.jit
    def sent_and_decoded(message):
        payload, _, report = link.encode(message, (), job, job.key, ())
        one = np.float32(1)
        total = {name: Aggregate(part, one, one) for name, part in payload.items()}
        return link.decode_sum(total, (), (), None), report

    sums, report = sent_and_decoded(message)
    assert report["clipped_share"][0] == report["capped_share"][0] == 0
    for name, value in message.items():
        np.testing.assert_allclose(sums[name].mean(), value, rtol=1e-5)

"""Private runs: what they record, spend and refuse, whatever the mechanism."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy_privacy import DELTA, rdp, toy_gaussian

import fljax
from fljax import algorithms
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.sampler import Sampler
from fljax.core.transforms import Aggregator, CohortLink, Pipeline, UplinkLink
from fljax.privacy import gaussian, privunit, skellam
from fljax.privacy.secagg import rehearsal
from fljax.training.federation import RoundOptions, build
from fljax.training.privacy import with_privacy
from fljax.training.privacy_checks import weighting_of

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

CLIENTS = 24
FEDAVG = algorithms.fedavg(0.1, weighting="uniform")
OPTIONS = {"num_rounds": 4, "clients_per_round": 6, "sampler": "poisson", "batch_size": 4}


def federation_of(num_clients=CLIENTS, broken=()):
    parts = toy.clients(sizes=[4 + n % 3 for n in range(num_clients)], dtype=np.float32)
    for client in broken:
        parts[client][0][:] = np.nan
    return toy.dataset(parts)


def simulate(dataset=None, algorithm=FEDAVG, **options):
    dataset = federation_of() if dataset is None else dataset
    quiet = {"progress": False, "devices": 1, "lanes": 2}
    return fljax.simulate(
        dataset, toy.softmax_task(np.float32), algorithm, **OPTIONS | quiet | options
    )


def test_a_run_says_what_it_spends_and_promises():
    run = simulate(privacy=toy_gaussian(0.5, 3.0), eval_every=2)
    spent = [0.0, *(rdp(3.0, rounds, DELTA) for rounds in range(1, 5))]
    assert run.curves["privacy/epsilon"].tolist() == spent
    privacy = run.summary["privacy"]
    assert privacy["epsilon"] == {"rdp": spent[-1], "pld": 0.9 * spent[-1]}
    facts = {"delta": DELTA, "noise_multiplier": 3.0, "clip_norm": 0.5, "unit": "user"}
    assert facts.items() <= privacy.items()
    assert privacy["covers"] and privacy["sampling"] and privacy["relation"]
    assert any("train/*" in text for text in privacy["not_covered"])
    assert run.config["privacy"] == "toy_gaussian" and run.config["delta"] == DELTA
    assert {"clip_norm": 0.5, "noise_multiplier": 3.0}.items() <= run.config["hparams"].items()


def test_clients_that_spend_differently_are_listed_or_their_spread():
    mechanism = toy_gaussian(0.5, 3.0)

    def guarantee(hparams, setting):
        by_client = lambda rounds: rounds * setting.sizes.astype(float)  # noqa: E731
        return mechanism.guarantee(hparams, setting)._replace(by_client=by_client)

    private = {"privacy": mechanism._replace(guarantee=guarantee), "num_rounds": 2}
    found = simulate(**private).summary["privacy"]["epsilon_by_client"]
    assert found["1"] == 2 * 5 and len(found) == CLIENTS
    found = simulate(federation_of(102), **private, clients_per_round=3).summary["privacy"]
    assert found["epsilon_of_clients"] == {"min": 8.0, "median": 10.0, "max": 12.0}


def test_a_text_takes_what_is_set_beside_it():
    text = "toy_privacy:toy_gaussian(0.5)"
    run = simulate(privacy=text, noise_multiplier=3.0, delta=1e-4, num_rounds=1)
    assert run.summary["privacy"]["delta"] == 1e-4
    assert run.config["hparams"]["noise_multiplier"] == 3.0
    same = simulate(privacy=toy_gaussian(0.5, 3.0), num_rounds=1)
    jax.tree.map(np.testing.assert_array_equal, run.variables.params, same.variables.params)


def test_a_budget_chooses_the_noise():
    """The smallest of four digits; a run without noise of its own."""
    run = simulate(privacy="toy_privacy:toy_gaussian(0.5)", target_epsilon=5.0)
    noise = run.config["hparams"]["noise_multiplier"]
    assert 0.9 * rdp(noise, 4, DELTA) <= 5.0 < 0.9 * rdp(noise * 0.997, 4, DELTA)
    assert float(f"{noise:.4g}") == noise
    assert run.summary["stopped"] is None and run.summary["privacy"]["target_epsilon"] == 5.0


def test_a_budget_ends_a_run_and_it_stays_there(tmp_path):
    options = {"privacy": toy_gaussian(0.5, 3.0), "target_epsilon": 0.9 * rdp(3.0, 2, DELTA)}
    run = simulate(**options, workdir=tmp_path)
    assert run.summary["rounds"] == 2 and "target_epsilon" in run.summary["stopped"]
    assert not run.interrupted and "eval/test/accuracy" in run.summary["final"]
    assert simulate(**options, workdir=tmp_path, resume=True).summary["rounds"] == 2


def test_a_budget_that_no_round_keeps_to_is_refused():
    with pytest.raises(
        ValueError, match="the first round of toy_gaussian spends 1.165. Raise noise"
    ):
        simulate(privacy=toy_gaussian(0.5, 3.0), target_epsilon=0.5)
    with pytest.raises(ValueError, match="noise_multiplier = 0 hides nothing: set it above 0"):
        simulate(privacy=toy_gaussian(0.5, 0.0), target_epsilon=0.5)


def test_a_resumed_run_goes_on_counting(tmp_path):
    """Bit for bit, noise and account included."""
    whole = simulate(privacy=toy_gaussian(0.5, 3.0), workdir=tmp_path / "whole")
    options = {"privacy": toy_gaussian(0.5, 3.0), "workdir": tmp_path / "parts"}
    simulate(**options, num_rounds=2)
    resumed = simulate(**options, resume=True)
    jax.tree.map(np.testing.assert_array_equal, whole.variables.params, resumed.variables.params)
    assert whole.summary["privacy"] == resumed.summary["privacy"]
    spent = [run.curves["privacy/epsilon"][1:].tolist() for run in (whole, resumed)]
    assert spent[0] == spent[1][-4:]
    for other in (toy_gaussian(0.5, 2.0), toy_gaussian(0.5, 3.0, delta=1e-4), None):
        with pytest.raises(ValueError, match="noise_multiplier|delta|privacy"):
            simulate(workdir=tmp_path / "parts", resume=True, privacy=other)


def test_a_mechanism_made_for_all_rounds_keeps_their_number(tmp_path):
    fixed = {"privacy": toy_gaussian(0.5, 3.0)._replace(fixed_rounds=True), "workdir": tmp_path}
    simulate(**fixed, num_rounds=2)
    with pytest.raises(ValueError, match="num_rounds of privacy was 2 and is 4"):
        simulate(**fixed, resume=True)


def test_rounds_without_clients_and_with_broken_ones_do_not_end_a_run():
    """A client whose update is no number counts as zero."""
    private = {"privacy": toy_gaussian(0.5, 3.0)}
    run = simulate(**private, clients_per_round=0.5)
    assert 0 in run.curves["train/clients"][1:]
    everybody = federation_of(broken=range(CLIENTS))
    with pytest.warns(UserWarning, match="count as zero"):
        run = simulate(everybody, **private, num_rounds=2)
    assert run.summary["rounds"] == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.variables.params))
    with pytest.raises(FloatingPointError):
        simulate(everybody, num_rounds=2)


def test_a_mechanism_that_does_nothing_costs_nothing():
    """The program is that of a run without privacy, operation by operation."""
    nothing = toy_gaussian(0.5, 3.0)._replace(hparams={}, link=None)
    nothing = nothing._replace(
        guarantee=lambda hparams, setting: toy_gaussian(0.5, 3.0).guarantee(
            {"clip_norm": 0.5, "noise_multiplier": 3.0}, setting
        )
    )
    texts = [
        lowered(
            build(
                federation_of(),
                toy.softmax_task(np.float32),
                FEDAVG,
                RoundOptions(**OPTIONS, **more),
            )
        )
        for more in ({}, {"privacy": nothing})
    ]
    assert texts[0] == texts[1]


def lowered(federation):
    """Returns the text of a federation's round program."""
    plan, facts = next(federation.plans(0, 1))
    rows = federation.store.gather(facts.trials, facts.clients)
    return federation.program.lower(federation.state, rows, plan, federation.inputs).as_text()


def test_an_estimator_gets_the_numbers_of_its_mechanism():
    """It takes the place of the plain gradient, traced."""

    def estimator(hparams, setting):
        def of_loss(loss):
            def gradient(params, model_state, batch, key):
                sums, new_state = loss(params, model_state, batch, key, True)
                steps = jax.tree.map(lambda leaf: leaf * 0 + hparams["clip_norm"], params)
                return steps, sums, new_state

            return gradient

        return of_loss

    mechanism = toy_gaussian(0.25, 3.0)._replace(link=None, estimator=estimator)
    run = simulate(privacy=mechanism, num_rounds=1, local_steps=1, clients_per_round=24.0)
    start = toy.initial_params(np.float32)
    for name, leaf in run.variables.params.items():
        np.testing.assert_allclose(leaf, start[name] - 0.1 * 0.25, rtol=1e-5)


def observing():
    select = lambda state, round: (np.arange(3), state)  # noqa: E731
    return Sampler(lambda: (), select, 3, lambda state, *_: state, feedback="delayed")


def passes(change):
    """Returns FedAvg with a change of its only pass, or None for twice that pass."""

    def build(task, hparams):
        algorithm = FEDAVG.build(task, hparams)
        (only,) = algorithm.passes
        found = (only, only) if change is None else (only._replace(**change),)
        return algorithm._replace(passes=found)

    return AlgorithmSpec("changed", build, FEDAVG.hparams)


def link(**changes):
    return UplinkLink(
        lambda value, state, job, key: (value, state), lambda payload, state: payload, **changes
    )


SELECT = {"select": lambda stats, arrived: arrived}
MEDIAN = Aggregator("stack", lambda stack, cohort, state: (stack[0], state))
SPY = CohortLink(lambda stack, cohort, state, key: (stack, state))
MEMORY = link(init_server=lambda params: params)
REFUSED = {
    "cohorts": ({"cohorts": [[0, 1]]}, "cohorts are replayed"),
    "feedback": ({"sampler": observing()}, "delayed feedback"),
    "weighting": ({"algorithm": algorithms.fedavg(0.1)}, "weighting = 'examples'"),
    "weights": ({"client_weights": [1.0] * 24}, "weighting = 'own'"),
    "few clients": ({"dataset": federation_of(4), "clients_per_round": 2}, "of 4 clients.*dpsgd"),
    "delta": ({"privacy": toy_gaussian(0.5, 3.0, delta=1 / 24)}, r"below 1 / 24 = 0.0417"),
    "local only": ({"algorithm": algorithms.local_only(0.1)}, "send nothing"),
    "nothing in shares": (
        {"algorithm": algorithms.local_only(0.1), "privacy": skellam(0.5)}, "send nothing"
    ),
    "selection": ({"algorithm": passes(SELECT)}, "selects clients"),
    "clusters": ({"algorithm": passes({"num_clusters": 2})}, "has clusters"),
    "weights of losses": (
        {"algorithm": algorithms.term(), "privacy": gaussian(0.5)}, "term has a sum for each client"
    ),
    "two passes": ({"algorithm": passes(None)}, "2 passes a round"),
    "two passes of messages": (
        {"algorithm": passes(None), "privacy": privunit(0.5)}, "2 passes a round"
    ),
    "median": ({"pipeline": Pipeline(aggregator=MEDIAN)}, "sees every update by itself"),
    "cohort link": ({"pipeline": Pipeline(cohort=(SPY,))}, "sees every update by itself"),
    "sketch": ({"pipeline": Pipeline(uplink=(link(linear=True),))}, "decodes the sum"),
    "memory": ({"pipeline": Pipeline(uplink=(MEMORY,))}, "memory on the server"),
    "twice": ({"clip_norm": 1.0}, "Give it where the mechanism is made"),
    "nothing": ({"privacy": None, "noise_multiplier": 1.0}, "no effect without privacy"),
    "a name": ({"privacy": "gausian"}, "there is no 'gausian'"),
    "a kind": ({"privacy": 3}, "privacy = 3"),
    "a part": ({"privacy": "toy:initial_params"}, "a mechanism is a fljax.privacy.Mechanism"),
    "no noise": ({"privacy": "toy_privacy:toy_gaussian(1.0)"}, "needs noise_multiplier"),
    "secure stack": (
        {"privacy": None, "secure_aggregation": link(), "pipeline": Pipeline(aggregator=MEDIAN)},
        "under secure aggregation",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_theorem_covers_is_refused_with_the_reason(case):
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        simulate(**{"privacy": toy_gaussian(0.5, 3.0), **options})


def test_a_pass_in_which_clients_send_nothing_releases_nothing():
    spec = algorithms.ditto(0.1, personal_epochs=1, weighting="uniform")
    options = RoundOptions(
        num_rounds=1, clients_per_round=12, local_steps=1, privacy=toy_gaussian(0.5, 3.0)
    )
    drawn = with_privacy(federation_of(), toy.softmax_task(np.float32), spec, options)
    assert drawn.privacy.mechanism.name == "toy_gaussian"


def test_messages_that_are_randomized_need_no_crowd():
    """Nothing is added to a sum, so there is no sum that noise could drown."""
    dataset = federation_of(4)
    run = simulate(dataset, privacy="local_gaussian(0.5, 2.0)", clients_per_round=2)
    assert run.summary["privacy"]["epsilon"]["rdp"] > 0


def test_choices_by_the_clients_own_rows_are_warned_of():
    dataset = federation_of().with_validation(0.3)
    with pytest.warns(UserWarning, match="best round.*patience.*the last round"):
        simulate(dataset, privacy=toy_gaussian(0.5, 3.0), patience=3, eval_every=1)


@pytest.mark.parametrize(
    ("spec", "weighting"),
    [
        (algorithms.fedavg(), "examples"),
        (algorithms.fedsgd(), "examples"),
        (algorithms.scaffold(), "uniform"),
        (algorithms.fedopt("adam", weighting="uniform"), "uniform"),
        (algorithms.fedprox(weighting="uniform"), "uniform"),
        (algorithms.per_fedavg(), "examples"),
        (algorithms.cfl(weighting="uniform"), "uniform"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_what_weights_depend_on_is_found_in_the_algorithm(spec, weighting):
    options = RoundOptions(num_rounds=1, clients_per_round=3, local_steps=1)
    assert weighting_of(federation_of(), toy.softmax_task(np.float32), spec, options) == weighting


def weighing(weight):
    """Returns FedAvg with a weight of (carry, kept state, job), which keeps a number."""

    def build(task, hparams):
        algorithm = FEDAVG.build(task, hparams)
        (only,) = algorithm.passes

        def finish(message, carry, job):
            (carry, kept) = carry
            sent, _, stats = only.finish(message, carry, job)
            own = jnp.asarray(weight(carry, kept, job), jnp.float32)
            return {name: part._replace(weight=own) for name, part in sent.items()}, kept, stats

        return algorithm._replace(
            passes=(
                only._replace(
                    start=lambda message, kept, job: (only.start(message, (), job), kept),
                    step=lambda message, carry, batch, job: (
                        only.step(message, carry[0], batch, job), carry[1]
                    ),
                    finish=finish,
                ),
            ),
            init_client=lambda variables: jnp.ones(()),
        )  # fmt: skip

    return AlgorithmSpec("weighing", build, FEDAVG.hparams)


@pytest.mark.parametrize(
    ("weight", "weighting"),
    [
        (lambda carry, kept, job: 1, "uniform"),
        (lambda carry, kept, job: job.rows, "examples"),
        (lambda carry, kept, job: 5, "own"),
        (lambda carry, kept, job: carry.loss, "own"),
        (lambda carry, kept, job: kept, "own"),
        (lambda carry, kept, job: job.steps, "own"),
        (lambda carry, kept, job: job.rows + job.group, "own"),
        (lambda carry, kept, job: job.round, "own"),
        (lambda carry, kept, job: jax.random.uniform(job.key), "own"),
    ],
)
def test_weights_are_uniform_only_if_all_are_1_whoever_the_client(weight, weighting):
    options = RoundOptions(num_rounds=1, clients_per_round=3, local_steps=1)
    task = toy.softmax_task(np.float32)
    assert weighting_of(federation_of(), task, weighing(weight), options) == weighting


def test_an_infinite_epsilon_is_said(tmp_path):
    """Without noise there is no guarantee; the run is what clipping makes of it."""
    run = simulate(privacy=toy_gaussian(0.5, 0.0), workdir=tmp_path)
    assert run.summary["privacy"]["epsilon"]["rdp"] == math.inf
    assert fljax.load_run(tmp_path).summary["privacy"]["epsilon"]["rdp"] is None


def test_a_run_holds_the_ceremony_of_its_masks_once(tmp_path):
    run = simulate(
        secure_aggregation="secure_aggregation(graph=4)", ceremony=True, sampler="uniform",
        num_rounds=1, workdir=tmp_path,
    )  # fmt: skip
    held = run.summary["secure_aggregation"]
    size = sum(leaf.size for leaf in jax.tree.leaves(run.variables.params))
    expected = rehearsal.expected_bytes(6, size, 4)
    assert (held["clients"], held["neighbours"], held["words"]) == (6, 4, size)
    assert held["sent_bytes"] == {stage: sent for stage, (sent, _) in expected.items()}
    assert "secure_aggregation" not in simulate(num_rounds=1).summary
    with pytest.raises(ValueError, match="ceremony=True has nothing to hold"):
        simulate(ceremony=True, workdir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_resumed_run_counts_the_rounds_before_as_they_were_run(tmp_path):
    """The same mechanism with another argument would spend less on what is done already."""
    options = {
        "sampler": "uniform",
        "clients_per_round": CLIENTS,
        "workdir": tmp_path,
        "delta": 1e-3,
    }
    text = "local_gaussian(0.5, 3.0, max_participations={})"
    simulate(privacy=text.format(3), num_rounds=3, **options)
    with pytest.raises(ValueError, match="had spent epsilon = .* they have spent"):
        simulate(privacy=text.format(1), num_rounds=4, resume=True, **options)
    assert (
        simulate(privacy=text.format(3), num_rounds=4, resume=True, **options).summary["rounds"]
        == 4
    )

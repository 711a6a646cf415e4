"""Places of contributions are computed on the device: clients choose between two models.

IFCA (Ghosh et al. 2020, arXiv:2006.04088), whose clients here look at their first batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.test_trials import noisy_chains

from fljax import algorithms
from fljax.core.algorithm import Contribution, step_key
from fljax.core.transforms import Pipeline, ServerLink, UplinkLink
from fljax.training.divergence import check_diverged

COHORTS = [[0, 2, 3, 4, 8], [], [5, 6, 7, 0, 1]]
LR, CLUSTERS = 0.3, 2


def ifca():
    """FedAvg of two models, the second of which starts as minus the first."""
    plain = algorithms.fedavg(LR)

    def build(task, hp):
        algorithm = plain.build(task, hp)
        local = algorithm.passes[0]

        def model_of(models, number):
            return jax.tree.map(lambda leaf: leaf[number], models)

        def start(models, client_state, job):
            return jnp.int32(0), local.start(model_of(models, 0), client_state, job)

        def step(models, carry, batch, job):
            def loss(model):
                return task.loss(*model, batch, step_key(job), False)[0].loss

            best = jnp.argmin(jax.vmap(loss)(models)).astype(jnp.int32)
            cluster = jnp.where(job.step == 0, best, carry[0])
            model = model_of(models, cluster)
            fresh = local.start(model, (), job)
            here = jax.tree.map(lambda a, b: jnp.where(job.step == 0, a, b), fresh, carry[1])
            return cluster, local.step(model, here, batch, job)

        def finish(models, carry, job):
            cluster, here = carry
            sent, client_state, stats = local.finish(model_of(models, cluster), here, job)
            sent = {name: part._replace(cluster=cluster) for name, part in sent.items()}
            return sent, client_state, stats | {"cluster": cluster}

        def init(variables):
            two = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), variables)
            return jax.vmap(algorithm.init)(two)

        return algorithm._replace(
            init=init,
            passes=(local._replace(start=start, step=step, finish=finish, num_clusters=CLUSTERS),),
            server_update=jax.vmap(algorithm.server_update, (0, 0, None)),
            variables=lambda server: jax.tree.map(lambda leaf: leaf[0], server.variables),
        )

    return plain._replace(name="ifca", build=build)


def ifca_reference(shrink=1.0):
    """Returns (models, {client: cluster} of each round)."""
    start = toy.initial_params()
    models, chosen = [start, reference.combine(np.negative, start)], []
    for cohort in COHORTS:
        changes, weights, where = ([], []), ([], []), {}
        for client in cohort:
            x, y = toy.clients()[client]
            if len(y):
                losses = [reference.loss_and_gradient(model, x[:4], y[:4])[0] for model in models]
                best = where[client] = int(np.argmin(losses))
                trained = reference.local_sgd(models[best], x, y, LR, 4, 1)[0]
                changes[best].append(reference.combine(np.subtract, trained, models[best]))
                weights[best].append(len(y))
        for number in range(CLUSTERS):
            if weights[number]:
                mean = reference.weighted_mean(changes[number], weights[number])
                models[number] = reference.combine(
                    lambda p, d: p + shrink * d, models[number], mean
                )
        chosen.append(where)
    return models, chosen


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_clients_choose_their_cluster_on_the_device(layout):
    """A server link sees the update of one cluster at a time."""

    def halve(aggregate, state, round, key):
        assert aggregate.weight.shape == ()
        return aggregate._replace(sum=jax.tree.map(lambda x: x / 2, aggregate.sum)), state

    models, chosen = ifca_reference(shrink=0.5)
    assert set(chosen[0].values()) == set(chosen[2].values()) == {0, 1}
    run = harness.rounds(ifca(), COHORTS, layout, pipeline=Pipeline(server=(ServerLink(halve),)))
    for round, where in enumerate(chosen):
        assert run.by_client("cluster", round) == where
    for number, model in enumerate(models):
        got = jax.tree.map(lambda leaf: leaf[0, number], run.states[-1].server.variables.params)  # noqa: B023
        toy.assert_close(got, model, 1e-9)


def test_clients_weights_are_seen_where_clusters_are_chosen():
    """The server update is traced, with an axis over clusters, before anything runs."""
    harness.prepare(ifca(), COHORTS, client_weights=np.ones(len(toy.SIZES)))


def sending(name, send, **changes):
    """FedAvg whose clients send what a function makes of their contributions and the job.

    Args:
      name: Of the algorithm.
      send: ({name: Contribution}, job) -> {name: Contribution}.
      **changes: (plain algorithm) -> another of its functions, by name.
    """
    plain = algorithms.fedavg(LR)

    def build(task, hp):
        algorithm = plain.build(task, hp)
        (local,) = algorithm.passes

        def finish(message, carry, job):
            sent, state, stats = local.finish(message, carry, job)
            return send(sent, job), state, stats

        return algorithm._replace(
            passes=(local._replace(finish=finish, num_clusters=CLUSTERS),),
            **{field: change(algorithm) for field, change in changes.items()},
        )

    return plain._replace(name=name, build=build)


def going_to(cluster):
    """FedAvg whose clients go to the cluster that a function of the job says."""

    def send(sent, job):
        return {name: part._replace(cluster=cluster(job)) for name, part in sent.items()}

    def of_the_first(algorithm):
        def update(server, aggregates, round):
            first = jax.tree.map(lambda leaf: leaf[0], aggregates)
            return algorithm.server_update(server, first, round)

        return update

    return sending("clusters", send, server_update=of_the_first)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (
            lambda job: job.rows / 2,
            r"'update' goes to is float\d+\[\]; it must be one whole number",
        ),
        (lambda job: job.rows > 3, r"goes to is bool\[\]; it must be one whole number"),
        (lambda job: jnp.stack([job.client] * 2), r"goes to is int32\[2\]; it must be one whole"),
        (lambda job: CLUSTERS, r"goes to is 2, but the pass has num_clusters = 2"),
        (lambda job: np.int32(-1), r"goes to is -1, but the pass has num_clusters = 2"),
    ],
)
def test_what_is_no_cluster_is_refused_when_the_program_is_traced(cluster, message):
    with pytest.raises(ValueError, match=message):
        harness.rounds(going_to(cluster), COHORTS[:1])


def test_jobs_of_clusters_that_there_are_not_are_left_out_and_counted():
    """Clients 3 and 8 name cluster 2, client 4 names -1, which the device alone knows."""

    def strange(job):
        return jnp.where(job.client % 5 == 3, 2, jnp.where(job.client == 4, -1, 0))

    run = harness.rounds(going_to(strange), [[0, 2, 3, 4, 8]])
    alone = harness.rounds(algorithms.fedavg(LR), [[0, 2]])
    toy.assert_close(run.params, alone.params, 1e-12)
    assert run.by_client("nonfinite", 0) == {0: 0, 2: 0, 3: 1, 4: 1, 8: 1}
    record = {"round": 1, "train/clients_nonfinite": 3, "train/clients": 2}
    with pytest.warns(UserWarning, match=r"infinite update, or a cluster that is none of 0 to 1 "):
        check_diverged(record, np.array([3, 4, 8]), run.federation)


def test_a_pipeline_made_for_one_update_is_refused():
    with pytest.raises(ValueError, match="sums of several clusters"):
        harness.rounds(ifca(), COHORTS, pipeline=noisy_chains())


def test_a_link_that_decodes_the_sum_of_another_name_is_refused():
    def send(sent, job):
        return {**sent, "seen": Contribution(jnp.ones(3), jnp.ones(()), job.client % CLUSTERS)}

    link = UplinkLink(
        lambda value, state, job, key: (value, state),
        lambda total, state: total,
        linear=True,
        covers="seen",
    )
    spec = sending("seen", send)
    harness.rounds(spec, COHORTS[:1])
    with pytest.raises(ValueError, match="'seen' goes to the sums of several clusters"):
        harness.rounds(spec, COHORTS[:1], pipeline=Pipeline(uplink=(link,)))

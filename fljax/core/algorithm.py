"""The contract of a federated algorithm: a record of pure functions.

An algorithm is built inside the trace of the round program, `build(task, hparams) -> Algorithm`,
so that every hyperparameter which mathematics allows to be traced is an argument of the compiled
program. What each function may do:

  * `ClientPass.start` and `finish` run once per job, `step` once per local step;
  * several passes run one after another in one round, each seeing the aggregates of those before;
  * named contributions are aggregated separately, each with its own weight, and all of them leave
    the client as one message through the uplink (`fljax.core.transforms`);
  * a contribution may say which cluster's sum it is added to (`Contribution.cluster`), and a pass
    which jobs the later ones keep (`ClientPass.select`);
  * a job belongs to a trial, and may start from an older version of its model (`Job.version`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fljax.core.digits import counted
from fljax.core.trees import beside

__all__ = [
    "Aggregate",
    "Algorithm",
    "AlgorithmSpec",
    "Chosen",
    "ClientPass",
    "Contribution",
    "Job",
    "OptimizerFactory",
    "Variables",
    "blank_job",
    "sent_params",
    "step_key",
]

PyTree = Any
# A server or client optimizer may be given as (hparams) -> optax.GradientTransformation.
OptimizerFactory = Callable[[Mapping[str, jax.Array]], optax.GradientTransformation]


class Variables(NamedTuple):
    """The parameters and the state of a model, without its frozen constants.

    Attributes:
      params: Pytree of trained parameters.
      model_state: Pytree of statistics that training updates, such as BatchNorm's; often empty.

    Example:
      >>> Variables({"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}, {})
      Variables(15 parameters in 2 arrays)
    """

    params: PyTree
    model_state: PyTree

    def __repr__(self) -> str:
        params, state = jax.tree.leaves(self.params), jax.tree.leaves(self.model_state)
        size = counted(sum(map(np.size, params)), "parameter")
        also = ", and a model state" if state else ""
        return f"Variables({size} in {counted(len(params), 'array')}{also})"


class Job(NamedTuple):
    """One client's local work in one round, as the functions of a pass see it.

    All fields are scalars; the engine adds axes with vmap.

    Attributes:
      client: int32 client number (-1 for padding).
      position: int32 place in the cohort.
      trial: int32 index of the trial that it belongs to.
      version: int32 staleness, how many versions of the trial's model have followed the one that
        the job starts from; 0 for the newest.
      rows: int32 number of the client's training rows.
      steps: int32 number of local steps of this pass.
      step: int32 step within the job; valid in `step` only.
      round: int32 round number.
      occurrence: int32, how often the client appeared earlier in the same cohort.
      accepted: bool, false if the client was lost after its work, or an earlier pass did not select
        it: nothing of it is kept.
      group: int32 group of the client (hospital, domain, ...).
      key: typed PRNG key of (seed, round, client, occurrence).
      weight: float32, the client's weight in averages where the run gives clients weights of their
        own (`client_weights`), else None; an algorithm takes it instead of a rule such as `rows`.
      weights: {name: weight} of the job's contributions, for the transforms of the uplink; None
        elsewhere.
      attacker: bool, whether the client is hostile in this round; None where a run has none such.

    Example:
      >>> job = blank_job(jax.random.key(0))._replace(client=jnp.int32(7), rows=jnp.int32(20))
      >>> Contribution({"w": jnp.ones(2)}, weight=job.rows).weight.tolist()
      20
    """

    client: jax.Array
    position: jax.Array
    trial: jax.Array
    version: jax.Array
    rows: jax.Array
    steps: jax.Array
    step: jax.Array
    round: jax.Array
    occurrence: jax.Array
    accepted: jax.Array
    group: jax.Array
    key: jax.Array
    weight: jax.Array | None = None
    weights: Mapping[str, PyTree] | None = None
    attacker: jax.Array | None = None


def blank_job(key: jax.Array, weight: jax.Array | None = None) -> Job:
    """Returns a job whose numbers are all zero, for tracing what is done with one.

    Example:
      >>> job = blank_job(jax.random.key(0))
      >>> int(job.client), bool(job.accepted)
      (0, True)
    """
    numbers = dict.fromkeys(Job._fields, jnp.zeros((), jnp.int32))
    nothing = {"weights": None, "attacker": None}
    return Job(**numbers | {"accepted": jnp.bool_(True), "key": key, "weight": weight} | nothing)


def step_key(job: Job) -> jax.Array:
    """Returns the key of one local step: (seed, round, client, occurrence, step).

    Example:
      >>> job = blank_job(jax.random.key(0))
      >>> bool((step_key(job) == step_key(job._replace(step=jnp.int32(1)))).all())
      False
    """
    return jax.random.fold_in(job.key, job.step)


class Contribution(NamedTuple):
    """A value and a weight that one job hands to an accumulator.

    Attributes:
      value: Pytree of numbers; integers and truth values are averaged as floating-point numbers.
      weight: Scalar, or a pytree that is a prefix of `value` (sub-models).
      cluster: int32 scalar, computed on the device: which of the pass's `num_clusters` sums it is
        added to; None where there is one. A number out of range rejects the job.
      bits: uint32 scalar, the bits of what is sent where that is less than all of `value`; None
        where all of it is. Where a link of the uplink covers the value, the link counts.

    Example:
      >>> update = Contribution({"w": jnp.array([0.5, -0.5])}, weight=jnp.int32(20))
      >>> update.cluster is None
      True
    """

    value: PyTree
    weight: PyTree
    cluster: jax.Array | None = None
    bits: jax.Array | None = None


class Aggregate(NamedTuple):
    """Weighted sums over the jobs of a trial.

    Of contributions that say their cluster, all leaves have a leading axis over clusters.

    Attributes:
      sum: Pytree like `Contribution.value`, the sum of weight x value, in float32 at least.
      weight: Like `Contribution.weight`, the sum of weights.
      count: float32, the number of jobs that contributed.

    Example:
      >>> two_clusters = Aggregate(jnp.array([[2.0], [9.0]]), jnp.array([1.0, 3.0]), jnp.ones(2))
      >>> two_clusters.mean().tolist()
      [[2.0], [3.0]]
    """

    sum: PyTree
    weight: PyTree
    count: jax.Array

    def mean(self) -> PyTree:
        """Returns the weighted mean, zero where no weight arrived."""
        return jax.tree.map(
            lambda weight, value: jax.tree.map(
                lambda v: v / beside(jnp.where(weight == 0, 1, weight).astype(v.dtype), v), value
            ),
            self.weight,
            self.sum,
        )

    def of_members(self, members: jax.Array) -> Aggregate:
        """Returns the sums of clusters, each of them over several sums of this.

        Args:
          members: [K, num_clusters] of zeros and ones, which sums make up each of K clusters.

        Example:
          >>> weights = jnp.array([1.0, 3.0, 1.0])
          >>> clients = Aggregate(jnp.array([2.0, 9.0, 4.0]), weights, jnp.ones(3))
          >>> clients.of_members(jnp.array([[1, 0, 1], [0, 1, 0]])).mean().tolist()
          [3.0, 3.0]
        """
        return jax.tree.map(lambda leaf: jnp.tensordot(members.astype(leaf.dtype), leaf, 1), self)


class Chosen(NamedTuple):
    """The jobs that a rule keeps, where their updates count unequally.

    Attributes:
      kept: bool[P] which jobs later passes keep, in cohort order.
      scale: float[P] factors of what the server takes in of their updates, as those of
        `fljax.core.sampler.Selection`; weights stay what they are.

    Example:
      >>> Chosen(jnp.array([True, False]), scale=jnp.array([2.0, 1.0])).kept.tolist()
      [True, False]
    """

    kept: jax.Array
    scale: jax.Array


class ClientPass(NamedTuple):
    """One traversal of the cohort's data.

    Attributes:
      broadcast: (server_state, aggregates so far) -> message. None, behind a first pass: clients
        still have the message of the pass before, and receive nothing.
      start: (message, client_state, job) -> carry.
      step: (message, carry, batch, job) -> carry.
      finish: (message, carry, job) -> ({name: Contribution}, client_state', stats). `stats` is a
        flat dict of scalars, summed over jobs into the round's metrics. `client_state'` is kept
        only if the job was accepted and everything is finite, the state too where it was before;
        a job that is not takes no part in later passes.
      schedule: "local" runs the configured local work (epochs or steps, shuffled); "epoch" reads
        every row exactly once; a number runs so many local epochs, whatever is configured.
      num_clusters: How many sums there are for contributions that say their cluster. A client of
        IFCA (Ghosh et al. 2020, arXiv:2006.04088) sends `Contribution(update, weight, cluster)`,
        and the server updates its models from an Aggregate with leaves [num_clusters, ...].
      sums_of: What these sums belong to, as messages name it: "cluster", or, where a server looks
        at clients one by one and there is one model, "client" or "group".
      members: (server_state) -> [K, num_clusters] of zeros and ones, the sums that make up each of
        K clusters, where the server keeps finer sums than those of its clusters; what records say
        of drift is about clusters. None where each sum is a cluster.
      repeats: Whether a client goes over its rows again, for a pass that sends nothing, or None:
        (client_state) -> bool, of the state that the pass has left. The pass starts once more from
        that state, for those who ask for it, until nobody does; it must come to an end. The rows
        are the same and in the same order, and so are the job's keys.
      select: A rule that decides on the devices which jobs the later passes keep, or None: ({name:
        [P]} statistics of the pass, bool[P] which of them arrived) -> bool[P] in cohort order, or a
        `Chosen`. Beside what the pass reports there is "lot", a random number of each job between
        0 and 1, for rules that draw. Of a job that is left out the later passes count nothing, and
        its client's state stays as this pass left it. The half with the largest loss (Cho et al.
        2020, arXiv:2010.01243):

        >>> def select(stats, arrived):
        ...     loss = jnp.where(arrived, stats["loss"] / stats["weight"], -jnp.inf)
        ...     return jnp.argsort(jnp.argsort(-loss)) < arrived.sum() // 2
        >>> stats = {"loss": jnp.array([4.0, 9.0, 1.0]), "weight": jnp.array([4.0, 3.0, 1.0])}
        >>> select(stats, arrived=jnp.array([True, True, False]))
        Array([False,  True, False], dtype=bool)
    """

    broadcast: Callable[[PyTree, Mapping[str, Aggregate]], PyTree] | None
    start: Callable[[PyTree, PyTree, Job], PyTree]
    step: Callable[[PyTree, PyTree, PyTree, Job], PyTree]
    finish: Callable[[PyTree, PyTree, Job], tuple[dict[str, Contribution], PyTree, dict]]
    schedule: str | int = "local"
    num_clusters: int = 1
    sums_of: str = "cluster"
    members: Callable[[PyTree], jax.Array] | None = None
    select: Callable[[dict[str, jax.Array], jax.Array], jax.Array | Chosen] | None = None
    repeats: Callable[[PyTree], jax.Array] | None = None


class Algorithm(NamedTuple):
    """A federated algorithm, built for one task and one set of (traced) hyperparameters.

    Attributes:
      init: (variables) -> server_state, `variables` being the task's initial `Variables`; called
        inside a trace, as all others but `variables` and `init_client` are.
      passes: One or more `ClientPass`, run in order within a round.
      server_update: (server_state, {name: Aggregate}, round) -> server_state'.
      variables: (server_state) -> `Variables` of the global model, for evaluation.
      init_client: (variables) -> client_state of a client that never took part, whatever the
        hyperparameters, which trials have of their own; None if the algorithm keeps nothing per
        client.
      personalize: (server_state, client_state, batch, key) -> `Variables` of a client's own model,
        which is judged on held-out rows of that client. `batch` is all its training rows in one
        batch, with padding behind; `key` is a key of seed, round and client. None if clients use
        the global model.
      tune: (server_state, model, batch) -> model', which chooses numbers of what `personalize` made
        by the client's own validation rows, all of them in one batch; these must be others than
        the rows it is judged on. A client that has none gets a batch whose mask is false. None if
        nothing is chosen in this way.
      cluster: (server_state, client_state) -> int32, the cluster of a client, -1 before it has one;
        results of clients' own models tell it. None if the algorithm has no clusters.
      initial_models: How many models the server starts from, each of a key of its own: of several,
        `init` gets leaves with a leading axis over them, the first of which is the run's initial
        model, which `init_client` gets.
      predict: (server_state, model, batch) -> outputs such as the task's model has, of what
        `personalize` made: for clients whose predictors are more than a model. It is then a
        NamedTuple of `params`, `model_state` and what else there is. None if the model predicts.
      combine: A rule that makes the mean "update" of all updates of the cohort: (stack[P, d],
        `fljax.core.transforms.Cohort`) -> value[d], as an aggregator that needs a stack has it.
        None for the weighted mean.
      shared: (variables) -> the part of them that clients send changes of, with None in the place
        of other leaves; None is all of them. State of transforms is made for its parameters.
      has_global_model: False where clients share none. Evaluations of everybody's rows are then the
        mean over some clients' own models; `personalize` gives these without batch and key.

    Example:
      >>> spec = algorithms.fedavg(client_lr=0.1)
      >>> task = tasks.classification(models.softmax_regression(4, 3), num_classes=3)
      >>> algorithm = spec.build(task, {**spec.hparams, "num_clients": 10})
      >>> params, _, model_state = task.init(jax.random.key(0))
      >>> server = algorithm.init(Variables(params, model_state))
      >>> len(algorithm.passes), algorithm.variables(server)
      (1, Variables(15 parameters in 2 arrays))
    """

    init: Callable[[PyTree], PyTree]
    passes: tuple[ClientPass, ...]
    server_update: Callable[[PyTree, Mapping[str, Aggregate], jax.Array], PyTree]
    variables: Callable[[PyTree], PyTree]
    init_client: Callable[[PyTree], PyTree] | None = None
    personalize: Callable[[PyTree, PyTree, PyTree, jax.Array], PyTree] | None = None
    has_global_model: bool = True
    cluster: Callable[[PyTree, PyTree], jax.Array] | None = None
    shared: Callable[[PyTree], PyTree] | None = None
    initial_models: int = 1
    predict: Callable[[PyTree, PyTree, PyTree], PyTree] | None = None
    combine: Callable[[jax.Array, Any], jax.Array] | None = None
    tune: Callable[[PyTree, PyTree, PyTree], PyTree] | None = None


def check_passes(algorithm: Algorithm) -> None:
    """Raises ValueError where the clients of the first pass would have no message."""
    if algorithm.passes[0].broadcast is None:
        raise ValueError("the first pass has no `broadcast`, so its clients would have no message")


def sent_params(algorithm: Algorithm, variables: Variables) -> PyTree:
    """Returns the parameters that clients send changes of.

    Example:
      >>> spec = algorithms.fedavg(client_lr=0.1)
      >>> task = tasks.classification(models.softmax_regression(4, 3), num_classes=3)
      >>> algorithm = spec.build(task, {**spec.hparams, "num_clients": 10})
      >>> params, _, model_state = task.init(jax.random.key(0))
      >>> sorted(sent_params(algorithm, Variables(params, model_state))) == sorted(params)
      True
    """
    return (variables if algorithm.shared is None else algorithm.shared(variables)).params


class Facts(NamedTuple):
    """Facts on the host about those who will train.

    Attributes:
      rows: int64[N] training rows of each client.
      client_weights: float64[N] their weights in averages, where the user gives them, else None.
      groups: int64[N] their groups, the first of the data set's; zeros without.
      cohort_size: Clients of a round.
    """

    rows: np.ndarray
    client_weights: np.ndarray | None
    groups: np.ndarray
    cohort_size: int


class AlgorithmSpec(NamedTuple):
    """A named recipe: what `simulate` takes.

    Attributes:
      name: Shown in records.
      build: (task, hparams) -> Algorithm, called inside the trace; `hparams` has `num_clients` too,
        the number of clients that ever take part.
      hparams: {name: number}; passed to the compiled program as arguments.
      client_optimizer: hparams -> the optax optimizer of the clients' local steps, which the
        baselines use as well; None for algorithms without local steps.
      defaults: {name: number} of hyperparameters that nobody need give. All others must be read by
        what `build` makes, or nothing starts: a number that nothing reads was given in vain.
      keeps_optimizer: Whether clients keep the state of that optimizer from round to round. Where
        it starts anew in each round, an optimizer with a schedule is refused.
      caution: (hparams, Facts) -> what to beware of with such numbers, which is warned of before
        the first round, or None.
      judging: {argument: value} of what was given that only clients' own models read, where they
        are judged; a run that judges none refuses it.

    Example:
      >>> spec = algorithms.fedprox(mu=0.1)
      >>> spec.name, sorted(spec.hparams)
      ('fedprox', ['client_lr', 'mu', 'server_lr'])
    """

    name: str
    build: Callable[[Any, Mapping[str, jax.Array]], Algorithm]
    hparams: Mapping[str, float]
    client_optimizer: OptimizerFactory | None = None
    defaults: Mapping[str, float] = {}
    keeps_optimizer: bool = False
    caution: Callable[[Mapping[str, float], Facts], str | None] | None = None
    judging: Mapping[str, Any] = {}

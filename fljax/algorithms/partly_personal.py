"""Models of which clients share a part and keep the rest: what these algorithms have in common.

FedAvg trains the shared part. The rest stays with the client from round to round: it is neither
sent nor received, so that it costs no traffic, and compressors and privacy see what is sent. The
algorithms differ in

    what is a client's own          `personal`, a filter as in `fljax.core.personal`
    what trains at which step       `trained`: all of the model, or one part after the other
    what a client's model is        the two parts; or trained further on its own rows where judged

Pillutla et al. 2022, "Federated learning with partial model personalization" (arXiv:2204.03809),
compare such algorithms. Where each client has a part of its own, there is no global model: what
`variables` gives is the shared part with that which every client starts with, and rows of everybody
are judged by the mean over some clients' models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fljax.algorithms.adaptation import adapted, only, selected
from fljax.algorithms.fedavg import ServerState, contributions, fedavg
from fljax.algorithms.optimizer_arguments import check_idle, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Job, Variables
from fljax.core.gradients import LocalTask
from fljax.core.personal import Filter, check_filter, chosen, like_part, part_of, rest_of, together
from fljax.core.precision import difference, state_change
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any
# (which parameters are a client's own, hparams, job) -> which of them train in a step
Trained = Callable[[PyTree, Any, Job], PyTree]


class Tuning(NamedTuple):
    """Further training of a client's model where it is judged.

    Attributes:
      finetune: What changes; None is what is usual.
      epochs: How often each of the client's rows is read; 0 leaves the model as it is.
      lr: Learning rate; None is the one of the clients.
      batch_size: Rows of a step; 0 takes all at once.
      usual: What changes by default; None is what is a client's own.
      usual_epochs: How many epochs there are by default.
    """

    finetune: Filter | None = None
    epochs: int = 0
    lr: float | None = None
    batch_size: int = 20
    usual: Filter | None = None
    usual_epochs: int = 0


class PartlyPersonal(NamedTuple):
    """FedAvg's server, which knows the shared part, and what every client's own part starts as."""

    server: ServerState
    first: Variables


def partly_personal(
    name: str,
    personal: Filter,
    tuning: Tuning,
    client_lr: float,
    server_lr: float,
    options: dict[str, Any],
    *,
    trained: Trained | None = None,
    keeps_own: bool = True,
    **own: float,
) -> AlgorithmSpec:
    """Returns FedAvg of a part of the model.

    Args:
      name: Shown in records.
      personal: What stays with clients.
      tuning: What becomes of a client's model where it is judged.
      client_lr, server_lr: Learning rates.
      options: Further arguments of `fedavg`.
      trained: What trains in a step; None for all of the model.
      keeps_own: Whether what stays with clients is trained, so that their models differ.
      **own: The algorithm's own hyperparameters.

    Raises:
      ValueError: If a filter is none, or a number is out of range.
    """
    check_filter("personal", personal)
    _check(tuning)
    judging = _judging(tuning)
    base = fedavg(client_lr, server_lr, name=name, **options)
    build_fedavg, client_optimizer = base.build, base.client_optimizer
    further = hyperparameters(name, own, finetune_lr=tuning.lr)
    # what `build` holds tells programs apart, and numbers that are traced do not
    has_rate, tuning = tuning.lr is not None, tuning._replace(lr=None)

    def build(task: LocalTask, hp) -> Algorithm:
        averaging, known = build_fedavg(task, hp), {}
        rate = {"client_lr": hp["finetune_lr"]} if has_rate else {}
        local = averaging.passes[0]

        def found(name: str, part: Filter, variables: Variables) -> Variables:
            """Returns which leaves a filter means, found once."""
            if name not in known:
                known[name] = chosen(name, part, task, variables)
            return known[name]

        def own_of(variables: Variables) -> Variables:
            return found("personal", personal, variables)

        def tuned(variables: Variables) -> PyTree:
            """Returns which parameters are trained further where a client's model is judged."""
            part = tuning.usual if tuning.finetune is None else tuning.finetune
            if part is None:
                return own_of(variables).params
            return found("finetune", part, variables).params

        def init(variables: Variables) -> PartlyPersonal:
            mask = own_of(variables)
            if tuning.epochs:
                tuned(variables)  # what the model does not have is refused now
            return PartlyPersonal(
                averaging.init(rest_of(variables, mask)), part_of(variables, mask)
            )

        def start(shared: Variables, own: Variables, job: Job):
            return local.start(together(shared, own), (), job)

        def step(shared: Variables, carry, batch, job: Job):
            whole = together(shared, Variables(carry.params, carry.model_state))
            if trained is None:
                return local.step(whole, carry, batch, job)
            mask = trained(own_of(whole).params, hp, job)
            masked = build_fedavg(with_trained(task, mask), hp).passes[0]
            new = masked.step(whole, carry, batch, job)
            return new._replace(params=selected(mask, new.params, carry.params))

        def finish(shared: Variables, carry, job: Job):
            now = Variables(carry.params, carry.model_state)
            sent, _, stats = local.finish(together(shared, now), carry, job)
            own = part_of(now, own_of(now))
            if not jax.tree.leaves(shared):
                return {}, own, stats
            params, state = like_part(now, shared)
            change = state_change(state, shared.model_state, task.state_changes)
            update = difference(params, shared.params)
            return contributions(update, change, sent["update"].weight), own, stats

        def server_update(state: PartlyPersonal, aggregates, round) -> PartlyPersonal:
            if not aggregates:
                return state
            return state._replace(server=averaging.server_update(state.server, aggregates, round))

        def personalize(state: PartlyPersonal, own: Variables, batch, key) -> Variables:
            variables = together(averaging.variables(state.server), own)
            if not tuning.epochs or batch is None:
                return variables
            optimizer = client_optimizer({**hp, **rate})
            return adapted(
                task, optimizer, variables, batch, key, epochs=tuning.epochs,
                batch_size=tuning.batch_size, trained=tuned(variables),
            )  # fmt: skip

        return Algorithm(
            init=init,
            passes=(
                ClientPass(
                    broadcast=lambda state, aggregates: averaging.variables(state.server),
                    start=start,
                    step=step,
                    finish=finish,
                ),
            ),
            server_update=server_update,
            variables=lambda state: together(averaging.variables(state.server), state.first),
            init_client=lambda variables: part_of(variables, own_of(variables)),
            personalize=personalize,
            has_global_model=personal == "none" or not keeps_own,
            shared=lambda variables: rest_of(variables, own_of(variables)),
        )

    values = {**base.hparams, **further}
    return AlgorithmSpec(name, build, values, client_optimizer, base.defaults, judging=judging)


def _check(tuning: Tuning) -> None:
    """Raises ValueError for what is out of range, or has no effect."""
    for name in ("epochs", "batch_size"):
        key = f"finetune_{name}"
        checked(key, getattr(tuning, name), ALGORITHM[key]._replace(optional=False))
    if tuning.finetune is not None:
        check_filter("finetune", tuning.finetune)
    if tuning.epochs:
        return
    given = _judging(tuning)
    given.pop("finetune_epochs", None)
    check_idle(given, "finetune_epochs = 0", "set finetune_epochs")


def _judging(tuning: Tuning) -> dict[str, Any]:
    """Returns {argument: value} of what was given; no epochs leave nothing to be said of them."""
    table = {
        "finetune": (tuning.finetune, None),
        "finetune_epochs": (tuning.epochs or tuning.usual_epochs, tuning.usual_epochs),
        "finetune_lr": (tuning.lr, None),
        "finetune_batch_size": (tuning.batch_size, Tuning().batch_size),
    }
    return {name: value for name, (value, usual) in table.items() if value != usual}


def with_trained(task: LocalTask, trained: PyTree) -> LocalTask:
    """Returns a task whose gradients are zero where nothing is trained."""

    def gradient(params, model_state, batch, key):
        grads, sums, model_state = task.gradient(params, model_state, batch, key)
        return only(grads, trained), sums, model_state

    return task._replace(gradient=gradient)

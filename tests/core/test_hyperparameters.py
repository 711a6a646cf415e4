"""Hyperparameters that nobody reads are refused; Python checks numbers as configurations do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import fljax
from fljax import algorithms
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.settings import ALGORITHM

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


def simulate(spec, **options):
    defaults = {"num_rounds": 2, "clients_per_round": 3, "batch_size": 4, "progress": False}
    parts = toy.clients(dtype=np.float32)
    return fljax.simulate(
        toy.dataset(parts), toy.softmax_task(np.float32), spec, **(defaults | options)
    )


def sgd(hp):
    return optax.sgd(hp["client_lr"])


def lazy(hp):
    """Reads `scale` where it steps, not where it is made."""

    def update(grads, state, params=None):
        return jax.tree.map(lambda g: -hp["client_lr"] * hp["scale"] * g, grads), state

    return optax.GradientTransformation(lambda params: (), update)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: algorithms.fedavg(0.1, momentum=0.9), "'momentum'.*called 'client_momentum'"),
        (lambda: algorithms.fedavg(learning_rate=0.1), "called 'client_lr'"),
        (lambda: algorithms.fedavg(sever_lr=0.1), "Did you mean 'server_lr'"),
        (lambda: algorithms.fedprox(0.1, prox_mu=0.1), "fedprox.*called 'mu'"),
        (
            lambda: algorithms.fedopt("adam", eta=0.1),
            "Flower's name; here it is called 'server_lr'",
        ),
        (lambda: algorithms.fedsgd(0.1, client_lr=0.1), "fedsgd has no.*'client_lr'"),
        (lambda: algorithms.local_only(0.1, mu=0.1), "local_only has no.*'mu'"),
        (lambda: algorithms.fedavg(num_clients=3, client_optimizer=sgd), "set by the run itself"),
    ],
)
def test_hyperparameters_that_nothing_could_read_are_refused_at_once(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (algorithms.fedavg(0.1, decay=0.5, client_optimizer=sgd), "decay"),
        (algorithms.fedavg(0.5, client_optimizer=lambda hp: optax.sgd(0.1)), "client_lr"),
        (algorithms.fedavg(client_momentum=0.5, client_optimizer=sgd), "client_momentum"),
        (algorithms.fedavg(scale=0.5, decay=0.5, client_optimizer=lazy), "decay"),
        (algorithms.fedsgd(nu=1.0, server_optimizer=lambda hp: optax.sgd(hp["server_lr"])), "nu"),
        (algorithms.fedavg()._replace(hparams={"client_lr": 0.1, "server_lr": 1, "own": 3}), "own"),
    ],
)  # fmt: skip
def test_hyperparameters_that_nothing_reads_are_refused_before_the_first_round(spec, name):
    rounds = []
    with pytest.raises(TypeError, match=f"nothing reads the hyperparameter {name} = "):
        simulate(spec, hooks=[lambda federation, record: rounds.append(record)])
    assert not rounds


@pytest.mark.parametrize(
    "spec",
    [
        algorithms.fedavg(0.1, scale=0.5, client_optimizer=lazy),
        algorithms.fedavg(client_optimizer=lambda hp: optax.sgd(0.1)),  # nobody gave client_lr
        algorithms.fedavg(
            rate=0.1, client_optimizer=lambda hp: optax.sgd(jax.tree.map(jnp.negative, hp)["rate"])
        ),
    ],
)
def test_hyperparameters_may_be_read_late_or_all_at_once(spec):
    assert simulate(spec, num_rounds=1).summary["rounds"] == 1


def test_baselines_need_not_read_the_servers_numbers():
    run = simulate(algorithms.fedopt("adam", 0.1), baselines=("centralized", "local_only"))
    assert set(run.baselines) == {"centralized", "local_only"}


WRONG = [-0.1, "0.1", True, np.nan, np.inf, None, [0.1], np.ones(2), 10**400, 1e-60, {}, len]


@pytest.mark.parametrize("name", ["client_lr", "server_lr", "mu", "client_momentum"])
@pytest.mark.parametrize("value", WRONG, ids=str)
def test_numbers_are_checked_with_the_table_of_configurations(name, value):
    if value is None and name in ("mu", "client_momentum"):
        return  # switched off
    with pytest.raises(ValueError, match=f"{name} = .* must be "):
        algorithms.fedavg(**{name: value})


@pytest.mark.parametrize("name", ["beta1", "beta2", "tau", "server_momentum"])
def test_numbers_of_server_optimizers_are_checked(name):
    kind = "momentum" if name == "server_momentum" else "adam"
    too_large = 1.0 if ALGORITHM[name].allowed.high == 1 else np.inf
    for value in (-1, too_large, "x", False):
        with pytest.raises(ValueError, match=f"{name} = .* must be "):
            algorithms.fedopt(kind, **{name: value})
    unused = {"adam": "momentum", "momentum": "adam"}[kind]
    with pytest.raises(ValueError, match=f"{name} = 0.5 has no effect with server_optimizer"):
        algorithms.fedopt(unused, **{name: 0.5})


def test_scalars_of_numpy_and_jax_are_numbers():
    for value in (np.float64(0.25), jnp.float32(0.25), np.array(0.25)):
        hparams = algorithms.fedavg(value).hparams
        assert hparams["client_lr"] == 0.25 and type(hparams["client_lr"]) is float


def test_traced_numbers_pass():
    def rate(client_lr):
        return algorithms.fedavg(client_lr).hparams["client_lr"] * 2

    assert jax.jit(rate)(0.5) == 1.0


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda round: 0.5 - round, "gives -0.5 in round 1"),
        (lambda round: 1 / jnp.maximum(1 - round, 0), "gives inf in round 1"),
        (lambda round: jnp.ones(2), r"gives float32\[2\]"),
        (lambda round: 1.0 if round < 1 else 0.5, "cannot be traced"),
        (lambda: 1.0, "cannot be traced"),
        (lambda round: "a", "cannot be traced"),
        (lambda round: 1j * round, "complex"),
    ],
)
def test_schedules_are_evaluated_over_all_rounds_first(schedule, message):
    with pytest.raises(ValueError, match=f"client_lr_schedule.*{message}"):
        simulate(algorithms.fedavg(0.1), client_lr_schedule=schedule)


def test_a_schedule_of_a_rate_that_nobody_has_is_refused():
    with pytest.raises(ValueError, match="client_lr_schedule has no effect"):
        simulate(algorithms.fedsgd(0.1), client_lr_schedule=lambda round: 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: algorithms.fedavg(client_optimizer=optax.sgd(0.1)), "must be a function of"),
        (lambda: algorithms.fedavg(server_optimizer="adam"), "'adam' .str. must be a function"),
        (lambda: simulate(algorithms.fedavg(client_optimizer=optax.sgd)), "cannot be called with"),
        (lambda: simulate(algorithms.fedavg(client_optimizer=lambda hp: None)), "no optax"),
        (
            lambda: simulate(algorithms.fedavg(client_optimizer=lambda hp: optax.sgd(hp["lr"]))),
            "reads the hyperparameter 'lr', which nobody gave.*called 'client_lr'",
        ),
        (
            lambda: simulate(algorithms.fedavg(client_optimizer=lambda hp: optax.lbfgs(0.1))),
            "client_optimizer asks for the value of the loss, as optax.lbfgs",
        ),
        (
            lambda: simulate(
                algorithms.fedavg(
                    server_optimizer=lambda hp: optax.chain(
                        optax.sgd(hp["server_lr"]), optax.contrib.reduce_on_plateau()
                    )
                )
            ),
            "server_optimizer asks for the value of the loss.*reduce_on_plateau",
        ),
        (lambda: algorithms.fedopt(lambda hp: optax.sgd(0.1)), "fljax.algorithms.fedavg"),
        (lambda: algorithms.fedopt(optax.sgd(0.1)), "fljax.algorithms.fedavg"),
    ],
)  # fmt: skip
def test_optimizers_of_another_kind_are_refused_with_the_remedy(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_an_algorithm_is_a_spec():
    for algorithm in (algorithms.fedavg, optax.sgd(0.1), {}, 3):
        with pytest.raises(TypeError, match="algorithm = .* is no algorithm"):
            simulate(algorithm)
    for algorithm in ("", "fedavgg"):
        with pytest.raises(ValueError, match="algorithm = .*fedavg"):
            simulate(algorithm)
    with pytest.raises(TypeError, match="function `build`"):
        simulate(AlgorithmSpec("mine", None, {}))
    with pytest.raises(ValueError, match="own = nan must be finite"):
        simulate(algorithms.fedavg()._replace(hparams={"own": np.nan}))

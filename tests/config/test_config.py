"""Configurations: every key is known, checked, and explained when it is wrong."""

from __future__ import annotations

import copy
import json
import math
import pickle

import numpy as np
import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.config import (
    ConfigError,
    UnknownKeyError,
    check_overrides,
    default_config,
    load_config,
    resolve,
    to_plain,
)
from fljax.config.command_line import define_config
from fljax.config.schema import FIELDS
from fljax.core.names import FOREIGN_NAMES
from fljax.core.values import Field, Interval

# Options take any key; the other groups have a table of their own.
LEAVES = {name: field for name, field in FIELDS.items() if isinstance(field, Field)}
LEAVES |= {
    f"{group}.{name}": field
    for group in ("wandb", "mlflow")
    for name, field in FIELDS[group].items()
}
NUMBERS = {name: field for name, field in LEAVES.items() if isinstance(field.allowed, Interval)}
CHOICES = {name: field for name, field in LEAVES.items() if isinstance(field.allowed, tuple)}

CONFIG_FILE = """
from fljax.config import default_config

def get_config(dataset="mnist"):
    config = default_config()
    config.dataset = dataset
    config.model_options.hidden = 64
    {line}
    return config
"""


@pytest.fixture
def config_file(tmp_path):
    def write(line="config.client_lr = 0.05"):
        path = tmp_path / "experiment.py"
        path.write_text(CONFIG_FILE.format(line=line))
        return str(path)

    return write


def nested(path, value):
    """Returns {"a": {"b": value}} for the path "a.b"."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def test_defaults_are_valid_and_complete():
    resolved = resolve(default_config())
    assert set(resolved) == set(FIELDS)
    assert resolved == resolve({})


def test_resolve_sets_what_follows():
    resolved = resolve(
        {"num_rounds": 50, "client_lr_schedule": "cosine", "client_lr_warmup_rounds": 10}
    )
    assert (resolved.local_epochs, resolved.local_steps) == (1, None)
    assert resolved.num_clients == 100
    assert resolved.client_lr_decay_rounds == 40
    assert resolve({"partition": "natural"}).num_clients is None
    assert resolve({"batch_size": None}).batch_size == 0
    steps = resolve({"local_steps": 7, "local_epochs": 0})
    assert (steps.local_epochs, steps.local_steps) == (None, 7)


def test_resolve_leaves_its_argument_alone():
    config = default_config()
    before = to_plain(config)
    resolve(config)
    assert to_plain(config) == before


@settings(max_examples=40)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "num_clients": st.one_of(st.none(), st.integers(10, 1000)),
            "partition": st.sampled_from(["natural", "dirichlet"]),
            "batch_size": st.one_of(st.none(), st.integers(0, 100)),
            "client_lr": st.floats(1e-6, 10),
            "local_epochs": st.integers(1, 5),
            "server_lr_schedule": st.sampled_from(["constant", "cosine"]),
            "baselines": st.lists(st.sampled_from(["centralized", "local_only"]), unique=True),
            "dataset_options": st.dictionaries(st.sampled_from("abc"), st.integers()),
            "wandb": st.fixed_dictionaries({}, optional={"project": st.text()}),
        },
    )
)
def test_resolving_twice_changes_nothing(values):
    once = resolve(values)
    assert resolve(once) == once
    plain = to_plain(once)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert resolve(plain) == once


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_outside_their_interval_are_refused(name):
    allowed = NUMBERS[name].allowed
    step = 1 if NUMBERS[name].kind is int else 1e-3
    outside = [allowed.low if allowed.low_open else allowed.low - step]
    if allowed.high < math.inf:
        outside.append(allowed.high if allowed.high_open else allowed.high + step)
    for value in outside:
        with pytest.raises(ConfigError, match=f"{name} = "):
            resolve(nested(name, value))


@pytest.mark.parametrize("name", [name for name, field in NUMBERS.items() if field.kind is float])
def test_floats_must_be_finite(name):
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ConfigError, match=f"{name} = "):
            resolve(nested(name, value))


@pytest.mark.parametrize("name", CHOICES)
def test_unknown_choices_list_the_known_ones(name):
    first = CHOICES[name].allowed[0]
    with pytest.raises(ConfigError, match=f"{name} = '{first}x' is not one of '{first}'.*"):
        resolve(nested(name, first + "x"))


@pytest.mark.parametrize("name", LEAVES)
def test_wrong_types_are_refused(name):
    wrong = 1 if LEAVES[name].kind in (bool, str, tuple, dict) else "1"
    with pytest.raises(ConfigError, match=f"{name} = .* must be "):
        resolve(nested(name, wrong))


def test_numbers_are_converted_where_nothing_is_lost():
    numbers = {"num_rounds": 1e3, "client_lr": 1, "seed": np.int64(3), "sigma": np.float32(1)}
    resolved = resolve({**numbers, "partition": "quantity"})
    assert resolved.num_rounds == 1000 and type(resolved.num_rounds) is int
    assert type(resolved.client_lr) is float
    assert type(resolved.seed) is int and type(resolved.sigma) is float
    with pytest.raises(ConfigError, match="num_rounds = 1.5"):
        resolve({"num_rounds": 1.5})
    with pytest.raises(ConfigError, match="num_rounds = True"):
        resolve({"num_rounds": True})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"clients_per_round": 200}, "num_clients = 100"),
        ({"num_clients": 10, "eval_clients": 11}, "eval_clients = 11"),
        ({"local_epochs": 2, "local_steps": 3}, "local_epochs = 2 and local_steps = 3"),
        ({"local_epochs": 0}, "clients need one of the two"),
        ({"algorithm": "fedsgd", "local_epochs": 2}, "fedsgd"),
        ({"local_epochs": 3, "max_local_epochs": 2}, "max_local_epochs = 2 and local_epochs = 3"),
        ({"local_steps": 3, "local_epochs": 0, "max_local_epochs": 2}, "max_local_epochs = 2 and"),
        ({"mu": 0.1}, "choose 'fedprox'"),
        ({"algorithm": "scaffold", "client_momentum": 0.9}, "client_momentum = 0.9 has no effect"),
        ({"algorithm": "fedsgd", "server_optimizer": "adam"}, "server_optimizer = 'adam' has no"),
        ({"algorithm": "fedsgd", "client_lr": 0.5}, "client_lr = 0.5 has no effect"),
        ({"tau": 0.1}, "tau = 0.1 has no effect with server_optimizer = 'sgd'"),
        ({"server_optimizer": "adagrad", "beta2": 0.5}, "beta2 = 0.5 has no effect"),
        ({"server_optimizer": "adam", "server_momentum": 0.5}, "choose 'momentum'"),
        ({"partition": "iid", "alpha": 0.1}, "alpha = 0.1 has no effect with partition = 'iid'"),
        ({"partition": "natural", "min_partition_size": 3}, "min_partition_size = 3 has no effect"),
        ({"rounds_per_dispatch": 4, "eval_every": 3}, "no effect with eval_every = 3"),
        ({"rounds_per_dispatch": 2, "algorithm": "scaffold"}, "clients that keep nothing"),
        ({"stop_at_target": True}, "target_accuracy"),
        ({"stop_at_target": True, "target_accuracy": 0.9, "eval_every": 0}, "eval_every = 0"),
        ({"client_lr_schedule": "step", "client_lr_decay_rate": 0.1}, "client_lr_decay_rounds"),
        ({"server_lr_schedule": "exponential"}, "server_lr_decay_rate"),
        ({"server_lr_decay_rate": 0.5}, "no effect"),
        ({"client_lr_decay_rounds": 5}, "no effect"),
        ({"num_rounds": 5, "client_lr_warmup_rounds": 5}, "below num_rounds = 5"),
    ],
)
def test_contradictions_are_refused(values, named):
    with pytest.raises(ConfigError, match=named):
        resolve(values)


def test_all_problems_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        resolve({"client_lr": -1, "num_round": 3, "wandb": {"mod": "offline"}})
    message = str(caught.value)
    assert "3 problems" in message
    assert all(part in message for part in ("client_lr = -1", "'num_rounds'", "'wandb.mode'"))


@given(st.sampled_from(sorted(FIELDS)), st.data())
def test_a_dropped_letter_is_understood(name, data):
    position = data.draw(st.integers(0, len(name) - 1))
    typo = name[:position] + name[position + 1 :]
    # Of very short names, such as mu, too little is left to guess.
    if len(name) < 4 or typo in FIELDS or typo in FOREIGN_NAMES:
        return
    with pytest.raises(UnknownKeyError, match="Did you mean '"):
        resolve({typo: 1})


def test_foreign_names_point_to_existing_keys_and_shadow_none():
    for name, (_, ours, _) in FOREIGN_NAMES.items():
        assert name not in FIELDS
        assert ours in FIELDS
        with pytest.raises(UnknownKeyError, match=f"'{name}'.* called '{ours}'"):
            resolve({name: 1})


def test_configs_are_locked_except_for_options():
    config = default_config()
    config.model_options.hidden = 3
    config.dataset_options.noise = 0.1
    assert resolve(config).model_options.hidden == 3
    for group, key, meant in [
        (config, "clientlr", "client_lr"),
        (config.wandb, "projct", "project"),
        (config, "comm_round", "num_rounds"),
    ]:
        with pytest.raises(AttributeError, match=meant):
            setattr(group, key, 1)
        with pytest.raises(AttributeError, match=meant):
            getattr(group, key)
        with pytest.raises(KeyError, match=meant):
            group[key] = 1


def test_configs_can_be_copied_and_pickled():
    config = resolve({"model_options": {"hidden": 3}})
    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_config_that_is_no_mapping_is_refused():
    with pytest.raises(ConfigError, match="default_config"):
        resolve(["client_lr"])


def test_load_config_applies_overrides(config_file):
    overrides = {"client_lr": 0.3, "wandb.mode": "offline", "model_options.depth": 2}
    config = load_config(config_file(), overrides)
    assert (config.dataset, config.client_lr) == ("mnist", 0.3)
    assert config.wandb.mode == "offline"
    assert config.model_options.to_dict() == {"hidden": 64, "depth": 2}
    assert load_config(config_file() + ":digits").dataset == "digits"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("clientlr", "'client_lr'"),
        ("wandb.mod", "'wandb.mode'"),
        ("wanb.mode", "'wandb'"),
        ("client_lr.x", "'client_lr' is a value"),
        ("fraction_fit", "'clients_per_round'"),
    ],
)
def test_unknown_overrides_are_refused(config_file, key, meant):
    path = config_file()
    with pytest.raises(UnknownKeyError, match=meant):
        load_config(path, {key: 1})
    with pytest.raises(UnknownKeyError, match=meant):
        check_overrides(["program", f"--config={path}", f"--config.{key}=1"])
    with pytest.raises(UnknownKeyError, match=meant):
        check_overrides(["program", f"--config.{key}", "1"], default_config())


def test_errors_in_a_config_file_name_the_line(config_file):
    path = config_file("config.clientlr = 0.1")
    with pytest.raises(UnknownKeyError, match=r"experiment\.py, line 8: .*'client_lr'"):
        load_config(path)
    with pytest.raises(UnknownKeyError, match=r"experiment\.py, line 8"):
        check_overrides(["program", "--config", path])


def test_other_errors_of_a_config_file_pass_through(config_file):
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        load_config(config_file("math = 1; math.nothing"))


def test_files_without_a_config_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_config(tmp_path / "nowhere.py")
    path = tmp_path / "empty.py"
    path.write_text("")
    with pytest.raises(ConfigError, match="get_config"):
        load_config(path)
    path.write_text("def get_config(): pass")
    with pytest.raises(ConfigError, match="returned None"):
        load_config(path)


def test_known_overrides_pass_the_check(config_file):
    path = config_file()
    known = ["--noconfig.shuffle", "--config.model_options.any=1", "--config.wandb.name=x", "--x"]
    check_overrides(["program", f"--config={path}", *known])
    check_overrides(["program", "--other=1"])


@pytest.mark.filterwarnings("ignore:the load_module")
def test_command_line_overrides_reach_the_config(config_file):
    """The flag is declared as scripts declare it; unset keys take a value of their type."""
    argv = [
        "program",
        f"--config={config_file()}",
        "--config.client_lr=0.5",
        "--config.local_steps=3",
        "--config.target_accuracy=0.9",
        "--noconfig.shuffle",
        "--config.baselines=centralized",
        "--config.wandb.mode=offline",
        "--config.model_options.depth=2",
    ]
    values = flags.FlagValues()
    flag = define_config(values, argv)
    values(argv)
    resolved = resolve(flag.value)
    assert (resolved.client_lr, resolved.local_steps, resolved.local_epochs) == (0.5, 3, None)
    assert (resolved.target_accuracy, resolved.shuffle) == (0.9, False)
    assert (resolved.baselines, resolved.wandb.mode) == (("centralized",), "offline")
    assert resolved.model_options.to_dict() == {"hidden": 64, "depth": 2}


def test_the_published_matrix_takes_other_models_and_its_masks_follow_the_seed():
    own = load_config("bucketing_mnist", {"seed": 2})
    assert own.model == "bucketing_mnist:official_cnn(mask_seed=2)"
    other = load_config("bucketing_mnist", {"seed": 2, "model": "emnist_cnn"})
    assert other.model == "emnist_cnn" and not other.model_options

"""Configurations that no run could be made of are refused in one sentence, before any data."""

import pytest

import fljax
from fljax.config import ConfigError, resolve
from fljax.config.experiment import make_experiment

BASE = {"num_clients": 20, "clients_per_round": 4, "num_rounds": 3, "partition": "iid"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"local_steps": 2**70}, "local_steps = .* must be at most 2147483647"),
        ({"num_rounds": 10**400}, "num_rounds = a number of 1329 bits must be at most"),
        ({"client_lr_schedule": "step", "client_lr_decay_rate": 0.1,
          "client_lr_decay_rounds": 2**31}, "client_lr_decay_rounds = .* at most 2147483647"),
        ({"client_lr_schedule": "cosine", "client_lr_warmup_rounds": 2**40}, "client_lr_warmup"),
        ({"client_lr": 10**400}, "client_lr = inf must be above 0 and finite"),
        ({"client_lr": 1e-60}, "client_lr = 1e-60 .* 32 bits"),
        ({"beta2": 1 - 1e-12, "server_optimizer": "adam"}, "beta2 = .* 32 bits"),
        ({"seed": 2**32}, "seed = 4294967296 must be"),
        ({"baselines": ("centralized", "centralized")}, "baselines names 'centralized' twice"),
        ({"baselines": [["centralized"]]}, "baselines = "),
        ({"uplink": "top_k(" + "[" * 150 + "1" + "]" * 150 + ")"}, "uplink = .*top_k"),
        ({"uplink": "-" * 100_000 + "1"}, "has 100001 characters"),
        ({"uplink": "top_k(" + "-" * 380 + "1)"}, "uplink = .* must be numbers"),
        ({"model_options": {1: 2}}, "model_options = .* keys are texts"),
    ],
)  # fmt: skip
def test_values_that_no_program_could_hold_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        resolve(BASE | values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset_options": {"seed": 1}}, "seed = 1 is set here, and the key 'data_seed' sets it"),
        ({"dataset_options": {"partition": "iid"}}, "the key 'partition'"),
        ({"dataset_options": {"name": "mnist"}}, "no argument 'name' = 'mnist'"),
        ({"dataset_options": {"min_partition_size": 2}}, "the key 'min_partition_size'"),
        ({"dataset_options": {"test_fraction": "a"}}, "test_fraction = 'a' .str. must be a number"),
        ({"model_options": {"num_classes": 2}}, "num_classes = 2 .* the data sets it"),
        *(
            ({"model": "mlp", "model_options": {"hidden": hidden}}, r"hidden.* = .* must be")
            for hidden in (5, "ab", [0], [-1], [1.5], [True], None, [[3]], {"a": 1})
        ),
        ({"model": "char_lstm", "model_options": {"layers": 0}}, "layers = 0 must be at least 1"),
        ({"model": "emnist_cnn"}, r"needs images of a height.* is \(64,\)"),
        ({"model": "resnet18_gn"}, r"needs images of a height.* is \(64,\)"),
    ],
)  # fmt: skip
def test_options_that_data_and_model_cannot_take_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        make_experiment(resolve(BASE | values))


def test_local_work_that_no_plan_could_hold_is_refused():
    experiment = make_experiment(BASE | {"local_steps": 2**31 - 1})
    with pytest.raises(ValueError, match="local_steps = 2147483647 with batches of 20 rows"):
        fljax.simulate(*experiment[:3], **experiment.options, progress=False)

"""Python's functions have the defaults of the table of options."""

import dataclasses
import inspect

import pytest

import fljax
from fljax import data
from fljax.compression import names
from fljax.core.contradictions import has_effect
from fljax.core.settings import (
    ALGORITHM,
    DATA,
    EVALUATION,
    EXECUTION,
    MODEL,
    OPTIONS,
    RECORDING,
    TRAINING,
    affecting,
)
from fljax.core.values import checked
from fljax.training.options import RoundOptions, RunOptions

RECORDS = (RoundOptions, RunOptions)
FUNCTIONS = {
    **data.PARTITIONERS,
    **data.SOURCES,
    "load": data.load,
    "from_arrays": data.from_arrays,
    "Names": names.Names,
}
# Options of a function's own by the same name.
OWN = {
    "natural": {"min_partition_size"},  # its rows do not move
    "pfllib_dirichlet": {"alpha"},  # PFLlib's own
    "pachinko": {"alpha"},  # that of the paper
    "synthetic": {"alpha", "num_clients"},  # of the paper's data
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_defaults_of_the_table(name):
    for parameter in inspect.signature(FUNCTIONS[name]).parameters.values():
        known = OPTIONS.keys() - ALGORITHM.keys() - OWN.get(name, set())
        if parameter.default is inspect.Parameter.empty or parameter.name not in known:
            continue
        field = DATA["data_seed"] if parameter.name == "seed" else OPTIONS[parameter.name]
        if f"; unset: {parameter.default}" in field.meaning:
            continue  # the signature holds it, and counts from a configuration too
        assert parameter.default == field.default, parameter.name


def test_what_a_configuration_sets_python_sets_too():
    """Texts are parts there; Python takes functions as schedules, and lists of clients' epochs."""
    elsewhere = {"model", "model_options", "task", "max_local_epochs"}
    elsewhere |= {"wandb", "tensorboard", "mlflow"}
    keys = {*MODEL, *TRAINING, *EVALUATION, *RECORDING, *EXECUTION} - elsewhere
    keys = {name for name in keys if "_lr_decay" not in name and "_lr_warmup" not in name}
    records = {field.name for kind in RECORDS for field in dataclasses.fields(kind)}
    assert keys <= records | inspect.signature(fljax.simulate).parameters.keys()


def test_defaults_are_what_they_may_be():
    for name, field in OPTIONS.items():
        assert checked(name, field.default, field) == field.default


def test_what_an_option_affects_and_with_what():
    assert {"client_lr", "seed", "uplink"} <= affecting("results")
    assert {"lanes", "wandb", "data_dir"} <= affecting("speed", "files")
    assert not affecting("results", "record") & affecting("speed", "files")
    assert has_effect("alpha", {"partition": "dirichlet"})
    assert not has_effect("alpha", {"partition": "iid"})
    assert has_effect("seed", {})
